"""A clip in which a face is to be changed, and the coordinates of its head.

Head coordinates have their origin amid the five points and the distance of the eyes for a unit; x
points from the left eye to the right one, y down. A pose is an affine map from them to pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.own_fakes.landmarks import Face

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Picture = npt.NDArray[np.uint8]  # (H, W, 3), RGB

REACH = 2.5  # head coordinates that a mask or a field covers: -2.5..2.5
NOSE_WEIGHT = 0.3  # in the fit of poses: it stands out of the plane of the others


@dataclass(frozen=True)
class Clip:
    """A clip with the poses of what is to be changed in it."""

    frames: Sequence[Picture]  # T
    rate: float  # frames/s
    poses: Floats  # (T, 3, 3), head coordinates → pixels
    presence: Floats  # (T,), 0..1
    shots: Ints  # (T,), rises where the picture is cut
    template: Floats  # (5, 2), mean place of the five points in head coordinates

    def __len__(self) -> int:
        return len(self.frames)

    def within_shot(self, times: Any) -> Any:
        """Clip times of other frames, (T,), in frames, to the shot of each frame."""
        first = np.searchsorted(self.shots, self.shots, "left")
        last = np.searchsorted(self.shots, self.shots, "right") - 1
        return np.clip(times, first, last)


def face_clip(frames: Sequence[Picture], rate: float, face: Face) -> Clip:
    """Return the clip about a face."""
    points = face.points[..., 0] + 1j * face.points[..., 1]  # (T, 5)
    shape = _mean_shape(points[face.presence > 0])
    template = np.stack([shape.real, shape.imag], axis=1)
    weights = np.array([1, 1, NOSE_WEIGHT, 1, 1])[:, None]
    known = np.column_stack([template, np.ones(5)])  # (5, 3)
    fit = np.linalg.pinv(known * weights)  # (3, 5)
    poses = np.tile(np.eye(3), (len(frames), 1, 1))
    poses[:, :2] = np.swapaxes(fit @ (face.points * weights), 1, 2)
    return Clip(frames, rate, poses, face.presence, face.shots, template)


def whole_clip(frames: Sequence[Picture], rate: float) -> Clip:
    """Return the clip about the whole picture, which takes the place of a head."""
    height, width = frames[0].shape[:2]
    pose = np.array(
        [[width / (2 * REACH), 0, width / 2], [0, height / (2 * REACH), height / 2], [0, 0, 1]]
    )
    n = len(frames)
    poses = np.tile(pose, (n, 1, 1))
    return Clip(frames, rate, poses, np.ones(n), np.zeros(n, np.int64), np.zeros((5, 2)))


def _mean_shape(points: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    """Return the mean of shapes, (n, 5), moved, turned and scaled onto one another; (5,)."""
    points = points - points.mean(axis=1, keepdims=True)
    shape = points[len(points) // 2]
    for _ in range(3):
        turns = (points.conj() * shape).sum(axis=1) / (np.abs(points) ** 2).sum(axis=1)
        shape = (points * turns[:, None]).mean(axis=0)
        shape = shape / (shape[1] - shape[0])
    return shape
