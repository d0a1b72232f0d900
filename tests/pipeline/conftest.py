"""What these tests share: clips, small caches, empty files, pictures with a face, pages."""

import csv
import io
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import h5py
import numpy as np
import pytest

from data.heads import render
from data.looks import cast_actor
from pipeline.cache import Cache, ShardWriter
from pipeline.corpus.reading import read_corpus
from pipeline.extraction.clips import extract_clips, read_metadata
from pipeline.extraction.extract_corpus import extract
from pipeline.faces import FaceCrop, find_model
from pipeline.settings import Settings
from pipeline.video.resize import Geometry
from pipeline.viewing.browser import write_browser
from tests.conftest import InProcess

LOSSLESS = {"codec": "ffv1", "pix_fmt": "yuv444p"}
IMAGE = "<img src=x onerror=alert(1)>"
SCRIPT = "\"'><script>alert(2)</script>.mp4"  # the slash makes a folder of the first part
HANDLER = '" autofocus onfocus="alert(3)'


def one_clip(path, n_frames, *, geometry=None, faces=None, model=b"", n_clips=1, stabilise=False):
    """Extract the first clip of a video: its metadata and its arrays."""
    geometry = geometry or Geometry()
    settings = Settings(
        geometry.width,
        geometry.height,
        faces or geometry.crop,
        flow_backend="cpu",
        stabilise=stabilise,
    )
    how = {"rate": 25, "n_frames": n_frames, "n_clips": n_clips, "model": model}
    file = io.BytesIO()
    with ShardWriter(file) as shard:
        extract_clips(Path(path), shard, "clip", settings, **how)
    with h5py.File(file) as stored:
        clip = stored["clip"]
        return read_metadata(clip), {key: dataset[:] for key, dataset in clip.items()}


def magnitudes(arrays):
    """Flow magnitudes in pixels, (T-1, H, W) float, from a clip's maps and ranges."""
    low, high = arrays["flow_range"][:, :, None, None].transpose(1, 0, 2, 3)
    return low + arrays["flow"] / 255 * (high - low)


def grainy(height, width, seed):
    """A background with texture of all sizes, (height, width, 3) uint8."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3)).astype(np.float32)
    layers = sum(size * cv2.GaussianBlur(noise, (0, 0), size) for size in (2, 4, 12))
    return cv2.normalize(layers, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def rows(videos, *fields):
    """What the given fields say of each file, by its name."""
    return {video.path.name: tuple(getattr(video, f) for f in fields) for video in videos}


def small(**settings):
    return Settings(**{"width": 64, "height": 48} | settings)


def by_file(cache):
    """The clips of a cache by the names of their files."""
    names = cache.names()
    return {Path(names[clip.video]).name: clip for clip in cache.clips}


def reasons(cache):
    return {Path(row["path"]).name: row["reason"] for row in cache.rejected()}


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command here as if from the shell: its exit code, and what it printed."""
    before = signal.getsignal(signal.SIGTERM)

    def run(command, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command.main(list(map(str, arguments)), prog_name="python -m command")
        return end.value.code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


class _HerePool(InProcess):
    def __init__(self, jobs=None, limits=None):
        self.slots = jobs or 1


@pytest.fixture
def without_workers(monkeypatch):
    """The extract command does its tasks in this process."""
    monkeypatch.setattr("pipeline.extract.LocalPool", _HerePool)


@pytest.fixture
def root(tmp_path):
    """A folder so deep that the name of the test, further up, says nothing of a dataset."""
    path = tmp_path / "a" / "b" / "c" / "data"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def extract_from(tmp_path, in_process):
    """Extract the videos under a folder with small settings, or with those given."""

    def run(root, out="cache", **settings):
        return extract(read_corpus([root]), tmp_path / out, small(**settings), in_process)

    return run


@pytest.fixture(scope="session")
def haar():
    """A crop about a face by OpenCV's cascade, and the cascade's file."""
    model = find_model("haar")
    return {
        "faces": FaceCrop(detector="haar", detector_sha256=model.sha256),
        "model": model.content,
    }


@pytest.fixture(scope="session")
def actor():
    """A stylised person whose face the cascade finds, 640x480, with grain as a camera has it."""
    frames, boxes = render(cast_actor(10), n_frames=2, seed=6, size=(640, 480))
    grain = np.random.default_rng(0).normal(0, 3, frames[0].shape)
    return np.clip(frames[0] + grain, 0, 255).astype(np.uint8), boxes[0]


@pytest.fixture(scope="session")
def page_file(cache, tmp_path_factory):
    """The page of `cache`. Not to be changed."""
    path = tmp_path_factory.mktemp("page") / "cache.html"
    write_browser(Cache(cache.folder), path)
    return path


@pytest.fixture(scope="session")
def hostile(tmp_path_factory, make_corpus, in_process):
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
    write_browser(cache, folder / "hostile.html")
    names = (IMAGE, SCRIPT, HANDLER)
    return SimpleNamespace(page=folder / "hostile.html", names=names, source=table.stem)
