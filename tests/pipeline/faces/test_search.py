"""Finding faces is paid for out of the time that decoding takes."""

from itertools import islice
from typing import Any

import numpy as np
import pytest

from pipeline.decode import open_video, sampled, video_stream
from pipeline.faces import FaceCrop, Search, costs
from pipeline.faces.detection import View
from pipeline.faces.search import OWED, SHARE
from pipeline.scaling import Geometry

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
            return looks, SHARE * (n_frames + OWED) * costs.decoding(upright.stream)

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


def test_what_decoding_costs_goes_by_the_codec(tmp_path, write_video, moving_texture):
    frames = moving_texture(12, 96, 64)
    cost = {}
    for name, codec in (("a.mp4", "libx264"), ("b.avi", "mpeg4"), ("c.avi", "rawvideo")):
        path = write_video(tmp_path / name, frames, 25, codec=codec)
        with open_video(path) as container:
            cost[codec] = costs.decoding(video_stream(container)) / (96 * 64)
    assert cost["libx264"] == 1 > cost["mpeg4"] > cost["rawvideo"] > 0


def test_a_gif_costs_more_the_more_bytes_it_has(tmp_path, write_video, moving_texture):
    cost = {}
    for name, frames in (
        ("plain", np.zeros((6, 64, 96, 3), np.uint8)),
        ("busy", moving_texture(6, 96, 64)),
    ):
        path = write_video(tmp_path / f"{name}.gif", frames, 10, codec="gif", pix_fmt="rgb8")
        with open_video(path) as container:
            cost[name] = costs.decoding(video_stream(container)) / (96 * 64)
    assert 1 < cost["plain"] < cost["busy"]
