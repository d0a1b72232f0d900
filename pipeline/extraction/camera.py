"""The camera's own motion: what the background does from one frame to the next.

Flow is computed on the whole picture, small and grey, whatever part of it a clip keeps: there is
more background in it than about a face. An affine motion is fitted to it, robustly, away from the
person.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline import farneback
from pipeline.video.resize import Box

STEP = 5  # pixels between two points that are looked at
TEXTURED = 1e-5  # smaller eigenvalue of the structure tensor, below which a point shows no motion
FEWEST = 24  # points, below which nothing is said
# Where a person is likely, if no face is known: from this left and top on, so wide, and all below,
# in shares of the picture.
MIDDLE = (0.25, 0.25, 0.5)
# What belongs to a face, in its sizes: the head so far above it and to each side of its middle, and
# below its chin the body.
ABOVE, HEAD, BODY = 0.6, 1.0, 1.75

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Mapping:
    """How the whole small picture and the part that a clip keeps lie over one another.

    Attributes:
        picture: width and height of the upright picture.
        box: the part of it that is kept.
        width: of the flow map.
        height: of it.
    """

    picture: tuple[int, int]
    box: Box
    width: int
    height: int


class Camera:
    """Estimates the camera's motion for a sequence of small pictures that comes in pieces.

    Args:
        overview: height and width of the small pictures.
        mapping: from them to the flow map.
        backend: of the flow, as `pipeline.farneback.resolve` gives it.
    """

    def __init__(
        self, overview: tuple[int, int], mapping: Mapping, backend: farneback.Backend
    ) -> None:
        self._height, self._width = overview
        self._mapping = mapping
        self._flow = farneback.Stream(self._height, self._width, backend=backend)
        y, x = np.mgrid[STEP // 2 : self._height : STEP, STEP // 2 : self._width : STEP]
        self._points = np.stack([x.ravel(), y.ravel()], axis=1)  # (P, 2)
        self._last: npt.NDArray[np.uint8] | None = None

    def motions(
        self, overviews: npt.NDArray[np.uint8], faces: npt.NDArray[np.float64] | None = None
    ) -> Floats:
        """Take the next pictures.

        Args:
            overviews: (n, h, w) uint8, grey.
            faces: (n, 4) where the face is in each, x, y, width and height in pixels of the
                upright picture; None where nobody knows, and the middle is left out.

        Returns:
            (n, 6) float32, one fewer at the beginning: for the motion from the picture before to
            this one, in pixels of the flow map: dx and dy at its middle, and how dx grows per pixel
            along x and along y, and dy along x and along y. NaN where too little of the background
            has any texture.
        """
        fields = self._flow.flows(overviews)  # (n, h, w, 2)
        first = len(overviews) - len(fields)
        found = np.full((len(fields), 6), np.nan, np.float32)
        for n, field in enumerate(fields):
            at = first + n
            before = overviews[at - 1] if at else self._last
            background = self._background(None if faces is None else faces[at])
            if before is not None:
                found[n] = self._fit(field, before, background)
        self._last = overviews[-1]
        return found

    def _background(self, face: npt.NDArray[np.float64] | None) -> npt.NDArray[np.bool_]:
        """The points that are neither the head nor the body, (P,)."""
        x, y = ((self._points + 0.5) / (self._width, self._height)).T  # in shares of the picture
        if face is None:
            left, top, width = MIDDLE
            return ~((x >= left) & (x <= left + width) & (y >= top))
        left, top, width, height = (face / np.array([*self._mapping.picture] * 2)).tolist()
        aside = np.abs(x - left - width / 2) / width
        reach = np.where(y <= top + height, HEAD, BODY)
        return ~((aside <= reach) & (y >= top - ABOVE * height))

    def _fit(
        self, field: Floats, before: npt.NDArray[np.uint8], background: npt.NDArray[np.bool_]
    ) -> Floats:
        texture = cv2.cornerMinEigenVal(before, 7)
        strength = texture[self._points[:, 1], self._points[:, 0]]  # (P,)
        usable = background & (strength > TEXTURED)
        if usable.sum() < FEWEST:
            return np.full(6, np.nan, np.float32)
        points = self._points[usable]
        moved = field[points[:, 1], points[:, 0]].astype(np.float64)
        at = points + 0.5
        affine, _ = cv2.estimateAffine2D(at, at + moved, method=cv2.LMEDS)
        if affine is None:
            return np.full(6, np.nan, np.float32)
        return self._on_map(affine)

    def _on_map(self, affine: npt.NDArray[np.float64]) -> Floats:
        """An affine motion of the small picture, (2, 3), in pixels of the flow map."""
        mapping = self._mapping
        x, y, w, h = mapping.box
        small = np.array([self._width, self._height]) / np.array(mapping.picture)
        scale = np.array([w / mapping.width, h / mapping.height]) * small  # per pixel of the map
        middle = np.array([x + w / 2, y + h / 2]) * small
        linear = affine[:, :2] - np.eye(2)
        shift = (linear @ middle + affine[:, 2]) / scale
        growth = linear * scale[None, :] / scale[:, None]
        return np.concatenate([shift, growth.ravel()]).astype(np.float32)


def camera_field(motion: Floats, height: int, width: int) -> Floats:
    """The flow that the camera's motion makes: (height, width, 2) float32 in pixels of the map.

    Args:
        motion: (6,), as `Camera.motions` gives it; NaN counts as none.
        height: of the map.
        width: of it.
    """
    dx, dy, xx, xy, yx, yy = np.nan_to_num(motion).tolist()
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2)[None, :]
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2)[:, None]
    return np.stack([dx + xx * x + xy * y, dy + yx * x + yy * y], axis=-1).astype(np.float32)
