"""Settings of a face crop: how often a face is looked for, and the box about its places."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.video.resize import SQUARE, Box

DetectorName = Literal["yunet", "haar"]
NoFace = Literal["reject", "whole"]
SeveralFaces = Literal["largest", "reject"]

LOOKS_PER_SECOND = 2.0
MIN_FRAMES_BETWEEN_LOOKS = 10


@dataclass(frozen=True)
class FaceCrop:
    """A crop about a face, in place of a box given by hand."""

    margin: float = 0.3  # on each side, in sizes of the face; with 0.8, hair and neck are kept
    detector: DetectorName = "yunet"
    detector_sha256: str = ""  # of its file
    no_face: NoFace = "reject"  # or keep the whole frame
    several: SeveralFaces = "largest"  # to follow, or reject the clip
    share: float = 0.5  # of the looks that must find the face, else the clip is rejected


def frames_between_looks(rate: float) -> int:
    """Return after how many frames faces are looked for again."""
    return max(MIN_FRAMES_BETWEEN_LOOKS, round(rate / LOOKS_PER_SECOND))


def steady_box(
    faces: npt.NDArray[np.float64],
    width: int,
    height: int,
    *,
    margin: float,
    aspect: Fraction = SQUARE,
    pixel_aspect: Fraction = SQUARE,
) -> Box:
    """Return one box for all places of a face, (n, 4), with a margin, inside the frame.

    Sizes are in stored pixels, the margin in medians of the face's longer side.
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
