"""Finding faces is paid for out of the time that decoding takes."""

from typing import Any

import numpy as np
import pytest

from pipeline.decode import sampled
from pipeline.faces import FaceCrop, Search
from pipeline.faces.search import AHEAD, SHARE
from pipeline.scaling import Geometry

EVERY = 10


class Counting:
    """A detector that finds what it is told to, where it is told to, and counts its pixels."""

    smallest, zooms = 160, (1, 2)

    def __init__(self, price):
        self.price, self.searched, self.sizes = price, 0.0, []
        self.finds: Any = lambda picture: []

    def cost(self, width, height):
        return self.price * width * height

    def __call__(self, picture):
        self.searched += self.cost(picture.shape[1], picture.shape[0])
        self.sizes.append(picture.shape[:2])
        return np.array(self.finds(picture), float).reshape(-1, 5)


@pytest.fixture
def searched(tmp_path, write_video, monkeypatch):
    """Search 400 frames of 320x240, as one window or several; the detector, and what was found."""
    plain = np.zeros((400, 240, 320, 3), np.uint8)
    plain[:, 60:120, 100:160] = 255  # "a face": what is bright
    path = write_video(tmp_path / "video.mp4", plain, 25)

    def search_all(detector, windows=1):
        monkeypatch.setattr("pipeline.faces.search.detector_of", lambda *_: detector)
        looks: list = []
        decoded = 0
        with sampled(path, 25) as (upright, frames):
            search = Search(upright, Geometry(), FaceCrop(), b"")
            for n, (time, frame) in enumerate(frames):
                if n % (400 // windows) == 0:
                    search.start(EVERY)
                search.see(time, frame)
                decoded += upright.width * upright.height
                if n % (400 // windows) == 400 // windows - 1:
                    looks.append(search.looks)
        return looks, decoded

    return search_all


def bright(picture):
    ys, xs = np.nonzero(picture[..., 0] > 128)
    if not len(xs):
        return []
    return [[xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1, 0.9]]


@pytest.mark.parametrize("price", [1, 30, 100])
def test_where_nobody_is_found_it_takes_a_share_and_a_few_looks(searched, price):
    detector = Counting(price)
    (looks,), decoded = searched(detector)
    whole = detector.cost(160, 120) + detector.cost(320, 240)
    assert detector.searched <= SHARE * decoded + (AHEAD + 1) * whole
    assert len(looks) == 40 if price == 1 else 3 <= len(looks) < 40
    np.testing.assert_allclose([look.time for look in looks[:3]], [0, 0.4, 0.8], atol=1e-3)


def test_a_known_face_is_looked_for_at_every_moment(searched):
    detector = Counting(15)
    detector.finds = bright
    (looks,), decoded = searched(detector)
    assert detector.searched <= SHARE * decoded + detector.cost(160, 120)
    assert len(looks) == 40 and all(len(look.faces) == 1 for look in looks)
    assert any(look.whole for look in looks[1:]) and not all(look.whole for look in looks)
    for look in looks:  # the place is right, wherever it was looked at
        np.testing.assert_allclose(look.faces[0, :4], [100, 60, 60, 60], atol=4)


def test_a_face_that_only_the_larger_picture_shows_is_then_looked_for_there(searched):
    detector = Counting(1)
    detector.finds = lambda picture: bright(picture) if picture.shape[1] > 160 else []
    searched(detector)
    assert detector.sizes[:3] == [(120, 160), (240, 320), (240, 320)]


def test_a_lost_face_is_looked_for_everywhere(searched):
    detector = Counting(60)
    detector.finds = lambda picture: bright(picture) if len(detector.sizes) == 1 else []
    (looks,), _ = searched(detector)
    assert len(looks[0].faces) == 1
    assert not len(looks[1].faces) and looks[1].whole
    assert detector.sizes[2:4] == [(120, 160), (240, 320)]


def test_each_window_is_looked_at_however_little_is_left(searched):
    looks, _ = searched(Counting(1000), windows=8)
    assert [len(some) >= 1 for some in looks] == [True] * 8
    assert sum(map(len, looks)) < 15


def test_looks_do_not_depend_on_the_clock(searched):
    first, second = Counting(30), Counting(30)
    searched(first), searched(second)
    assert first.sizes == second.sizes and first.sizes
