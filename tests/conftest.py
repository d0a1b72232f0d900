"""What the tests share: small videos made on the spot, corpora of them, a cache, commands."""

import hashlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections import deque
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from pipeline.cache import TIMING
from pipeline.common.errors import Rejected

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = "SAMPLE_VIDEOS"
T = 20  # frames of the shortest sound video of the shared corpus


def pytest_collection_modifyitems(items):
    """Files with slow tests first: at the end no process is left alone with one of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def moving_texture(n, width=96, height=72, seed=0):
    """A smooth texture that wanders about: (n, height, width, 3) uint8, RGB."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height + 64, width + 64, 3)).astype(np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    path = np.clip(np.cumsum(rng.normal(0, 1.5, (n, 2)), axis=0), -30, 30)
    centre = np.array([(width + 63) / 2, (height + 63) / 2])
    return np.stack([cv2.getRectSubPix(texture, (width, height), centre + at) for at in path])


def write_video(
    path,
    frames,
    fps=25,
    *,
    codec="libx264",
    pix_fmt="yuv420p",
    milliseconds=None,
    options=None,
    container_options=None,
):
    """Encode frames (T, H, W, 3), uint8, RGB; ``milliseconds`` are their times, if uneven."""
    if codec == "libx264":
        options = {"preset": "ultrafast", "crf": "12"} | (options or {})
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for n, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = int(milliseconds[n]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def cut(video, share, to=None):
    """Cut a video file off after a share of its bytes, as a broken download does."""
    content = Path(video).read_bytes()
    to = Path(to or video)
    to.write_bytes(content[: int(len(content) * share)])
    return to


def contents(folder):
    """The sha256 of every file under a folder, by its relative path; how long it took is not in."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(Path(folder).rglob("*"))
        if file.is_file() and file.name != TIMING
    }


def run_command(*arguments, cwd=None, timeout=120, **kwargs):
    """Run ``python -m ARGUMENTS`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd or ROOT,
        **kwargs,
    )


def make_corpus(folder, real=(20, 24), fake=(20, 24), *, size=(64, 48), fps=25, seed=0):
    """Videos of so many frames each, in the folders REAL and FAKE; their paths by name."""
    paths = {}
    for kind, lengths in (("REAL", real), ("FAKE", fake)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for n, length in enumerate(lengths):
            seed += 1
            path = folder / kind / f"{kind.lower()}{n}.mp4"
            paths[path.stem] = write_video(path, moving_texture(length, *size, seed), fps)
    return paths


@pytest.fixture(scope="session", name="moving_texture")
def _moving_texture():
    return moving_texture


@pytest.fixture(scope="session", name="write_video")
def _write_video():
    return write_video


@pytest.fixture(scope="session", name="cut")
def _cut():
    return cut


@pytest.fixture(scope="session", name="contents")
def _contents():
    return contents


@pytest.fixture(scope="session", name="run_command")
def _run_command():
    return run_command


@pytest.fixture
def run_as_main(monkeypatch, capsys):
    """Run ``python -m MODULE ARGUMENTS`` in this process, where the libraries are imported.

    Gives the exit code and what it printed. That commands run in processes of their own is shown
    where they are killed.
    """
    before = signal.getsignal(signal.SIGTERM)

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        monkeypatch.delitem(sys.modules, module, raising=False)  # runpy warns of a second one
        with pytest.raises(SystemExit) as end:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        return end.value.code, capsys.readouterr().out

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session", name="make_corpus")
def _make_corpus():
    return make_corpus


class InProcess:
    """A pool that runs tasks here, one after the other.

    For tests about what the tasks do: starting processes would take most of their time.
    """

    slots = 1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, task, items, seconds=None):
        waiting = items if isinstance(items, deque) else deque(items)  # which may grow
        while waiting:
            item = waiting.popleft()
            try:
                yield item, task(item)
            except Rejected as rejected:
                yield item, rejected


@pytest.fixture(scope="session")
def in_process():
    return InProcess()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Four real and four fake videos as in DFD, and everything that can be wrong with a file.

    The shortest sound video has 20 frames. All arguments that reproduce `cache` are in `options`.
    """
    folder = tmp_path_factory.mktemp("corpus")
    real, fake = folder / "DFD_REAL", folder / "DFD_FAKE"
    real.mkdir()
    fake.mkdir()
    sound = []
    for n in range(4):
        a, b = f"{n + 1:02}", f"{(n ^ 1) + 1:02}"
        pictures = moving_texture(T + n, 96, 72, seed=n)
        sound.append(write_video(real / f"{a}__talking.mp4", pictures, 25))
        pictures = moving_texture(T + 3 - n, 96, 72, seed=100 + n)
        sound.append(write_video(fake / f"{a}_{b}__talking__ABCDEFG{n}.mp4", pictures, 30))
    (fake / "copy.mp4").write_bytes(sound[1].read_bytes())
    write_video(real / "accident.mp4", moving_texture(5), 25)
    (real / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (real / "notes.txt").write_text("filmed in May\n")
    faststart = {"movflags": "faststart"}
    whole = write_video(
        real / "broken_off.mp4", moving_texture(30, seed=50), container_options=faststart
    )
    cut(whole, 0.65)
    rejected = {
        fake / "copy.mp4": "duplicate",
        real / "accident.mp4": "too short",
        real / "noise.mp4": "not a video",
        real / "notes.txt": "not a video",
        real / "broken_off.mp4": "truncated",
    }
    options = [real, fake, "--size", "96x72"]
    return SimpleNamespace(
        folder=folder, real=real, fake=fake, sound=sound, rejected=rejected, options=options, T=T
    )


@pytest.fixture(scope="session")
def cache(corpus, tmp_path_factory):
    """The cache that the extract command makes of `corpus`, undisturbed. Not to be changed."""
    folder = tmp_path_factory.mktemp("cache") / "cache"
    done = run_command("pipeline.extract", *corpus.options, "-o", folder, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture(scope="session")
def sample_videos():
    """The folder of real clips that SAMPLE_VIDEOS names."""
    folder = os.environ.get(SAMPLES)
    if not folder:
        pytest.skip(f"needs real clips: set {SAMPLES} to the folder that holds them")
    if not (Path(folder) / "people").is_dir():
        pytest.fail(f"{SAMPLES}={folder} has no folder people/")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def running_chromium():
    """A headless Chromium, for all tests."""
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
def chromium(running_chromium):
    """A headless Chromium that writes down its requests and what its console says in this test."""
    running_chromium.get_log("browser")
    return running_chromium


@pytest.fixture
def asked_for(chromium):
    """Call it for the addresses that were asked for since it was last called, data URIs apart."""

    def addresses():
        entries = chromium.get_log("performance")
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent if not p["request"]["url"].startswith("data:")]

    addresses()
    return addresses
