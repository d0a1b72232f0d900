"""The page of a video in a real browser: picture, curves and numbers keep in step."""

import re

import pytest

LAST = 15  # moment of two clips of nine frames
TOLERANCE = 4  # greys that H.264 may be off; two frames are 10 apart
MIDDLE = """
    const canvas = document.querySelector("canvas");
    const at = [canvas.width / 2, canvas.height / 2, 1, 1];
    return [...canvas.getContext("2d").getImageData(...at).data].slice(0, 3);
"""
LEFT, RIGHT, HOME, END, SPACE, TAB = "\ue012", "\ue014", "\ue011", "\ue010", " ", "\ue004"


@pytest.fixture
def wait(chromium):
    support = pytest.importorskip("selenium.webdriver.support.ui")
    return lambda true: support.WebDriverWait(chromium, 30, 0.02).until(lambda _: true())


@pytest.fixture
def shown(chromium, case_page, wait):
    chromium.get(case_page.as_uri())
    wait(lambda: moment(chromium) == 0)
    return chromium


def moment(driver):
    """The moment that the canvas shows; None before there is one."""
    said = driver.find_element("css selector", "canvas").get_attribute("data-moment")
    return None if said is None else int(said)


def grey(driver):
    """The colour in the middle of the canvas, which must be grey."""
    red, green, blue = driver.execute_script(MIDDLE)
    assert max(red, green, blue) - min(red, green, blue) <= TOLERANCE
    return green


def expected(place):
    """The grey of the frame that a moment shows: frames are 10 greys brighter one by one."""
    clip, row = divmod(place, 8)
    return 30 + 10 * (9 * clip + row + 1)


def in_step(driver, place):
    """Whether picture, slider, cursor and numbers are all at a moment."""
    seconds = 0.04 * (expected(place) - 30) / 10
    said = driver.find_element("id", "readout").text
    cursor = driver.find_element("css selector", ".cursor").get_attribute("style")
    return (
        moment(driver) == place
        and abs(grey(driver) - expected(place)) <= TOLERANCE
        and slider(driver).get_property("value") == str(place)
        and said.startswith(f"{seconds:.2f} s, clip {1 + place // 8}, probability of fake 0.")
        and "% of real moments, contribution" in said
        and f"left: {100 * (place + 0.5) / (LAST + 1):g}%" in cursor
    )


def slider(driver):
    return driver.find_element("id", "moment")


def layer(driver, name):
    driver.find_element("css selector", f"input[name=layer][value={name}]").click()


def tab_to(driver, name):
    for _ in range(30):
        driver.switch_to.active_element.send_keys(TAB)
        if driver.switch_to.active_element.get_attribute("id") == name:
            return
    raise AssertionError(f"Tab does not lead to {name}")


def test_the_page_opens_from_disk_and_asks_for_nothing_else(chromium, case_page, asked_for, wait):
    chromium.get(case_page.as_uri())
    wait(lambda: moment(chromium) == 0)
    assert in_step(chromium, 0)
    assert asked_for() == [case_page.as_uri()]
    assert chromium.get_log("browser") == []
    assert chromium.title.endswith(": <img src=x onerror=alert(1)>.mp4")


def test_it_plays_to_the_end_in_step(shown, wait):
    shown.find_element("id", "speed").send_keys("¼")
    shown.find_element("id", "play").click()
    wait(lambda: shown.find_element("id", "play").text == "Pause")  # set by the video's own event
    seen = set()

    def ended():
        seen.add(shown.execute_script("return document.querySelector('canvas').dataset.moment"))
        return shown.execute_script("return document.querySelector('video').ended")

    wait(ended)
    assert len(seen) > 4
    wait(lambda: in_step(shown, LAST))
    assert shown.find_element("id", "play").text == "Play"
    assert shown.get_log("browser") == []


@pytest.mark.parametrize("place", [0, 5, 8, LAST])
def test_a_click_on_a_curve_leads_to_that_moment(shown, wait, place):
    chains = pytest.importorskip("selenium.webdriver.common.action_chains")
    plots = shown.find_elements("css selector", ".plot")
    assert len(plots) == 3
    for plot in plots[:2]:
        away = plot.size["width"] * ((place + 0.5) / (LAST + 1) - 0.5)
        chains.ActionChains(shown).move_to_element_with_offset(plot, int(away), 0).click().perform()
        wait(lambda: in_step(shown, place))


def test_the_keyboard_is_enough(shown, wait):
    canvas = shown.find_element("css selector", "canvas")
    canvas.send_keys(RIGHT, RIGHT, RIGHT, LEFT)
    wait(lambda: in_step(shown, 2))
    tab_to(shown, "moment")
    shown.switch_to.active_element.send_keys(END)
    wait(lambda: in_step(shown, LAST))
    shown.switch_to.active_element.send_keys(LEFT)
    wait(lambda: in_step(shown, LAST - 1))
    shown.switch_to.active_element.send_keys(SPACE)
    wait(lambda: in_step(shown, LAST))
    spoken = slider(shown).get_attribute("aria-valuetext")
    assert spoken.startswith("0.68 s, clip 2, probability of fake 0.")
    canvas.send_keys(SPACE)  # from the beginning again
    wait(lambda: moment(shown) < LAST)


def test_buttons_step_and_lead_to_clips_and_to_the_moments_that_stand_out(shown, wait):
    shown.find_element("css selector", "[data-step='1']").click()
    wait(lambda: in_step(shown, 1))
    buttons = shown.find_elements("css selector", "#layers [data-jump]")
    assert [button.text for button in buttons] == ["Clip 1: 0.0 to 0.3 s", "Clip 2: 0.4 to 0.7 s"]
    buttons[1].click()
    wait(lambda: in_step(shown, 8))
    still = shown.find_elements("css selector", ".stills [data-jump]")[-1]
    shown.execute_script("arguments[0].scrollIntoView()", still)
    still.click()
    wait(lambda: in_step(shown, int(still.get_attribute("data-jump"))))


def test_each_layer_shows_its_own_pane(shown, wait):
    shown.find_element("css selector", "canvas").send_keys(RIGHT, RIGHT)
    wait(lambda: in_step(shown, 2))
    size = "const c = document.querySelector('canvas'); return [c.width, c.height]"
    one = shown.execute_script(size)
    layer(shown, "flow")
    flow = shown.execute_script(MIDDLE)
    assert max(flow) < expected(2) - 20  # nothing moves: dark
    layer(shown, "heat-frames")
    hot = shown.execute_script(MIDDLE)
    strength = shown.find_element("id", "strength")
    assert strength.is_enabled()
    strength.send_keys(HOME)
    assert abs(grey(shown) - expected(2)) <= TOLERANCE  # without heat, the frame
    strength.send_keys(END)
    assert shown.execute_script(MIDDLE) == hot
    layer(shown, "all")
    wide = shown.execute_script(size)
    assert wide[0] > 3.9 * one[0] and one[1] < wide[1] < 1.3 * one[1]
    layer(shown, "frames")
    assert in_step(shown, 2) and not strength.is_enabled()


def test_controls_have_names(shown):
    controls = shown.find_elements("css selector", "select, input, button, canvas, svg, img")
    assert len(controls) > 25
    for control in controls:
        assert control.accessible_name, control.get_attribute("outerHTML")[:200]
    assert shown.find_element("id", "readout").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_the_page_is_as_wide_as_the_screen(shown, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for name in ("frames", "all"):
        layer(shown, name)
        assert shown.execute_script("return document.documentElement.scrollWidth") <= width
    shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_paper_shows_the_stills_and_no_player(shown):
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        for hidden in ("canvas", "video", "#layers", "#moment", ".cursor", ".stills button"):
            assert not shown.find_element("css selector", hidden).is_displayed()
        images = shown.find_elements("css selector", ".stills img")
        assert len(images) >= 12 and all(image.is_displayed() for image in images)
        assert all(plot.is_displayed() for plot in shown.find_elements("css selector", ".plot svg"))
        loaded = "return [...document.images].every(i => i.complete && i.naturalWidth === 224)"
        assert shown.execute_script(loaded)
    finally:
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_scripts_the_video_and_the_stills_are_there(chromium, case_page):
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.get(case_page.as_uri())
        assert chromium.find_element("css selector", "video").is_displayed()
        assert chromium.find_element("css selector", "video").get_attribute("controls")
        for hidden in ("canvas", "#layers", "#moment", ".stills button"):
            assert not chromium.find_element("css selector", hidden).is_displayed()
        assert chromium.find_element("css selector", ".stills img").is_displayed()
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_dark_is_dark_and_light_is_light(shown):
    brightness = []
    for scheme in ("light", "dark"):
        preferred = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)
        body = shown.find_element("css selector", "body")
        colour = body.value_of_css_property("background-color")
        brightness.append(int(re.findall(r"\d+", colour)[0]))
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert brightness[0] > 200 and brightness[1] < 60


def test_a_hostile_name_and_a_script_that_slipped_in_do_nothing(
    chromium, case_page, asked_for, tmp_path, wait
):
    exceptions = pytest.importorskip("selenium.common.exceptions")
    chromium.get(case_page.as_uri())
    wait(lambda: moment(chromium) == 0)
    with pytest.raises(exceptions.NoAlertPresentException):
        _ = chromium.switch_to.alert
    assert asked_for() == [case_page.as_uri()]
    path = tmp_path / "slipped.html"
    evil = "<img src=x onerror=alert(1)><script>document.title = 'taken'</script></main>"
    path.write_text(case_page.read_text().replace("</main>", evil))
    chromium.get(path.as_uri())
    wait(lambda: moment(chromium) == 0)
    assert chromium.title != "taken"
    assert len(chromium.get_log("browser")) >= 2  # what was stopped
