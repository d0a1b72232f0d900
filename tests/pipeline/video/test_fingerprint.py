"""The same footage is recognised when it was encoded again, and other footage is not."""

import itertools

import av
import cv2
import numpy as np
import pytest

from pipeline.video import fingerprint
from pipeline.video.fingerprint import MAX_THUMBNAILS, ThumbnailCollector, perceptual_hashes
from pipeline.video.probe import probe
from pipeline.video.resize import Geometry
from tests.pipeline.video.conftest import decode

GEOMETRY = Geometry(128, 128, None)


def thumbnails(frames, times):
    small = ThumbnailCollector()
    for start in range(0, len(frames), 5):  # they come piece by piece
        grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames[start : start + 5]]
        small.add(np.stack(grey), times[start : start + 5])
    return small.collected()


def same_footage(clips):
    return fingerprint.same_footage([perceptual_hashes(clip) for clip in clips], clips.__getitem__)


def thumbnails_of(path):
    rate = probe(path).fps
    times, _, whole = zip(*itertools.islice(decode(path, GEOMETRY, rate), 50), strict=True)
    small = ThumbnailCollector()
    small.add(np.stack(whole), np.array(times))
    return small.collected()


@pytest.fixture
def pan(moving_texture):
    """A clip of a wandering texture, and another one of the same length."""
    return [moving_texture(48, 128, 96, seed=seed) for seed in (0, 1)]


def test_thumbnails_are_of_times_not_of_frames(pan):
    frames = pan[0]
    slow = thumbnails(frames[::2], np.arange(24) / 15)
    fast = thumbnails(frames, np.arange(48) / 30)
    assert fast.shape == (MAX_THUMBNAILS, 32, 32)
    assert fast.dtype == np.uint8
    assert np.abs(slow.astype(int) - fast).max() <= 60  # half a frame apart at most
    assert thumbnails(frames[:8], np.arange(8) / 30).shape == (2, 32, 32)


def test_other_encodings_and_sizes_are_the_same_footage(pan, write_video, tmp_path):
    one, other = pan
    small = np.stack([cv2.resize(f, (64, 48), interpolation=cv2.INTER_AREA) for f in one])
    files = [
        write_video(tmp_path / "a.mp4", one),
        write_video(tmp_path / "b.mp4", one, options={"crf": "40"}),
        write_video(tmp_path / "c.avi", small, codec="mpeg4"),
        write_video(tmp_path / "d.mp4", one[::2]),
        write_video(tmp_path / "e.mp4", other),
    ]
    groups = same_footage([thumbnails_of(file) for file in files])
    assert groups[0] == groups[1] == groups[2]
    assert groups[4] != groups[0]
    assert groups[3] != groups[0]  # twice as fast: other motion


def test_a_face_put_into_the_same_footage_does_not_hide_it(pan):
    frames = pan[0].copy()
    times = np.arange(len(frames)) / 25
    swapped = frames.copy()
    for n, frame in enumerate(swapped):
        cv2.ellipse(frame, (64 + n % 3, 48), (14, 18), 0, 0, 360, (200, 160, 140), -1)
    groups = same_footage([thumbnails(frames, times), thumbnails(swapped, times)])
    assert groups[0] == groups[1]


def test_nothing_moving_is_decided_by_the_picture_alone(pan):
    times = np.arange(30) / 25
    still = np.repeat(pan[0][:1], 30, axis=0)
    again = np.clip(still.astype(int) + 3, 0, 255).astype(np.uint8)
    other = np.repeat(pan[1][:1], 30, axis=0)
    groups = same_footage([thumbnails(f, times) for f in (still, again, other)])
    assert groups[0] == groups[1] != groups[2]


def test_clips_of_other_lengths_are_compared_as_far_as_both_go(pan):
    times = np.arange(48) / 25
    short = thumbnails(pan[0][:24], times[:24])
    groups = same_footage([thumbnails(pan[0], times), short, thumbnails(pan[1], times)])
    assert groups[0] == groups[1] != groups[2]
    assert same_footage([]).tolist() == []


def test_takes_of_one_person_in_one_room_are_not_the_same_footage(
    sample_videos, write_video, tmp_path
):
    originals = sorted((sample_videos / "people").glob("asl_*.mkv"))
    copies = []
    for path in originals[::4]:  # at half the size, and worse
        with av.open(str(path)) as source:
            fifty = itertools.islice(source.decode(video=0), 50)
            frames = [f.reformat(320, 240, "rgb24").to_ndarray() for f in fifty]
        to = tmp_path / f"{path.stem}.mp4"
        copies.append(write_video(to, np.stack(frames), 30, options={"crf": "35"}))
    groups = same_footage([thumbnails_of(path) for path in (*originals, *copies)])
    assert len(originals) == 10
    assert groups[:10:4].tolist() == groups[10:].tolist()
    assert len(set(groups.tolist())) == 10
