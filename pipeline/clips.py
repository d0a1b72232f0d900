"""One video → its clips: frames, flow maps, times. Training and prediction both come here."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline import farneback
from pipeline.decode import Geometry, decode
from pipeline.errors import Rejected
from pipeline.footage import thumbnails


@dataclass(frozen=True)
class ClipArrays:
    """What is stored of one clip of T frames."""

    frames: npt.NDArray[np.uint8]  # (T, H, W, 3), RGB
    flow: npt.NDArray[np.uint8]  # (T-1, H, W), each map min-max scaled to 0..255
    flow_range: npt.NDArray[np.float32]  # (T-1, 2), what 0 and 255 stand for, pixels per frame
    timestamps: npt.NDArray[np.float64]  # (T,), seconds

    def datasets(self, *, keep_frames: bool = True) -> dict[str, npt.NDArray[Any]]:
        """The arrays by the names that they have in a cache."""
        arrays: dict[str, npt.NDArray[Any]] = {"frames": self.frames} if keep_frames else {}
        return arrays | {
            "flow": self.flow,
            "flow_range": self.flow_range,
            "timestamps": self.timestamps,
            "thumbnails": thumbnails(self.frames, self.timestamps),
        }


def extract_clips(
    path: Path,
    geometry: Geometry,
    *,
    rate: float,
    n_frames: int,
    n_clips: int = 1,
    backend: farneback.Backend = "opencv",
    threads: int = 1,
) -> Iterator[ClipArrays]:
    """Cut clips one after the other from the start of a video, and compute their flow.

    Args:
        path: the video file.
        geometry: crop and size.
        rate: frames sampled per second.
        n_frames: T, the frames of each clip.
        n_clips: at most this many; a rest shorter than a clip is left.
        backend: of the flow, as `farneback.resolve` gives it.
        threads: of the decoder; 0 lets FFmpeg choose.

    Raises:
        Rejected: the video is damaged, or ends, before the first clip is full. Later damage only
            ends the clips.
    """
    frames = decode(path, geometry, rate, threads=threads)
    for n in range(n_clips):
        taken: list[tuple[float, npt.NDArray[np.uint8]]] = []
        try:
            taken.extend(islice(frames, n_frames))
        except Rejected:
            if n == 0:
                raise
        if len(taken) < n_frames:
            if n == 0:
                raise Rejected("too short", f"{len(taken)} frames of {n_frames}")
            return
        yield _with_flow(taken, backend)


def _with_flow(
    taken: list[tuple[float, npt.NDArray[np.uint8]]], backend: farneback.Backend
) -> ClipArrays:
    grey: Any = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for _, frame in taken])
    maps, ranges = farneback.magnitude_maps(grey, backend=backend)
    return ClipArrays(
        frames=np.stack([frame for _, frame in taken]),
        flow=maps,
        flow_range=ranges,
        timestamps=np.array([time for time, _ in taken], np.float64),
    )
