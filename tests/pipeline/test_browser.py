"""The page to look through a cache is whole, true, harmless and usable."""

import base64
import csv
import json
import re
import shutil
from html.parser import HTMLParser

import click
import cv2
import h5py
import numpy as np
import pytest

from pipeline import browser
from pipeline.browser import some_of_each, write_browser
from pipeline.cache import Cache
from pipeline.corpus import read_corpus
from pipeline.errors import IntegrityError, SettingsError
from pipeline.extraction import extract
from pipeline.inspect import main
from pipeline.settings import Settings

IMAGE = "<img src=x onerror=alert(1)>"
SCRIPT = "\"'><script>alert(2)</script>.mp4"  # the slash makes a folder of the first part
HANDLER = '" autofocus onfocus="alert(3)'
JPEG_ERROR = 6  # grey levels on average, at quality 70 over a picture without fine grain


class Page(HTMLParser):
    """A page as its elements and text: what a browser would make of it, in order."""

    def __init__(self, path):
        super().__init__()
        self.elements, self._texts = [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self._texts += data.split()

    @property
    def text(self):
        return " ".join(self._texts)

    def all(self, tag):
        return [attrs for found, attrs in self.elements if found == tag]

    @property
    def cards(self):
        return [attrs for attrs in self.all("li") if "data-label" in attrs]


def pixels(uri):
    start, content = uri.split(",", 1)
    assert start == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED)


def written(cache, path, n_clips=None):
    write_browser(cache, path, n_clips)
    return Page(path)


@pytest.fixture(scope="module")
def opened(cache):
    return Cache(cache.folder)


@pytest.fixture(scope="module")
def page_file(opened, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "cache.html"
    write_browser(opened, path)
    return path


@pytest.fixture(scope="module")
def page(page_file):
    return Page(page_file)


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory, make_corpus, in_process):
    """The page of a cache whose names try everything, of videos, rejected files and the source."""
    folder = tmp_path_factory.mktemp("hostile")
    videos = make_corpus(folder, (20,), (20,))
    names = {f"{IMAGE}.mp4": ("real0", "real"), SCRIPT: ("fake0", "fake")}
    table = folder / f"{HANDLER}{IMAGE}.csv"
    rows = [["path", "label"]]
    for name, (video, label) in names.items():
        (folder / name).parent.mkdir(exist_ok=True)
        rows.append([str(videos[video].rename(folder / name)), label])
    for name in (f"{IMAGE} broken.mp4", f"{HANDLER}.mp4"):
        (folder / name).write_bytes(b"not a video")
        rows.append([str(folder / name), "real"])
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    cache = extract(
        read_corpus([table]), folder / "cache", Settings(width=64, height=48), in_process
    )
    with (cache.folder / "rejected.csv").open("ab") as file:
        file.write(b"/videos/\xff.mp4,not a video,\n")  # a file's name need not be text
    path = folder / "hostile.html"
    write_browser(cache, path)
    return path


# --------------------------------------------------------------------------------------- content


def test_every_clip_has_its_facts_and_pictures(page, opened):
    assert len(page.cards) == len(opened.clips) == 8
    names = opened.names()
    for clip, card in zip(opened.clips, page.cards, strict=True):
        assert card == {
            "data-label": ("real", "fake")[clip.label],
            "data-split": clip.split,
            "data-source": "dfd",
            "data-manipulation": clip.manipulation,
        }
        assert f"{clip.id} {names[clip.video]} " in page.text
    assert len(page.all("img")) == 8 * browser.MOMENTS * 2


def test_pictures_are_frames_and_the_maps_from_them_to_the_next(page, opened):
    pictures = page.all("img")[:8]
    clip = opened.clips[0]
    frames, flow = opened.read(clip, "frames"), opened.read(clip, "flow")
    times, largest = opened.read(clip, "timestamps"), opened.read(clip, "flow_range")[:, 1]
    for n, at in enumerate((0, 6, 12, 18)):
        frame, grey = pixels(pictures[2 * n]["src"]), pixels(pictures[2 * n + 1]["src"])
        assert grey.shape == (84, 112)  # 96x72, scaled to 112 at its larger side
        expected = cv2.resize(frames[at], (112, 84), interpolation=cv2.INTER_AREA)
        assert np.abs(frame[..., ::-1].astype(int) - expected).mean() < JPEG_ERROR
        expected = cv2.resize(flow[at], (112, 84), interpolation=cv2.INTER_AREA)
        assert np.abs(grey.astype(int) - expected).mean() < JPEG_ERROR
        assert f"{times[at]:.2f} s {largest[at]:.1f} px/frame" in page.text


def test_every_picture_is_lazy_sized_and_described(page):
    for picture in page.all("img"):
        assert picture["loading"] == "lazy" and picture["alt"]
        assert (picture["width"], picture["height"]) == ("112", "84")


def test_rejected_files_are_listed_with_their_reasons(page, corpus):
    rows = [attrs["data-reason"] for attrs in page.all("tr") if "data-reason" in attrs]
    assert sorted(rows) == sorted(corpus.rejected.values())
    for path, reason in corpus.rejected.items():
        assert f"{path} {reason} " in page.text


def test_figures_are_those_of_the_cache(page, opened):
    for split in ("train", "test"):
        real, fake = (sum(c.split == split and c.label == n for c in opened.clips) for n in (0, 1))
        assert f" {split} {real} {fake} " in page.text
    for said in (
        "clips 8 of 8 videos, 4 identities",
        "frames of each (T) 20",
        "size of each 96x72 pixels",
        "rates of videos (clips) 25 frames/s (4), 30 frames/s (4)",
        f"Farneback, backend {opened.attrs['flow_backend']}",
        f"opencv-contrib-python {cv2.__version__.split('.')[0]}",
        opened.sha256,
        '"keep_frames": true',
    ):
        assert said in page.text


def test_storage_is_that_on_disk(page, opened):
    raw = 8 * 20 * 72 * 96 * 3
    stored = sum(opened.datasets(clip)["frames"][2] for clip in opened.clips)
    row = f"frames 20x72x96x3 uint8 8 {raw / 1e6:.1f} MB {stored / 1e6:.1f} MB {raw / stored:.2f}"
    assert row in page.text
    on_disk = sum(path.stat().st_size for path in (opened.folder / "shards").iterdir())
    assert f"{on_disk / 1e6:.1f} MB in 8 shards" in page.text


def test_a_cache_without_frames_shows_its_maps(tmp_path, make_corpus, in_process):
    make_corpus(tmp_path / "videos", (20,), (20,))
    settings = Settings(width=64, height=48, keep_frames=False)
    cache = extract(read_corpus([tmp_path / "videos"]), tmp_path / "cache", settings, in_process)
    page = written(cache, tmp_path / "page.html")
    assert len(page.all("img")) == 2 * browser.MOMENTS
    assert all(picture["alt"].startswith("Flow map") for picture in page.all("img"))


# ------------------------------------------------------------------------------------------ size


def test_some_of_each_kind_are_chosen():
    assert [item for _, item in some_of_each("aaaabbc", str, 5)] == list("abcab")
    assert some_of_each("ab", str, 5) == [(0, "a"), (1, "b")]


def test_a_page_of_few_clips_shows_both_labels_and_says_so(opened, tmp_path):
    page = written(opened, tmp_path / "page.html", 2)
    assert {card["data-label"] for card in page.cards} == {"real", "fake"}
    assert "2 of 8 clips are on this page" in page.text
    assert "clips are on this page" not in written(opened, tmp_path / "all.html", 8).text


def test_pictures_stay_below_the_limit_unless_clips_were_asked_for(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(browser, "PICTURE_BYTES", 50_000)
    page = written(opened, tmp_path / "page.html")
    assert 25_000 < sum(len(picture["src"]) for picture in page.all("img")) < 50_000
    assert f"{len(page.cards)} of 8 clips are on this page" in page.text
    assert len(written(opened, tmp_path / "page.html", 8).cards) == 8


def test_of_many_rejected_files_some_of_every_reason_are_listed(cache, tmp_path):
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    with (folder / "rejected.csv").open("w", newline="") as file:
        rows = [[f"/v/{n}.mp4", "timed out" if n == 2999 else "too short", ""] for n in range(3000)]
        csv.writer(file).writerows([["path", "reason", "detail"], *rows])
    page = written(Cache(folder), tmp_path / "page.html")
    listed = [attrs["data-reason"] for attrs in page.all("tr") if "data-reason" in attrs]
    assert (len(listed), listed.count("timed out")) == (browser.REJECTED, 1)
    assert "2000 of 3000 files are listed here" in page.text
    assert "too short 2999 " in page.text


def test_a_page_is_the_same_every_time(opened, page_file, tmp_path):
    write_browser(opened, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page_file.read_bytes()


# -------------------------------------------------------------------------------------- harmless


def test_nothing_is_fetched_from_elsewhere(page):
    leading = {"src", "href", "srcset", "action", "formaction", "poster", "data", "background"}
    for _, attrs in page.elements:
        for name in leading & set(attrs):
            assert re.match("data:image/jpeg;base64,|#", attrs[name])
    assert not page.all("link") and not re.search(r"url\(|@import|https?:", page.source)
    (policy,) = (m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_names_are_shown_and_are_nothing_but_text(hostile_file):
    page = Page(hostile_file)
    assert len(page.all("script")) == 1
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert all(picture["src"].startswith("data:") for picture in page.all("img"))
    for name in (IMAGE, SCRIPT, HANDLER, "\\udcff.mp4"):
        assert name in page.text
    assert {card["data-source"] for card in page.cards} == {HANDLER + IMAGE}


# --------------------------------------------------------------------------- in a real browser


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium that writes down its requests and what its console says."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.add_argument("--window-size=1280,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


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


def requests(driver):
    """The addresses that were asked for since this was last called; data URIs ask for none."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [p["request"]["url"] for p in sent if not p["request"]["url"].startswith("data:")]


def test_the_page_opens_from_disk_and_asks_for_nothing_else(chromium, page_file):
    requests(chromium)
    chromium.get(page_file.as_uri())
    chromium.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    loaded = "return [...document.images].every(i => i.complete && i.naturalWidth === 112)"
    assert chromium.execute_script(loaded)
    assert requests(chromium) == [page_file.as_uri()]
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
    assert status(shown) == "8 of 8 clips shown" and len(visible(shown)) == 8
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


def test_hostile_names_do_nothing(chromium, hostile_file):
    exceptions = pytest.importorskip("selenium.common.exceptions")
    requests(chromium)
    chromium.get(hostile_file.as_uri())
    form(chromium).find_element("name", "source").send_keys(HANDLER[:3])
    form(chromium).find_element("name", "text").send_keys(IMAGE)
    assert len(visible(chromium)) == 1
    assert f"(source: {HANDLER}{IMAGE}; text: {IMAGE})" in status(chromium)
    with pytest.raises(exceptions.NoAlertPresentException):
        _ = chromium.switch_to.alert
    assert requests(chromium) == [hostile_file.as_uri()]
    assert chromium.get_log("browser") == []


def test_the_policy_of_the_page_stops_a_script_that_slipped_in(chromium, page_file, tmp_path):
    path = tmp_path / "slipped.html"
    evil = f"{IMAGE}<script>document.title = 'taken'</script></main>"
    path.write_text(page_file.read_text().replace("</main>", evil))
    chromium.get(path.as_uri())
    assert chromium.title == "Cache cache"
    assert status(chromium) == "8 of 8 clips shown"
    assert len(chromium.get_log("browser")) >= 2  # what was stopped


# ------------------------------------------------------------------------------------ the command


def test_the_command_writes_a_page_and_says_how_large_it_is(run_command, cache, tmp_path):
    path = tmp_path / "out.html"
    done = run_command("pipeline.inspect", cache.folder, "--html", path, "--clips", 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"{path}: 3 of 8 clips, {path.stat().st_size / 1e3:.1f} kB"


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--html", "page.txt"], "does not end in .html"),
        (["--html", "page.html", "--sheet", "sheet.png"], "--html goes with --clips alone"),
        (["--html", "page.html", "--verify"], "--html goes with --clips alone"),
        (["--clips", "3"], "--clips goes with --html"),
    ],
)
def test_options_that_make_no_sense_are_refused(cache, arguments, said):
    with pytest.raises(click.UsageError, match=said):
        main.main([str(cache.folder), *arguments], standalone_mode=False)


def test_a_cache_of_the_other_stage_is_refused(cache, tmp_path):
    shutil.copy(cache.folder / "index.h5", tmp_path)
    (tmp_path / "shards").symlink_to(cache.folder / "shards")
    with h5py.File(tmp_path / "index.h5", "r+") as index:
        index.attrs["stage"] = "embed"
    arguments = [str(tmp_path), "--html", str(tmp_path / "page.html")]
    with pytest.raises(SettingsError, match="the extract stage is needed"):
        main.main(arguments, standalone_mode=False)
    assert not (tmp_path / "page.html").exists()


def test_a_page_is_written_whole_or_not_at_all(cache, tmp_path):
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    damaged = Cache(folder).clips[5]
    with h5py.File(folder / damaged.shard) as file:
        chunk = file[damaged.id]["flow"].id.get_chunk_info(0)
    with (folder / damaged.shard).open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(8))
    path = tmp_path / "page.html"
    path.write_text("the page before")
    with pytest.raises(IntegrityError, match=damaged.id):
        write_browser(Cache(folder), path)
    assert path.read_text() == "the page before"
    assert {file.name for file in tmp_path.iterdir()} == {"cache", "page.html"}
