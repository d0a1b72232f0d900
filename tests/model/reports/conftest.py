"""Pages of real runs on a video whose every frame has a brightness of its own."""

import dataclasses
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from features.backbones import Backbone
from model.evaluation.evaluation import evaluate
from model.prediction.predict_videos import backbone_of, predict_unordered
from model.reports.video_report import page_of, write_video_report
from model.run.run import Run, load_run, save_run

HOSTILE = "<img src=x onerror=alert(1)>.mp4"
FRAMES, CLIP = 19, 9  # of the video, and of each of the two clips that the detector looks at


def brightness(place):
    """The grey of the frame that a moment of the page shows."""
    clip, row = divmod(place, CLIP - 1)
    return 30 + 10 * (clip * CLIP + row + 1)


def _write_stairs(path):
    """A video whose frames are 10 greys brighter one after the other."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for n in range(FRAMES):
            grey = np.full((72, 96, 3), 30 + 10 * n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


@dataclass(frozen=True)
class Judge:
    """All that judges."""

    run: Run
    backbone: Backbone
    weights: Path


@pytest.fixture(scope="session")
def detector(chain):
    run = load_run(chain.folder)
    return Judge(run, backbone_of(run, str(chain.weights), "cpu"), chain.weights)


@pytest.fixture(scope="session")
def stairs(tmp_path_factory):
    return _write_stairs(tmp_path_factory.mktemp("videos") / HOSTILE)


@pytest.fixture(scope="session")
def examined_stairs(detector, stairs, in_process):
    ((_, examined),) = predict_unordered(
        detector.run, [stairs], detector.backbone, in_process, keep_frames=True
    )
    return examined


@pytest.fixture(scope="session")
def case_page(detector, stairs, examined_stairs, tmp_path_factory):
    """The page of `stairs`; it must stay as it is."""
    page = page_of(tmp_path_factory.mktemp("cases") / "out", stairs)
    write_video_report(detector.run, examined_stairs, page, detector.backbone)
    before = hashlib.sha256(page.read_bytes()).digest()
    yield page
    assert hashlib.sha256(page.read_bytes()).digest() == before


@pytest.fixture(scope="session")
def calls_all_fake(fitted, tmp_path_factory):
    """A run that calls nearly everything fake, and its evaluation."""
    folder = shutil.copytree(fitted.folder, tmp_path_factory.mktemp("mistaken") / "run")
    run = load_run(folder)
    save_run(dataclasses.replace(run, config=dataclasses.replace(run.config, threshold=1e-6)))
    run = load_run(folder)
    return run, evaluate(run, controls=False, device="cpu")
