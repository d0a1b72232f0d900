"""Five points followed through a clip: true to the motion, without a detector's jitter."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.common.errors import Rejected
from pipeline.faces import models
from pipeline.own_fakes import landmarks
from pipeline.own_fakes.clip import face_clip
from pipeline.own_fakes.landmarks import follow_face
from pipeline.video.decode import sampled

N, RATE = 60, 25.0
EYES = 40.0  # px apart
FACE = EYES * np.array([[-0.5, -0.5], [0.5, -0.5], [0, 0.1], [-0.4, 0.6], [0.4, 0.6]])
NOISE = 1.0  # px, standard deviation of the made-up detections


@pytest.fixture
def moving(moving_texture):
    """Frames of a texture that wanders over a still one, and where its five points are."""
    face = moving_texture(1, 200, 200, seed=1)[0]
    still = moving_texture(1, 320, 240, seed=2)[0]
    t = np.arange(N) / N
    angle = 0.15 * np.sin(7 * t)
    scale = 1 + 0.1 * np.sin(4 * t)
    middle = np.stack([160 + 30 * np.sin(9 * t), 120 + 15 * np.cos(8 * t)], axis=1)
    frames, points = [], []
    for a, s, m in zip(angle, scale, middle, strict=True):
        turn = s * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        move = np.column_stack([turn, m - turn @ [100, 100]])
        inside = cv2.warpAffine(np.full((200, 200), 255, np.uint8), move, (320, 240))
        frame = cv2.warpAffine(face, move, (320, 240))
        frames.append(np.where(inside[..., None] > 128, frame, still))
        points.append(FACE @ turn.T + m)
    return frames, np.stack(points)


def detected(monkeypatch, points, every=4, seen=lambda t: True):
    """Let the detector find these points, with noise, in some frames."""
    rng = np.random.default_rng(0)
    at = np.array([t for t in range(0, len(points), every) if seen(t)])
    found = points[at] + rng.normal(0, NOISE, (len(at), 5, 2))
    found = found[..., 0] + 1j * found[..., 1]
    monkeypatch.setattr(landmarks, "_detections", lambda *args: (at, found))


def test_points_follow_the_motion_and_detections_only_its_slow_part(moving, monkeypatch):
    frames, points = moving
    detected(monkeypatch, points)
    face = follow_face(frames, RATE, b"")
    assert face.presence.min() == 1 and face.shots.max() == 0
    error = face.points - points
    assert error.std() < 0.7 * NOISE  # averaged over several detections
    # Steps of the error, px/frame: those of a detector have sqrt(2) of its noise.
    assert np.diff(error, axis=0).std() < 0.12 * NOISE
    assert face.eye_distance == pytest.approx(EYES, rel=0.1)


def test_a_detection_that_jumps_is_dropped(moving, monkeypatch):
    frames, points = moving
    jumping = points.copy()
    jumping[28] += 15
    detected(monkeypatch, jumping)
    face = follow_face(frames, RATE, b"")
    assert np.abs(face.points - points)[24:33].max() < 3


def test_a_face_is_gone_where_it_is_not_found_for_long(moving, monkeypatch):
    frames, points = moving
    detected(monkeypatch, points, seen=lambda t: not 12 < t < 40)
    presence = follow_face(frames, RATE, b"").presence
    assert not presence[22:30].any()
    assert presence[0] == presence[-1] == 1
    assert np.abs(np.diff(presence)).max() < 0.3  # it comes and goes gently


def test_a_cut_begins_another_shot(moving, monkeypatch):
    frames, points = moving
    frames = [*frames[:30], *(np.ascontiguousarray(frame[::-1]) for frame in frames[30:])]
    detected(monkeypatch, points)
    shots = follow_face(frames, RATE, b"").shots
    assert shots[29] != shots[30]
    assert len(set(shots[:30])) == 1


def test_a_small_face_is_rejected(moving, monkeypatch):
    frames, points = moving
    detected(monkeypatch, points / 5)
    with pytest.raises(Rejected, match="face too small"):
        follow_face(frames, RATE, b"")


def test_poses_take_the_mean_shape_to_the_points(moving, monkeypatch):
    frames, points = moving
    detected(monkeypatch, points)
    clip = face_clip(frames, RATE, follow_face(frames, RATE, b""))
    placed = np.einsum("tij,kj->tki", clip.poses, np.column_stack([clip.template, np.ones(5)]))
    assert np.abs(placed[..., :2] - points).max() < 2
    assert np.linalg.norm(clip.template[1] - clip.template[0]) == pytest.approx(1)


def test_real_faces_are_followed_more_steadily_than_they_are_found(sample_videos):
    folder = os.environ.get("SAMPLE_MODELS")
    if not folder:
        pytest.skip("needs YuNet's file: set SAMPLE_MODELS to the folder that holds it")
    model = (Path(folder) / models.YUNET_FILE_NAME).read_bytes()
    with sampled(sample_videos / "people" / "asl_book.mkv", 30.0) as (upright, decoded):
        scale = upright.scaler(upright.whole, 640, 480)
        frames = [scale(frame).copy() for _, frame in decoded][:40]
    face = follow_face(frames, 30.0, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landmarks, "LOOKS_PER_SECOND", 30.0)
        at, found = landmarks._detections(frames, 30.0, model)
    found = np.stack([found.real, found.imag], axis=2)
    assert len(at) == len(frames)

    def jitter(points):
        return np.abs(np.diff(points, 2, axis=0)).mean()

    assert jitter(face.points) < 0.4 * jitter(found)
    assert np.abs(face.points - found).mean() < 0.05 * face.eye_distance
