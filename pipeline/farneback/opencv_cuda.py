"""OpenCV's Farneback on a CUDA device, for an OpenCV built with CUDA.

Its pyramid is resized without half-pixel centres (opencv#4728): flow differs from the CPU's by
hundredths of a pixel on texture, by pixels on noise.
"""

import functools
from typing import Any

import cv2

from pipeline.farneback import opencv
from pipeline.farneback.parameters import Floats, Parameters


def available() -> bool:
    """Return whether this OpenCV has CUDA modules and sees a device."""
    return hasattr(cv2, "cuda") and cv2.cuda.getCudaEnabledDeviceCount() > 0


@functools.cache
def _farneback(parameters: Parameters) -> Any:
    """Make one object, as its kernels' parameters are global to the process (opencv#16013)."""
    return cv2.cuda.FarnebackOpticalFlow.create(  # type: ignore[attr-defined]
        numLevels=parameters.levels,
        pyrScale=parameters.pyr_scale,
        fastPyramids=False,
        winSize=parameters.winsize,
        numIters=parameters.iterations,
        polyN=parameters.poly_n,
        polySigma=parameters.poly_sigma,
        flags=parameters.flags,
    )


class Engine(opencv.Engine):
    """Flow of a sequence by OpenCV on the device."""

    def _pair(
        self, previous: opencv.Frame, following: opencv.Frame, initial: Floats | None
    ) -> Floats:
        pair = [cv2.cuda.GpuMat(frame) for frame in (previous, following)]  # type: ignore[attr-defined]
        flow = _farneback(self._parameters).calc(*pair, None)
        return flow.download()  # type: ignore[no-any-return]
