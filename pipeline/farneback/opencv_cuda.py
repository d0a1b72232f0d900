"""OpenCV's Farneback on a CUDA device, for an OpenCV that was built with it.

It is not the same function as the one on the CPU: its pyramid is resized without half-pixel
centres (opencv#4728), so flow differs by hundredths of a pixel on texture and by pixels on noise.
"""

import functools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.farneback.opencv import PARAMETERS


def available() -> bool:
    """Whether this OpenCV has its CUDA modules and sees a device."""
    return hasattr(cv2, "cuda") and cv2.cuda.getCudaEnabledDeviceCount() > 0


@functools.cache
def _engine() -> Any:
    """One per process: its kernels' parameters are global to the process (opencv#16013)."""
    return cv2.cuda.FarnebackOpticalFlow.create(  # type: ignore[attr-defined]
        numLevels=PARAMETERS["levels"],
        pyrScale=PARAMETERS["pyr_scale"],
        fastPyramids=False,
        winSize=PARAMETERS["winsize"],
        numIters=PARAMETERS["iterations"],
        polyN=PARAMETERS["poly_n"],
        polySigma=PARAMETERS["poly_sigma"],
        flags=PARAMETERS["flags"],
    )


def pair(
    previous: npt.NDArray[np.uint8], following: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Flow from one grey frame to the next: (H, W, 2) float32, pixels."""
    upload = [cv2.cuda.GpuMat(frame) for frame in (previous, following)]  # type: ignore[attr-defined]
    return _engine().calc(*upload, None).download()  # type: ignore[no-any-return]
