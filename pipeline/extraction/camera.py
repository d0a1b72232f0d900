"""Camera motion between frames, estimated from the background.

An affine motion is fitted to the flow away from the person, on the whole frame, small and grey.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline import farneback
from pipeline.video.resize import Box, Size

GRID_STEP = 5  # pixels
MIN_TEXTURE = 1e-5  # smaller eigenvalue of the structure tensor; below it a point shows no motion
MIN_POINTS = 24  # for a fit
# Box of a person whose face is unknown, in shares of the frame, down to its lower edge.
PERSON_LEFT, PERSON_TOP, PERSON_WIDTH = 0.25, 0.25, 0.5
# Extent of a person in sizes of the face: above its top, and to each side of its middle, above and
# below the chin.
HEAD_ABOVE, HEAD_ASIDE, BODY_ASIDE = 0.6, 1.0, 1.75

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Mapping:
    """Position of a clip's flow maps within the upright frame."""

    frame: Size
    box: Box  # part of the frame that the maps show
    width: int  # of the maps
    height: int


class Camera:
    """Estimates camera motion in batches of small frames."""

    def __init__(
        self, overview: tuple[int, int], mapping: Mapping, backend: farneback.Backend
    ) -> None:
        self._height, self._width = overview  # of the small frames
        self._mapping = mapping
        self._flow = farneback.Stream(self._height, self._width, backend=backend)
        y, x = np.mgrid[
            GRID_STEP // 2 : self._height : GRID_STEP, GRID_STEP // 2 : self._width : GRID_STEP
        ]
        self._points = np.stack([x.ravel(), y.ravel()], axis=1)  # (P, 2)
        self._previous: npt.NDArray[np.uint8] | None = None

    def motions(
        self, overviews: npt.NDArray[np.uint8], faces: npt.NDArray[np.float64] | None = None
    ) -> Floats:
        """Estimate the motion from each frame to the next.

        Args:
            overviews: next small frames, (n, h, w) uint8, grey.
            faces: x, y, width and height in pixels of the upright frame, (n, 4). None takes the
                middle of the frame for a person.

        Returns:
            (n, 6) float32, (n-1, 6) for the first batch, in pixels of the flow map: dx and dy at
            its centre; growth per pixel of dx along x and y, and of dy along x and y. NaN where the
            background lacks texture.
        """
        fields = self._flow.flows(overviews)  # (n, h, w, 2)
        first = len(overviews) - len(fields)
        motions = np.full((len(fields), 6), np.nan, np.float32)
        for n, field in enumerate(fields, first):
            previous = overviews[n - 1] if n else self._previous
            background = self._background(None if faces is None else faces[n])
            if previous is not None:
                motions[n - first] = self._fit(field, previous, background)
        self._previous = overviews[-1]
        return motions

    def _background(self, face: npt.NDArray[np.float64] | None) -> npt.NDArray[np.bool_]:
        """Return which points, (P,), are not on the person."""
        x, y = ((self._points + 0.5) / (self._width, self._height)).T  # in shares of the frame
        if face is None:
            right = PERSON_LEFT + PERSON_WIDTH
            return ~((x >= PERSON_LEFT) & (x <= right) & (y >= PERSON_TOP))
        left, top, width, height = (face / np.array([*self._mapping.frame] * 2)).tolist()
        distance = np.abs(x - left - width / 2) / width
        reach = np.where(y <= top + height, HEAD_ASIDE, BODY_ASIDE)
        return ~((distance <= reach) & (y >= top - HEAD_ABOVE * height))

    def _fit(
        self, field: Floats, previous: npt.NDArray[np.uint8], background: npt.NDArray[np.bool_]
    ) -> Floats:
        """Fit an affine motion to flow, (h, w, 2), at textured points."""
        texture = cv2.cornerMinEigenVal(previous, 7)
        strength = texture[self._points[:, 1], self._points[:, 0]]  # (P,)
        usable = background & (strength > MIN_TEXTURE)
        if usable.sum() < MIN_POINTS:
            return np.full(6, np.nan, np.float32)
        points = self._points[usable]
        flow = field[points[:, 1], points[:, 0]].astype(np.float64)
        centres = points + 0.5
        affine, _ = cv2.estimateAffine2D(centres, centres + flow, method=cv2.LMEDS)
        if affine is None:
            return np.full(6, np.nan, np.float32)
        return self._on_map(affine)

    def _on_map(self, affine: npt.NDArray[np.float64]) -> Floats:
        """Convert an affine motion, (2, 3), to pixels of the flow map."""
        mapping = self._mapping
        x, y, w, h = mapping.box
        small = np.array([self._width, self._height]) / np.array(mapping.frame)
        scale = np.array([w / mapping.width, h / mapping.height]) * small  # per pixel of the map
        centre = np.array([x + w / 2, y + h / 2]) * small
        linear = affine[:, :2] - np.eye(2)
        shift = (linear @ centre + affine[:, 2]) / scale
        growth = linear * scale[None, :] / scale[:, None]
        return np.concatenate([shift, growth.ravel()]).astype(np.float32)


def camera_field(motion: Floats, height: int, width: int) -> Floats:
    """Return the flow, (H, W, 2) px, of a row of `Camera.motions`; NaN counts as 0."""
    dx, dy, xx, xy, yx, yy = np.nan_to_num(motion).tolist()
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2)[None, :]
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2)[:, None]
    return np.stack([dx + xx * x + xy * y, dy + yx * x + yy * y], axis=-1).astype(np.float32)
