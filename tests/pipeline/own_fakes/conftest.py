"""Clips of stylised heads with hand-made landmarks: no detector is needed."""

import numpy as np
import pytest

from data.heads import render
from data.looks import cast_actor
from pipeline.own_fakes.clip import face_clip
from pipeline.own_fakes.landmarks import Face

N = 24  # frames
SIZE = (160, 120)
# Eyes, nose and corners of the mouth in shares of the box about the face:
LAYOUT = np.array([[0.3, 0.32], [0.7, 0.32], [0.5, 0.55], [0.36, 0.75], [0.64, 0.75]])


def head(actor, seed=0, n=N, size=SIZE):
    """The frames of a head, and its face."""
    frames, boxes = render(cast_actor(actor), n_frames=n, size=size, seed=seed)
    points = boxes[:, None, :2] + LAYOUT * boxes[:, None, 2:]
    return list(frames), Face(points, np.ones(n), np.zeros(n, np.int64))


def clip_of(actor, seed=0):
    frames, face = head(actor, seed)
    return face_clip(frames, 25.0, face)


@pytest.fixture(scope="session")
def clip():
    return clip_of(1)


@pytest.fixture(scope="session")
def donor():
    return clip_of(2, seed=5)


@pytest.fixture(scope="session", name="head")
def _head():
    return head
