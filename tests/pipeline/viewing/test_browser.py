"""The page to look through a cache is whole, true, harmless and usable."""

import base64
import csv
import re
import shutil
from html.parser import HTMLParser

import click
import cv2
import h5py
import numpy as np
import pytest

from pipeline.cache import Cache
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.corpus.reading import read_corpus
from pipeline.extraction.extract_corpus import extract
from pipeline.inspect import main
from pipeline.settings import Settings
from pipeline.viewing import browser
from pipeline.viewing.browser import some_of_each, write_browser

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
def page(page_file):
    return Page(page_file)


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
    assert len(page.all("img")) == 8 * browser.MOMENTS_PER_CLIP * 2


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


def test_timing_is_that_of_the_extraction_and_the_slowest_come_first(page, opened):
    known, names = opened.timing(), opened.names()
    assert known.keys() == names.keys()
    assert all(frames == 20 and 0 < seconds < 60 for frames, seconds in known.values())
    total = sum(seconds for _, seconds in known.values())
    assert f"{total:.1f} s of one process, 160 frames of 8 videos" in page.text
    slowest = sorted(known, key=lambda video: -known[video][1])
    places = [page.text.rindex(names[video]) for video in slowest]
    assert places == sorted(places)


def test_a_cache_that_came_without_its_timing_says_so(cache, tmp_path):
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    (folder / "timing.csv").unlink()
    page = written(Cache(folder), tmp_path / "page.html")
    assert "The time of extraction is unknown" in page.text


def test_a_timing_that_somebody_else_wrote_is_an_integrity_error(cache, tmp_path):
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    (folder / "timing.csv").write_text("id,frames,seconds\nx,20,soon\n")
    with pytest.raises(IntegrityError, match=r"timing\.csv is damaged"):
        write_browser(Cache(folder), tmp_path / "page.html")


def test_a_cache_without_frames_shows_its_maps(tmp_path, make_corpus, in_process):
    make_corpus(tmp_path / "videos", (20,), (20,))
    settings = Settings(width=64, height=48, keep_frames=False)
    cache = extract(read_corpus([tmp_path / "videos"]), tmp_path / "cache", settings, in_process)
    page = written(cache, tmp_path / "page.html")
    assert len(page.all("img")) == 2 * browser.MOMENTS_PER_CLIP
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
    monkeypatch.setattr(browser, "MAX_IMAGE_BYTES", 50_000)
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
    assert (len(listed), listed.count("timed out")) == (browser.MAX_REJECTED, 1)
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


def test_names_are_shown_and_are_nothing_but_text(hostile):
    page = Page(hostile.page)
    assert len(page.all("script")) == 1
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert all(picture["src"].startswith("data:") for picture in page.all("img"))
    for name in (*hostile.names, "\\udcff.mp4"):
        assert name in page.text
    assert {card["data-source"] for card in page.cards} == {hostile.source}


# ------------------------------------------------------------------------------------ the command


def test_the_command_writes_a_page_and_says_how_large_it_is(call, cache, tmp_path):
    path = tmp_path / "out.html"
    code, out, err = call(main, cache.folder, "--html", path, "--clips", 3)
    assert (code, err) == (0, "")
    assert out.strip() == f"{path}: 3 of 8 clips, {path.stat().st_size / 1e3:.1f} kB"


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
