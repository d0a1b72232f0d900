"""Five points of one face, followed through a clip without the jitter of a detector.

YuNet finds them a few times a second, optical flow carries them from frame to frame, and what the
two disagree about changes slowly. So neither the noise of single detections nor the drift of long
tracks is in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.common.errors import Rejected
from pipeline.faces import FaceCrop
from pipeline.faces.detection import yunet
from pipeline.faces.following import Look, choose
from pipeline.video.resize import shrunk

Frames = Sequence[npt.NDArray[np.uint8]]  # (H, W, 3), RGB
Floats = npt.NDArray[np.float64]
Points = npt.NDArray[np.complexfloating[Any, Any]]  # x + iy: a similarity is a product and a sum

LOOKS_PER_SECOND = 6.0
SEARCHED_SIDE = 400  # pixels, the longer side of a frame that is searched
MIN_EYE_DISTANCE = 12.0  # pixels; a smaller face has no motion of its own
MAX_GAP = 0.6  # seconds without a detection, after which the face counts as gone
RAMP = 0.2  # seconds in which a face that comes or goes is blended in or out
SMOOTHING = 0.35  # seconds, sigma of what detections add to the tracks
MAX_JUMP = 0.15  # of the eyes' distance; a detection further off is dropped
# Optical flow:
TRACKED_EYE_DISTANCE = 36.0  # pixels to which faces are shrunk
SQUARE = np.add.outer(1j * np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
GRID = SQUARE[np.abs(SQUARE) < 1]  # of points that are tracked
GRID_SIZE = (0.9, 1.1)  # half-axes of the grid, of the eyes' distance
REACH = 1.9  # half the side of the tracked part, of the eyes' distance
MIN_TRACKED = 0.5  # share of the grid; below it, the picture was cut
MAX_STEP = 0.6  # of the eyes' distance from frame to frame
MAX_RESIDUE = 0.06  # of the eyes' distance, of a point that is tracked well


@dataclass(frozen=True)
class Face:
    """Five points of a face in T frames: eyes, nose, corners of the mouth, from the left."""

    points: Floats  # (T, 5, 2), px
    presence: Floats  # (T,), 0 where there is no face .. 1
    shots: npt.NDArray[np.int64]  # (T,), rises where the picture is cut

    @property
    def eye_distance(self) -> float:
        """Return the median distance between the eyes, px."""
        apart = np.linalg.norm(self.points[:, 0] - self.points[:, 1], axis=1)
        return float(np.median(apart[self.presence > 0]))


def follow_face(frames: Frames, rate: float, model: bytes) -> Face:
    """Follow the most prominent face.

    Args:
        frames: a clip, each (H, W, 3) uint8, RGB.
        rate: frames/s.
        model: YuNet's file.

    Raises:
        Rejected: ``no face``, ``face leaves`` or ``face too small``.
    """
    at, found = _detections(frames, rate, model)  # (M,), (M, 5) complex
    gaps = np.diff(at)
    near = np.abs(at[:, None] - np.arange(len(frames))).min(axis=0)
    present = near <= MAX_GAP * rate / 2 + 1
    for before, gap in zip(at, gaps, strict=False):
        if gap <= MAX_GAP * rate:
            present[before : before + gap] = True
    rough = _interpolated(at, found, len(frames))  # (T, 5)
    if np.median(np.abs(rough[:, 1] - rough[:, 0])) < MIN_EYE_DISTANCE:
        raise Rejected("face too small", f"its eyes are less than {MIN_EYE_DISTANCE:g} px apart")
    factors, shifts, shots = _tracks(frames, rough, present)
    points = rough.copy()
    for shot in np.unique(shots):
        inside = np.flatnonzero(shots == shot)
        looks = np.flatnonzero((at >= inside[0]) & (at <= inside[-1]))
        if not len(looks):
            present[inside] = False
            continue
        local: Points = (found[looks] - shifts[at[looks], None]) / factors[at[looks], None]
        local = _smoothed(at[looks] / rate, local, inside / rate)
        points[inside] = local * factors[inside, None] + shifts[inside, None]
    if not present.any():
        raise Rejected("face leaves", "it cannot be followed")
    pairs = np.stack([points.real, points.imag], axis=2)
    return Face(pairs, _ramps(present, RAMP * rate), shots)


def _detections(frames: Frames, rate: float, model: bytes) -> tuple[npt.NDArray[np.int64], Points]:
    """Return in which frames one face was found, and its points."""
    detect = yunet(model)
    height, width = frames[0].shape[:2]
    size = shrunk(width, height, SEARCHED_SIDE)
    enlargement = np.divide((width, height), size)
    looks, tables = [], []
    for n in range(0, len(frames), max(1, round(rate / LOOKS_PER_SECOND))):
        small = cv2.resize(frames[n], size, interpolation=cv2.INTER_AREA)
        table = detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))  # type: ignore[arg-type]
        table[:, :14] *= np.tile(enlargement, 7)
        looks.append(Look(float(n), table[:, [0, 1, 2, 3, 14]]))
        tables.append(table)
    track = choose(looks, FaceCrop())
    at, found = [], []
    for look, table, row in zip(looks, tables, track.table, strict=True):
        if row[5] > 0:
            nearest = int(np.abs(table[:, :4] - row[1:5]).sum(axis=1).argmin())
            at.append(round(look.time))
            found.append(table[nearest, 4:14:2] + 1j * table[nearest, 5:14:2])
    return np.array(at), np.array(found)


def _interpolated(at: npt.NDArray[np.int64], found: Points, n: int) -> Points:
    t = np.arange(n)
    return np.stack(
        [np.interp(t, at, c.real) + 1j * np.interp(t, at, c.imag) for c in found.T], axis=1
    )


def _tracks(
    frames: Frames, rough: Points, present: npt.NDArray[np.bool_]
) -> tuple[Points, Points, npt.NDArray[np.int64]]:
    """Return similarities from the start of each shot to each frame, (T,), and the shots."""
    factors, shifts = np.ones(len(frames), complex), np.zeros(len(frames), complex)
    shots = np.zeros(len(frames), np.int64)
    for t in range(1, len(frames)):
        shots[t] = shots[t - 1]
        step = None
        if present[t] and present[t - 1]:
            step = _step(frames[t - 1], frames[t], rough[t - 1])
        if step is None:
            shots[t] += 1
            continue
        factor, shift = step
        factors[t] = factor * factors[t - 1]
        shifts[t] = factor * shifts[t - 1] + shift
    return factors, shifts, shots


def _step(
    before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], rough: Points
) -> tuple[complex, complex] | None:
    """Return the similarity of a face from one frame to the next, or None if it jumps."""
    middle, eyes = rough.mean(), max(abs(rough[1] - rough[0]), 1.0)
    side = REACH * eyes
    height, width = before.shape[:2]
    x0, x1 = (int(np.clip(middle.real + s * side, 0, width)) for s in (-1, 1))
    y0, y1 = (int(np.clip(middle.imag + s * side, 0, height)) for s in (-1, 1))
    if x1 - x0 < eyes or y1 - y0 < eyes:
        return None
    scale = min(1.0, TRACKED_EYE_DISTANCE / eyes)
    one, two = (_grey(frame[y0:y1, x0:x1], scale) for frame in (before, after))
    corner = complex(x0, y0)
    start = middle + eyes * (GRID.real * GRID_SIZE[0] + 1j * GRID.imag * GRID_SIZE[1])
    shrink = complex(one.shape[1] / (x1 - x0)).real
    given = _pairs((start - corner) * shrink)
    tracked, status, _ = cv2.calcOpticalFlowPyrLK(
        one, two, given, None, winSize=(15, 15), maxLevel=3
    )  # type: ignore[call-overload]
    ok = status[:, 0] > 0
    end = (tracked[:, 0] + 1j * tracked[:, 1]) / shrink + corner
    if ok.mean() < MIN_TRACKED:
        return None
    factor, shift, residues = _similarity(start[ok], end[ok])
    moved = abs(factor * middle + shift - middle)
    good = (residues < MAX_RESIDUE * eyes).sum() / len(GRID)
    if good < MIN_TRACKED or moved > MAX_STEP * eyes or not 0.8 < abs(factor) < 1.25:
        return None
    return factor, shift


def _grey(part: npt.NDArray[np.uint8], scale: float) -> Any:
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    if scale == 1:
        return grey
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _pairs(points: Points) -> npt.NDArray[np.float32]:
    return np.stack([points.real, points.imag], axis=1).astype(np.float32)


def _similarity(start: Points, end: Points) -> tuple[complex, complex, Floats]:
    """Fit ``end = factor * start + shift`` robustly, by reweighted least squares; also residues."""
    weights = np.ones(len(start))
    for _ in range(5):
        z, w = (np.average(p, weights=weights) for p in (start, end))
        spread = (weights * np.abs(start - z) ** 2).sum()
        factor = (weights * np.conj(start - z) * (end - w)).sum() / max(spread, 1e-9)
        shift = w - factor * z
        residues = np.abs(factor * start + shift - end)
        weights = 1 / (1 + (residues / (1.5 * np.median(residues) + 0.02)) ** 2)
    return complex(factor), complex(shift), residues


def _smoothed(at: Floats, local: Points, times: Floats) -> Points:
    """Smooth detections in the coordinates of a shot's start, (M, 5), over seconds; (n, 5)."""
    eyes = np.median(np.abs(local[:, 1] - local[:, 0]))
    weights = np.exp(-0.5 * ((times[:, None] - at) / SMOOTHING) ** 2) + 1e-9  # (n, M)
    nearby = np.abs(at[:, None] - at) <= 2 * SMOOTHING
    middle = np.array(
        [np.median(local[n].real, axis=0) + 1j * np.median(local[n].imag, axis=0) for n in nearby]
    )
    jumps = np.abs(local - middle).max(axis=1) > MAX_JUMP * eyes
    weights[:, jumps] *= 1e-6
    return (weights / weights.sum(axis=1, keepdims=True)) @ local


def _ramps(present: npt.NDArray[np.bool_], length: float) -> Floats:
    """Return how far a face is blended in, (T,), rising over ``length`` frames from each gap."""
    gaps = np.flatnonzero(~present)
    if not len(gaps):
        return np.ones(len(present))
    distance = np.abs(np.arange(len(present))[:, None] - gaps).min(axis=1)
    return np.clip(distance / max(length, 1), 0, 1)
