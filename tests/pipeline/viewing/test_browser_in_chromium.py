"""The page to look through a cache, in a real browser: it works, and nothing gets at it."""

import re

import pytest

from pipeline.cache import Cache


@pytest.fixture(scope="module")
def opened(cache):
    return Cache(cache.folder)


@pytest.fixture
def shown(chromium, page_file):
    chromium.get(page_file.as_uri())
    return chromium


def status(driver, of="clips"):
    return driver.find_element("id", f"{of}-status").text


def visible(driver):
    return [c for c in driver.find_elements("css selector", "#clips > li") if c.is_displayed()]


def form(driver, of="clips"):
    return driver.find_element("css selector", f"form[data-list={of}]")


def press(driver, *keys):
    driver.switch_to.active_element.send_keys(*keys)


def tab_to(driver, name):
    """Press Tab until a control of this name has the focus."""
    for _ in range(30):
        press(driver, "\ue004")
        focused = driver.switch_to.active_element
        if name in (focused.get_attribute("name"), focused.get_attribute("type")):
            return
    raise AssertionError(f"Tab does not lead to {name}")


def test_the_page_opens_from_disk_and_asks_for_nothing_else(chromium, page_file, asked_for):
    chromium.get(page_file.as_uri())
    chromium.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    loaded = "return [...document.images].every(i => i.complete && i.naturalWidth === 112)"
    assert chromium.execute_script(loaded)
    assert asked_for() == [page_file.as_uri()]
    assert chromium.get_log("browser") == []
    assert status(chromium) == "8 of 8 clips shown"


def test_filters_leave_what_fits_all_of_them(shown, opened):
    controls = {c.get_attribute("name"): c for c in form(shown).find_elements("css selector", "*")}
    controls["label"].send_keys("fake")
    controls["split"].send_keys("train")
    fits = [clip for clip in opened.clips if clip.label == 1 and clip.split == "train"]
    assert 0 < len(fits) < 4
    assert status(shown) == f"{len(fits)} of 8 clips shown (label: fake; split: train)"
    assert [clip.id in card.text for clip, card in zip(fits, visible(shown), strict=True)]
    controls["text"].send_keys(fits[0].id[:10].upper())
    (card,) = visible(shown)
    assert fits[0].id in card.text
    controls["text"].send_keys(" nobody")
    assert visible(shown) == [] and status(shown).startswith("0 of 8 clips shown")


def test_rejected_files_can_be_filtered_by_reason(shown):
    form(shown, "rejected").find_element("name", "reason").send_keys("truncated")
    assert status(shown, "rejected") == "1 of 5 rejected files shown (reason: truncated)"
    rows = shown.find_elements("css selector", "#rejected > tr")
    assert ["broken_off.mp4" in row.text for row in rows if row.is_displayed()] == [True]
    assert status(shown) == "8 of 8 clips shown"


def test_the_keyboard_is_enough(shown):
    address = shown.current_url
    tab_to(shown, "label")
    press(shown, "r")
    assert status(shown) == "4 of 8 clips shown (label: real)"
    tab_to(shown, "text")
    press(shown, "talking \ue007")  # and Enter, which must not lead anywhere
    assert status(shown) == "4 of 8 clips shown (label: real; text: talking)"
    tab_to(shown, "reset")
    press(shown, "\ue007")
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
    wait(shown, 10).until(lambda _: status(shown) == "8 of 8 clips shown")  # after the event
    assert len(visible(shown)) == 8
    assert shown.current_url == address and shown.get_log("browser") == []


def test_controls_have_names_and_the_count_is_announced(shown):
    for control in shown.find_elements("css selector", "select, input, button"):
        assert control.accessible_name
    assert shown.find_element("id", "clips-status").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_the_page_is_as_wide_as_the_screen(shown, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert shown.execute_script("return document.documentElement.scrollWidth") <= width
    shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_paper_shows_what_fits_and_no_controls(shown):
    form(shown).find_element("name", "label").send_keys("real")
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not form(shown).is_displayed()
    assert len(visible(shown)) == 4 and status(shown) == "4 of 8 clips shown (label: real)"
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_dark_is_dark_and_light_is_light(shown):
    brightness = []
    for scheme in ("light", "dark"):
        preferred = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)
        colour = shown.find_element("css selector", "body").value_of_css_property(
            "background-color"
        )
        brightness.append(int(re.findall(r"\d+", colour)[0]))
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert brightness[0] > 200 and brightness[1] < 60


def test_hostile_names_do_nothing(chromium, hostile, asked_for):
    exceptions = pytest.importorskip("selenium.common.exceptions")
    chromium.get(hostile.page.as_uri())
    image = hostile.names[0]
    form(chromium).find_element("name", "source").send_keys(hostile.source[:3])
    form(chromium).find_element("name", "text").send_keys(image)
    assert len(visible(chromium)) == 1
    assert f"(source: {hostile.source}; text: {image})" in status(chromium)
    with pytest.raises(exceptions.NoAlertPresentException):
        _ = chromium.switch_to.alert
    assert asked_for() == [hostile.page.as_uri()]
    assert chromium.get_log("browser") == []


def test_the_policy_of_the_page_stops_a_script_that_slipped_in(chromium, page_file, tmp_path):
    path = tmp_path / "slipped.html"
    evil = "<img src=x onerror=alert(1)><script>document.title = 'taken'</script></main>"
    path.write_text(page_file.read_text().replace("</main>", evil))
    chromium.get(path.as_uri())
    assert chromium.title == "Cache cache"
    assert status(chromium) == "8 of 8 clips shown"
    assert len(chromium.get_log("browser")) >= 2  # what was stopped
