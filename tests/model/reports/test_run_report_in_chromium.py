"""The report of a run in a real browser: the table of videos works, and nothing gets at it."""

import dataclasses
import itertools
import re
import shutil

import pytest

from model.evaluation.evaluation import evaluate
from model.evaluation.per_video import RIGHT, worst_mistakes
from model.reports import run_report
from model.reports.run_report import PAGES_FOLDER, write_report
from model.run.run import load_run
from pipeline.common.csv_files import write_csv

HOSTILE = "<img src=x onerror=alert(1)>.mp4"
CLOSING = "</script><script>document.title='taken'</script>.mp4"
ROWS = "#videos-table tbody tr"


@pytest.fixture(scope="module")
def report(fitted, tmp_path_factory):
    """A run whose videos have file names, two of them hostile, and its evaluation."""
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(fitted.folder, folder)
    ids = list(dict.fromkeys(clip.video for clip in fitted.cache.clips))
    named = fitted.cache.folder.parent / "frames"
    named.mkdir()
    names = [f"/videos/{n}.mp4" for n in range(len(ids) - 4)]
    unseen = [clip.video for clip in fitted.cache.clips if clip.split == "test"][:2]
    rest = [video for video in ids if video not in unseen]
    listed = [*zip(unseen, ("/v/" + HOSTILE, CLOSING.replace("/", "|")), strict=True)]
    write_csv(named / "names.csv", ["id", "path"], [*listed, *zip(rest, names, strict=False)])
    run = load_run(folder)
    evaluation = evaluate(run, controls=False, device="cpu")
    shutil.rmtree(named)
    return run, evaluation, write_report(run, evaluation)


@pytest.fixture
def shown(chromium, report):
    chromium.get(report[2].as_uri())
    return chromium


def cells(driver, key):
    """The texts of a column, from top to bottom."""
    script = """
      const headers = [...document.querySelectorAll("#videos-table thead th")];
      const n = headers.findIndex((header) => header.dataset.key === arguments[0]);
      return [...document.querySelectorAll(arguments[1])].map((row) => row.cells[n].textContent);
    """
    return driver.execute_script(script, key, ROWS)


def status(driver):
    return driver.find_element("id", "videos-status").text


def choose(driver, **values):
    for name, value in values.items():
        script = """
          const control = document.getElementById("videos-filter").elements[arguments[0]];
          control.value = arguments[1];
          control.dispatchEvent(new Event("input", { bubbles: true }));
        """
        driver.execute_script(script, name, value)


def header(driver, key):
    return driver.find_element("css selector", f"#videos-table th[data-key={key}]")


def test_it_opens_from_disk_and_asks_for_nothing_else(chromium, report, asked_for):
    chromium.get(report[2].as_uri())
    assert chromium.execute_script("return [...document.images].every(i => i.naturalWidth > 300)")
    assert asked_for() == [report[2].as_uri()]
    assert chromium.get_log("browser") == []


def test_at_first_it_shows_the_unseen_videos_likeliest_fakes_first(shown, report):
    unseen = {v.id for v in report[1].videos if v.split in ("test", "holdout")}
    assert set(cells(shown, "id")) == unseen
    found = [float(text) for text in cells(shown, "probability")]
    assert found == sorted(found, reverse=True)
    assert set(cells(shown, "scored_by")) == {"whole model"}
    n = len(report[1].videos)
    assert status(shown).startswith(f"{len(unseen)} of {n} videos fit (split: unseen), by prob")
    choose(shown, split="train")
    assert set(cells(shown, "scored_by")) == {"out of fold"}


def test_every_column_sorts_both_ways_and_what_is_missing_comes_last(shown, report):
    choose(shown, split="all")
    of = {video.id: video for video in report[1].videos}
    keys = [
        found.get_attribute("data-key")
        for found in shown.find_elements("css selector", "#videos-table thead th")
    ]
    assert {"file", "anomaly", "probability", "outcome", "scored_by"} <= set(keys)
    for key in keys:
        for direction in range(2):
            header(shown, key).find_element("tag name", "button").click()
            state = header(shown, key).get_attribute("aria-sort")
            ordered = [getattr(of[video], key) for video in cells(shown, "id")]
            known = [value for value in ordered if value not in (None, "")]
            assert ordered[: len(known)] == known, f"{key}: what is missing comes last"
            rounded = [round(v, 6) if isinstance(v, float) else v for v in known]
            assert rounded == sorted(rounded, reverse=state == "descending"), (key, direction)
            others = shown.find_elements("css selector", "[aria-sort]:not([aria-sort=none])")
            assert [other.get_attribute("data-key") for other in others] == [key]
        assert len(ordered) == len(of)


def test_filters_leave_what_fits_all_of_them(shown, report):
    choose(shown, split="all", label="real", outcome=RIGHT)
    fits = {v.id for v in report[1].videos if (v.label, v.outcome) == ("real", RIGHT)}
    assert set(cells(shown, "id")) == fits != set()
    assert f"{len(fits)} of " in status(shown)
    assert "(split: all" not in status(shown) and "(label: real; outcome: right)" in status(shown)
    some = report[1].videos[5]
    choose(shown, label="all", outcome="all", text=some.id[2:9].upper())
    assert cells(shown, "id") == [some.id]
    choose(shown, text="nobody")
    assert cells(shown, "id") == [] and status(shown).startswith("0 of ")


def test_the_keyboard_is_enough(shown):
    address = shown.current_url
    header(shown, "label").find_element("tag name", "button").send_keys("\ue007")
    assert header(shown, "label").get_attribute("aria-sort") == "ascending"
    assert cells(shown, "label") == sorted(cells(shown, "label"))
    focused = shown.switch_to.active_element
    assert focused.accessible_name == "label" and focused.aria_role == "button"
    search = shown.find_element("name", "text")
    search.send_keys("img\ue007")  # and Enter, which must not lead anywhere
    assert cells(shown, "file") == [HOSTILE]
    shown.find_element("css selector", "#videos-filter button").send_keys(" ")
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait(shown, 10)
    wait.until(lambda _: "(split: unseen)" in status(shown))
    assert len(cells(shown, "id")) > 1
    assert shown.current_url == address and shown.get_log("browser") == []


def test_names_for_those_who_listen(shown):
    for control in shown.find_elements("css selector", "select, input, button, [role=region]"):
        if control.is_displayed():
            assert control.accessible_name
    assert shown.find_element("id", "videos-status").get_attribute("aria-live") == "polite"
    levels = shown.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    broken = """
      return [...document.querySelectorAll("nav a")].filter(
        (a) => !document.getElementById(a.hash.slice(1))).length
    """
    assert shown.execute_script(broken) == 0


@pytest.mark.parametrize("width", [320, 1280])
def test_the_page_is_as_wide_as_the_screen(shown, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert shown.execute_script("return document.documentElement.scrollWidth") <= width
    shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_is_dark_and_paper_has_no_controls(shown):
    brightness = []
    for scheme in ("light", "dark"):
        preferred = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)
        body = shown.find_element("tag name", "body")
        colour = body.value_of_css_property("background-color")
        brightness.append(int(re.findall(r"\d+", colour)[0]))
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert not shown.find_element("id", "videos-filter").is_displayed()
    assert cells(shown, "id")
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert brightness[0] > 200 and brightness[1] < 60


def test_hostile_names_do_nothing(chromium, report, asked_for):
    exceptions = pytest.importorskip("selenium.common.exceptions")
    chromium.get(report[2].as_uri())
    found = cells(chromium, "file")
    assert HOSTILE in found and CLOSING.replace("/", "|") in found
    with pytest.raises(exceptions.NoAlertPresentException):
        _ = chromium.switch_to.alert
    assert chromium.title == "Run run"
    assert asked_for() == [report[2].as_uri()]
    assert chromium.get_log("browser") == []


def test_the_worst_mistakes_lead_to_pages_about_them(chromium, calls_all_fake):
    run, evaluation = calls_all_fake
    worst = worst_mistakes(evaluation.videos, 10)
    assert len(worst) > 1
    links = "#mistakes table a"
    chromium.get(write_report(run, evaluation).as_uri())
    assert chromium.find_elements("css selector", links) == []
    assert "--cases 10" in chromium.find_element("id", "mistakes").text
    (run.folder / PAGES_FOLDER).mkdir()
    (run.folder / PAGES_FOLDER / f"{worst[1].id}.html").write_text("<title>why</title>")
    chromium.get(write_report(run, evaluation).as_uri())
    (link,) = chromium.find_elements("css selector", links)
    assert link.text == worst[1].id
    in_table = chromium.find_elements("css selector", f"{ROWS} a")
    assert [found.text for found in in_table] == [worst[1].id]
    link.click()
    assert chromium.title == "why"


def test_of_many_videos_some_stand_on_the_page_at_a_time(chromium, report, tmp_path, monkeypatch):
    run, evaluation, _ = report
    many = [
        dataclasses.replace(video, id=f"{n:05}-{video.id[:10]}")
        for n in range(25)
        for video in evaluation.videos
    ]
    monkeypatch.setattr(run_report, "MAX_ROWS", 2000)
    run = dataclasses.replace(run, folder=tmp_path)
    large = dataclasses.replace(evaluation, folder=tmp_path, videos=many)
    path = write_report(run, large)
    assert path.stat().st_size - report[2].stat().st_size < 2000 * 200
    chromium.get(path.as_uri())
    choose(chromium, split="all")
    assert f"2000 of {len(many)} videos are in this table" in (
        chromium.find_element("id", "videos").text
    )
    assert status(chromium).startswith("2000 of 2000 videos fit, 1 to 100 shown")
    first = cells(chromium, "id")
    turn = chromium.find_elements("css selector", "#videos-turn button")
    assert not turn[0].is_enabled()
    turn[1].click()
    assert len(cells(chromium, "id")) == 100 and not set(cells(chromium, "id")) & set(first)
    assert "101 to 200 shown" in status(chromium)
    turn[0].click()
    assert cells(chromium, "id") == first
