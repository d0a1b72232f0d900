"""What is asked of a crop about a face, and the box that follows from where the face was."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.video.resize import SQUARE, Box

DetectorName = Literal["yunet", "haar"]
NoFace = Literal["reject", "whole"]
SeveralFaces = Literal["largest", "reject"]


@dataclass(frozen=True)
class FaceCrop:
    """A crop about a face, in place of a box that is given.

    Attributes:
        margin: what is kept on each side of the face, in sizes of the face: 0.3 keeps the edge of
            the face, 0.8 hair and neck as well.
        detector: that finds faces.
        detector_sha256: of its file.
        no_face: what becomes of a clip in which no face is found: it is rejected, or keeps the
            whole picture.
        several: whose face is followed if there are several: the largest, or the clip is rejected.
        share: of the moments looked at in which the face must be found; else the clip is rejected,
            because the face leaves.
    """

    margin: float = 0.3
    detector: DetectorName = "yunet"
    detector_sha256: str = ""
    no_face: NoFace = "reject"
    several: SeveralFaces = "largest"
    share: float = 0.5


def steady_box(
    faces: npt.NDArray[np.float64],
    width: int,
    height: int,
    *,
    margin: float,
    aspect: Fraction = SQUARE,
    pixel_aspect: Fraction = SQUARE,
) -> Box:
    """One box for a whole clip: everywhere the face was, with a margin, inside the picture.

    Args:
        faces: (n, 4) x, y, width and height of the face, in pixels of the upright picture.
        width: of the picture as it is stored, in pixels.
        height: of it.
        margin: on each side, in sizes of the face (the median of its longer side).
        aspect: width of the result as it is shown, over its height.
        pixel_aspect: width of a stored pixel as it is shown, over its height.
    """
    stretch = np.array([float(pixel_aspect), 1.0])  # stored pixels → shown ones
    first = faces[:, :2].min(axis=0) * stretch
    last = (faces[:, :2] + faces[:, 2:]).max(axis=0) * stretch
    pad = margin * float(np.median((faces[:, 2:] * stretch).max(axis=1)))
    w, h = (last - first + 2 * pad).tolist()
    w, h = max(w, h * float(aspect)), max(h, w / float(aspect))
    picture = np.array([width, height]) * stretch
    size = np.array([w, h]) * min(1.0, picture[0] / w, picture[1] / h)
    corner = np.clip((first + last - size) / 2, 0, picture - size)
    x, y = np.rint(corner / stretch).astype(int).tolist()
    w, h = np.rint(size / stretch).astype(int).tolist()
    return x, y, min(w, width - x), min(h, height - y)
