"""Shapes and softness of what is replaced; that variety alone makes detectors carry further.

A mask is drawn once per clip, on a canvas in head coordinates, and follows the head's pose.
"""

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.own_fakes.clip import REACH

Rng = np.random.Generator
Canvas = npt.NDArray[np.float32]  # (SIDE, SIDE), 0..1
Polygon = npt.NDArray[np.float64]  # (N, 2), head coordinates
Region = Literal["face", "mouth", "whole"]

PIXELS_PER_UNIT = 40
SIDE = round(2 * REACH * PIXELS_PER_UNIT)
CIRCLE = np.exp(2j * np.pi * np.arange(48) / 48)
SHARES = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # of a self-blended image
SOFTNESS = (0.04, 0.2)  # sigma of a mask's edge, of the eyes' distance
FAINTEST = 0.04  # share; less is nothing, so that a mask ends where one sees it end
ELASTICITY = (0.0, 0.12)  # displacement of a mask's edge, of the eyes' distance
ELASTIC_SIGMA = 0.3  # of the eyes' distance, over which displacements are alike


def oval(points: Polygon, rng: Rng) -> Polygon:
    """Return an oval from the brows or the hairline to the chin."""
    across, above, below = rng.uniform(0.85, 1.15), rng.uniform(1.0, 1.5), rng.uniform(1.05, 1.35)
    y = np.where(CIRCLE.imag < 0, above, below) * CIRCLE.imag
    return np.stack([across * CIRCLE.real, y], axis=1)


def inner_face(points: Polygon, rng: Rng) -> Polygon:
    """Return the hull of brows, nose and mouth, with a margin."""
    margin = rng.uniform(0.25, 0.5)
    rims = [point + margin * np.stack([CIRCLE.real, CIRCLE.imag], axis=1) for point in points]
    return _hull(np.concatenate(rims))


def lower_face(points: Polygon, rng: Rng) -> Polygon:
    """Return the face below the eyes."""
    top = points[:2, 1].mean() + rng.uniform(0.1, 0.4)
    shape = oval(points, rng)
    return np.column_stack([shape[:, 0], np.maximum(shape[:, 1], top)])


def eyes_and_nose(points: Polygon, rng: Rng) -> Polygon:
    """Return the hull of brows and nose."""
    x, y = rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.45)
    rims = [point + np.stack([x * CIRCLE.real, y * CIRCLE.imag], axis=1) for point in points[:3]]
    return _hull(np.concatenate(rims))


def angular(points: Polygon, rng: Rng) -> Polygon:
    """Return a polygon of few corners about the face."""
    angles = np.sort(rng.uniform(-0.3, 0.3, 7) + 2 * np.pi * np.arange(7) / 7)
    size = rng.uniform(0.9, 1.25, 7)[:, None]
    return np.stack([np.cos(angles), 1.15 * np.sin(angles)], axis=1) * size


FACE_SHAPES: tuple[Callable[[Polygon, Rng], Polygon], ...] = (
    *(oval, oval, inner_face, lower_face, eyes_and_nose, angular),
)


def mouth(points: Polygon, rng: Rng) -> Polygon:
    """Return an oval about the mouth, down to the chin or not."""
    middle = points[3:].mean(axis=0)
    half = np.linalg.norm(points[4] - points[3]) / 2
    across = half + rng.uniform(0.12, 0.4)
    above, below = rng.uniform(0.25, 0.4), rng.uniform(0.35, 0.7)
    y = np.where(CIRCLE.imag < 0, above, below) * CIRCLE.imag
    return middle + np.stack([across * CIRCLE.real, y], axis=1)


def draw_mask(region: Region, points: Polygon, rng: Rng) -> Canvas:
    """Draw a mask.

    Args:
        region: what it covers.
        points: eyes, nose and corners of the mouth in head coordinates, (5, 2).
    """
    if region == "whole":
        return np.ones((SIDE, SIDE), np.float32)
    shape = mouth if region == "mouth" else FACE_SHAPES[rng.integers(len(FACE_SHAPES))]
    canvas = np.zeros((SIDE, SIDE), np.float32)
    corners = np.rint((shape(points, rng) + REACH) * PIXELS_PER_UNIT).astype(np.int32)
    cv2.fillPoly(canvas, [corners], 1.0)
    canvas = _elastic(canvas, rng)
    sigma = float(rng.uniform(*SOFTNESS)) * PIXELS_PER_UNIT
    canvas = cv2.GaussianBlur(canvas, (0, 0), sigma)  # type: ignore[assignment]
    canvas = np.maximum(0, canvas - FAINTEST) / np.float32(1 - FAINTEST)
    canvas[[0, -1]] = 0
    canvas[:, [0, -1]] = 0
    return canvas


def _elastic(canvas: Canvas, rng: Rng) -> Canvas:
    """Displace a mask smoothly (Simard et al., 2003, as in self-blended images)."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    amplitude = rng.uniform(*ELASTICITY) * PIXELS_PER_UNIT
    for axis in (x, y):
        noise = rng.standard_normal((SIDE, SIDE), np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), ELASTIC_SIGMA * PIXELS_PER_UNIT)  # type: ignore[assignment]
        axis += amplitude * noise / noise.std()
    return cv2.remap(canvas, x, y, cv2.INTER_LINEAR)  # type: ignore[return-value]


def _hull(points: Polygon) -> Polygon:
    return cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
