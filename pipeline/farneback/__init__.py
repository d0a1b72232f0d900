"""Dense optical flow after Farnebäck (2003): one function in front, one file per backend."""

from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import SettingsError
from pipeline.farneback import opencv, opencv_cuda

Backend = Literal["opencv", "opencv-cuda"]
BACKENDS: tuple[str, ...] = ("auto", "opencv", "opencv-cuda")
_MODULES = {"opencv": opencv, "opencv-cuda": opencv_cuda}


def resolve(name: str) -> Backend:
    """The backend that a name stands for on this machine.

    Args:
        name: a backend, or ``auto``: ``opencv-cuda`` where that OpenCV sees a CUDA device (no pip
            wheel does), else ``opencv``. The two do not give the same flow, so the answer belongs
            into every cache.

    Raises:
        SettingsError: no such backend, or not on this machine.
    """
    if name == "auto":
        return "opencv-cuda" if opencv_cuda.available() else "opencv"
    if name not in _MODULES:
        raise SettingsError(f"no flow backend {name!r}", f"there are: {', '.join(BACKENDS)}")
    if name == "opencv-cuda" and not opencv_cuda.available():
        raise SettingsError(
            "this OpenCV has no CUDA device for the flow backend opencv-cuda",
            "use auto, or an OpenCV that was built with CUDA",
        )
    return name  # type: ignore[return-value]


def flow(frames: npt.NDArray[np.uint8], *, backend: str = "auto") -> npt.NDArray[np.float32]:
    """Optical flow between each frame and the next.

    Args:
        frames: (T, H, W) uint8, grey.
        backend: see `resolve`.

    Returns:
        (T-1, H, W, 2) float32: horizontal and vertical displacement in pixels per frame.
    """
    module = _MODULES[resolve(backend)]
    pairs = [module.pair(a, b) for a, b in pairwise(frames)]
    return np.array(pairs, np.float32).reshape(max(len(frames) - 1, 0), *frames.shape[1:], 2)


def magnitude_map(
    previous: npt.NDArray[np.uint8], following: npt.NDArray[np.uint8], *, backend: Backend
) -> tuple[npt.NDArray[np.uint8], tuple[float, float]]:
    """The magnitude of the flow between two frames, min-max scaled to the range of an image.

    Args:
        previous: (H, W) uint8, grey.
        following: (H, W) uint8, grey: the next frame.
        backend: as `resolve` gives it.

    Returns:
        the map, (H, W) uint8, and the magnitudes in pixels per frame that 0 and 255 stand for. A
        map without any contrast is 0 throughout.
    """
    # Not cv2.magnitude: its last bits depend on where in memory the arrays happen to lie.
    magnitude, _ = cv2.cartToPolar(*cv2.split(_MODULES[backend].pair(previous, following)))
    low, high, _, _ = cv2.minMaxLoc(magnitude)
    scaled = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)  # type: ignore[call-overload]
    return scaled, (low, high)  # type: ignore[return-value]
