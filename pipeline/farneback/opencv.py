"""OpenCV's own Farneback on the CPU: reference and fallback of the other backends."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.farneback.parameters import Floats, Parameters

Frame = npt.NDArray[np.uint8]


class Engine:
    """Flow of a sequence by OpenCV."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._previous: Frame | None = None

    def flow(self, frame: Frame, initial: Floats | None = None) -> Floats | None:
        """Take the next frame; see `pipeline.farneback.Stream.flow`."""
        previous, self._previous = self._previous, frame.copy()
        return None if previous is None else self._pair(previous, frame, initial)

    def magnitude(self, frame: Frame) -> Floats | None:
        """Take the next frame and return the flow's magnitude, (H, W) float32."""
        flow = self.flow(frame)
        if flow is None:
            return None
        # Not cv2.magnitude: its last bits depend on the alignment of the arrays.
        return cv2.cartToPolar(*cv2.split(flow))[0]  # type: ignore

    def _pair(self, previous: Frame, following: Frame, initial: Floats | None) -> Floats:
        p: Any = self._parameters
        flags = p.flags | (0 if initial is None else cv2.OPTFLOW_USE_INITIAL_FLOW)
        start: Any = None if initial is None else np.ascontiguousarray(initial, np.float32).copy()
        return cv2.calcOpticalFlowFarneback(  # type: ignore[return-value]
            previous,
            following,
            start,
            p.pyr_scale,
            p.levels,
            p.winsize,
            p.iterations,
            p.poly_n,
            p.poly_sigma,
            flags,
        )
