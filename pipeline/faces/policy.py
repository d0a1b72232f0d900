"""What a face crop asks for, and the box that follows from where the face was."""

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
    """A crop about a face, in place of a box given by hand.

    Attributes:
        margin: space on each side of the face, in sizes of the face: 0.3 keeps its edge, 0.8 hair
            and neck as well.
        detector: name of the face detector.
        detector_sha256: hash of its file.
        no_face: whether a clip without a face is rejected or keeps the whole frame.
        several: whether the largest of several faces is followed or the clip is rejected.
        share: minimum share of the looks that must find the face; below it, the clip is rejected
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
    """Return one box for a whole clip: all places of the face, with a margin, inside the frame.

    Args:
        faces: x, y, width and height of the face, (n, 4), in pixels of the upright frame.
        width: of the upright frame, in stored pixels.
        height: of the upright frame, in stored pixels.
        margin: space on each side, in sizes of the face (the median of its longer side).
        aspect: displayed width of the box over its height.
        pixel_aspect: displayed width of a stored pixel over its height.
    """
    stretch = np.array([float(pixel_aspect), 1.0])  # stored pixels → displayed ones
    first = faces[:, :2].min(axis=0) * stretch
    last = (faces[:, :2] + faces[:, 2:]).max(axis=0) * stretch
    pad = margin * float(np.median((faces[:, 2:] * stretch).max(axis=1)))
    w, h = (last - first + 2 * pad).tolist()
    w, h = max(w, h * float(aspect)), max(h, w / float(aspect))
    frame = np.array([width, height]) * stretch
    size = np.array([w, h]) * min(1.0, frame[0] / w, frame[1] / h)
    corner = np.clip((first + last - size) / 2, 0, frame - size)
    x, y = np.rint(corner / stretch).astype(int).tolist()
    w, h = np.rint(size / stretch).astype(int).tolist()
    return x, y, min(w, width - x), min(h, height - y)
