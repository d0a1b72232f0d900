"""OpenCV's Farneback on the CPU: the reference."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

PARAMETERS: dict[str, Any] = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def pair(
    previous: npt.NDArray[np.uint8], following: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Flow from one grey frame to the next: (H, W, 2) float32, pixels."""
    return cv2.calcOpticalFlowFarneback(previous, following, None, **PARAMETERS)  # type: ignore
