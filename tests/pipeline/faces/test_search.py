"""All of a frame is searched for faces, at equal distances, and what may be needed is kept."""

import contextlib
import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.common.errors import Rejected
from pipeline.faces import FaceCrop, Search, find_model, frames_between_looks, models
from pipeline.video.decode import sampled
from pipeline.video.probe import probe
from pipeline.video.resize import Geometry

EVERY, N_FRAMES = 10, 35


def bright(picture):
    """Find "a face": what is bright."""
    ys, xs = np.nonzero(picture[..., 0] > 128)
    if not len(xs):
        return np.zeros((0, 5))
    return np.array([[xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1, 0.9]])


@pytest.fixture
def search(tmp_path, write_video, monkeypatch):
    """Search frames of 640x360 with a bright square in those that are given."""

    def search(with_face):
        frames = np.zeros((N_FRAMES, 360, 640, 3), np.uint8)
        frames[with_face, 60:180, 200:320] = 255
        path = write_video(tmp_path / "video.mp4", frames, 25)
        sizes, parts = [], []

        def detect(picture):
            sizes.append(picture.shape)
            return bright(picture)

        monkeypatch.setattr("pipeline.faces.search.detector_of", lambda *_: detect)
        with sampled(path, 25) as (upright, decoded):
            search = Search(upright, Geometry(), FaceCrop(), b"", EVERY)
            for time, frame in decoded:
                search.see(time, frame)
                parts.append(search.part)
        return search, sizes, parts

    return search


def test_all_of_the_picture_is_searched_at_equal_distances_from_the_first_frame_on(search):
    searched, sizes, _ = search(slice(None))
    assert sizes == [(270, 480, 3)] * 4
    assert [look.time for look in searched.looks] == pytest.approx([0, 0.4, 0.8, 1.2])
    for look in searched.looks:
        np.testing.assert_allclose(look.faces[0, :4], [200, 60, 120, 120], atol=4)


def test_only_the_surroundings_of_the_first_face_are_kept(search):
    searched, _, parts = search(slice(20, None))
    whole = (0, 0, 640, 360)
    assert parts[:20] == [whole] * 20
    (kept,) = set(parts[20:])
    x, y, width, height = searched.choose()[0]
    assert kept != whole and width < 250
    assert kept[0] <= x and x + width <= kept[0] + kept[2]
    assert kept[1] <= y and y + height <= kept[1] + kept[3]


def test_faces_are_looked_for_twice_a_second_and_ten_frames_apart_at_least():
    assert [frames_between_looks(rate) for rate in (60, 25, 20, 10)] == [30, 12, 10, 10]


@pytest.mark.parametrize(("detector", "n_found"), [("yunet", 12), ("haar", 11)])
def test_real_faces_are_found(sample_videos, detector, n_found):
    folder = os.environ.get("SAMPLE_MODELS")
    if detector == "yunet" and not folder:
        pytest.skip("needs YuNet's file: set SAMPLE_MODELS to the folder that holds it")
    model = find_model(
        detector if detector == "haar" else str(Path(folder) / models.YUNET_FILE_NAME)
    )
    crop = FaceCrop(detector=model.detector, detector_sha256=model.sha256)
    found = []
    for path in sorted((sample_videos / "people").iterdir()):
        rate = probe(path).fps
        with sampled(path, rate) as (upright, frames):
            search = Search(upright, Geometry(), crop, model.content, frames_between_looks(rate))
            for time, frame in itertools.islice(frames, 15):  # two looks at most
                search.see(time, frame)
        with contextlib.suppress(Rejected):
            search.choose()
            found.append(path.name)
    assert len(found) == n_found
