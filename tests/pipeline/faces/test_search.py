"""Finding faces is paid for out of the time that decoding takes."""

import contextlib
import os
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.common.errors import Rejected
from pipeline.extraction.clips import frames_between_looks
from pipeline.faces import FaceCrop, Search, costs, find_model, models
from pipeline.faces.detection import View, detector_of
from pipeline.faces.search import SHARE
from pipeline.video.decode import open_video, sampled, video_stream
from pipeline.video.probe import probe
from pipeline.video.resize import Geometry

EVERY = 10
N_FRAMES = 400


class Counting:
    """A detector that finds what it is told to, where it is told to, and counts its pixels."""

    step = 1

    def __init__(self, price):
        self.price, self.searched, self.sizes = price, 0.0, []
        self.finds: Any = lambda picture: []

    def views(self, longest):
        return View(longest / 2), View(longest)

    def cost(self, width, height):
        return self.price * width * height

    def __call__(self, picture):
        self.searched += self.cost(picture.shape[1], picture.shape[0])
        self.searched += costs.SCALING * 320 * 240
        self.sizes.append(picture.shape[:2])
        return np.array(self.finds(picture), float).reshape(-1, 5)


@pytest.fixture
def searched(tmp_path, write_video, monkeypatch):
    """Search frames of 320x240, as one window or several; what was found, and what may be spent."""
    plain = np.zeros((N_FRAMES, 240, 320, 3), np.uint8)
    plain[:, 60:120, 100:160] = 255  # "a face": what is bright
    path = write_video(tmp_path / "video.mp4", plain, 25)

    def search_all(detector, windows=1, n_frames=N_FRAMES):
        monkeypatch.setattr("pipeline.faces.search.detector_of", lambda *_: detector)
        looks: list = []
        length = n_frames // windows
        with sampled(path, 25) as (upright, frames):
            search = Search(upright, Geometry(), FaceCrop(), b"")
            for n, (time, frame) in enumerate(islice(frames, n_frames)):
                if n % length == 0:
                    search.start(EVERY, length)
                search.see(time, frame)
                if n % length == length - 1:
                    looks.append(search.looks)
            return looks, SHARE * n_frames * costs.decoding(upright.stream)

    return search_all


def bright(picture):
    ys, xs = np.nonzero(picture[..., 0] > 128)
    if not len(xs):
        return []
    return [[xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1, 0.9]]


@pytest.mark.parametrize("n_frames", [25, 60, 400])
@pytest.mark.parametrize("price", [1, 3, 10, 30])
@pytest.mark.parametrize("finds", [lambda picture: [], bright])
def test_it_takes_no_more_than_its_share_of_decoding(searched, finds, price, n_frames):
    detector = Counting(price)
    detector.finds = finds
    (looks,), most = searched(detector, n_frames=n_frames)
    first_look = detector.cost(160, 120) + costs.SCALING * 320 * 240
    assert detector.searched <= max(most, first_look)
    assert len(looks) >= 1 and detector.sizes[0] == (120, 160)


def test_a_known_face_is_looked_for_at_every_moment(searched):
    detector = Counting(7)
    detector.finds = bright
    (looks,), _ = searched(detector)
    assert len(looks) == 40 and all(len(look.faces) == 1 for look in looks)
    assert any(look.whole for look in looks[1:]) and not all(look.whole for look in looks)
    for look in looks:  # the place is right, wherever it was looked at
        np.testing.assert_allclose(look.faces[0, :4], [100, 60, 60, 60], atol=4)


def test_a_face_that_only_the_larger_picture_shows_is_then_looked_for_there(searched):
    detector = Counting(1)
    detector.finds = lambda picture: bright(picture) if picture.shape[1] > 160 else []
    searched(detector)
    assert detector.sizes[:3] == [(120, 160), (240, 320), (240, 320)]


def test_a_lost_face_is_looked_for_everywhere_in_all_sizes(searched):
    detector = Counting(10)
    detector.finds = lambda picture: bright(picture) if len(detector.sizes) == 1 else []
    (looks,), _ = searched(detector)
    assert len(looks[0].faces) == 1 and not any(len(look.faces) for look in looks[1:])
    assert {(120, 160), (240, 320)} <= set(detector.sizes[1:])


def test_each_window_is_looked_at_however_little_is_left(searched):
    looks, _ = searched(Counting(1000), windows=8)
    assert [len(some) for some in looks] == [1] * 8


def test_looks_do_not_depend_on_the_clock(searched):
    first, second = Counting(30), Counting(30)
    searched(first), searched(second)
    assert first.sizes == second.sizes and first.sizes


def cost_of(path):
    with open_video(path) as container:
        return costs.decoding(video_stream(container)) / (96 * 64)


def test_what_decoding_costs_goes_by_the_codec(tmp_path, write_video, moving_texture):
    frames = moving_texture(12, 96, 64)
    h264, mpeg4, raw = (
        cost_of(write_video(tmp_path / f"{codec}.avi", frames, 25, codec=codec))
        for codec in ("libx264", "mpeg4", "rawvideo")
    )
    assert h264 > 1 > mpeg4 > raw > 0


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [("mp4", {}), ("mkv", {}), ("gif", {"codec": "gif", "pix_fmt": "rgb8"})],
)
def test_what_decoding_costs_goes_by_the_bytes(
    tmp_path, write_video, moving_texture, kind, encoding
):
    plain = write_video(
        tmp_path / f"plain.{kind}", np.zeros((6, 64, 96, 3), np.uint8), 10, **encoding
    )
    busy = write_video(tmp_path / f"busy.{kind}", moving_texture(6, 96, 64), 10, **encoding)
    pixel, byte = costs.DECODING["gif" if kind == "gif" else "h264"]
    assert pixel < cost_of(plain) < cost_of(busy)
    most = pixel + byte * busy.stat().st_size / 6 / (96 * 64)
    assert 0.5 * most < cost_of(busy) <= 1.01 * most


def test_bytes_that_may_be_sound_do_not_count(tmp_path, write_video, moving_texture):
    frames = moving_texture(25, 96, 64)
    silent = write_video(tmp_path / "silent.mkv", frames, 25)
    loud = tmp_path / "loud.mkv"
    with av.open(str(silent)) as source, av.open(str(loud), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        target.add_stream("pcm_s16le", rate=8000)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
    assert cost_of(silent) > cost_of(loud) == 1


@pytest.mark.parametrize(("detector", "n_found"), [("yunet", 12), ("haar", 11)])
def test_a_fifth_is_enough_for_the_faces_in_real_clips(
    sample_videos, detector, n_found, monkeypatch
):
    folder = os.environ.get("SAMPLE_MODELS")
    if detector == "yunet" and not folder:
        pytest.skip("needs YuNet's file: set SAMPLE_MODELS to the folder that holds it")
    model = find_model(detector if detector == "haar" else str(Path(folder) / models.NAME))
    crop = FaceCrop(detector=model.detector, detector_sha256=model.sha256)
    searched = 0.0

    class Counted(type(detector_of(crop, model.content))):
        def __call__(self, picture):
            nonlocal searched
            searched += self.cost(picture.shape[1], picture.shape[0])
            searched += costs.SCALING * upright.width * upright.height
            return super().__call__(picture)

    counted = Counted(model.content)
    monkeypatch.setattr("pipeline.faces.search.detector_of", lambda *_: counted)
    found = []
    for path in sorted((sample_videos / "people").iterdir()):
        video, searched = probe(path), 0.0
        with sampled(path, video.fps) as (upright, frames):
            search = Search(upright, Geometry(), crop, model.content)
            search.start(frames_between_looks(video.fps), video.n_samples)
            for time, frame in frames:
                search.see(time, frame)
            assert 0 < searched <= SHARE * video.n_samples * costs.decoding(upright.stream), path
        with contextlib.suppress(Rejected):
            search.choose()
            found.append(path.name)
    assert len(found) == n_found
