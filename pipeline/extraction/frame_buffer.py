"""Decoded frames of a clip, kept until it is known which part of them is wanted."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from pipeline.video.decode import Picture, converting
from pipeline.video.resize import Box, Cut, Upright

IN_MEMORY = 2**27  # bytes; what is more goes to a temporary file
MOST = 2**32  # bytes; what is more is decoded again


@dataclass(frozen=True)
class _Kept:
    """A frame in the spool: when it was, which part was kept, and how long that is in bytes."""

    time: float
    part: Box
    n_bytes: int


class FrameBuffer:
    """Keeps a part of each frame as it was decoded, and scales another part, within it, later.

    To decode a video twice would take nearly twice the time; to keep whole frames would take
    gigabytes.

    Args:
        upright: the video's pictures.
    """

    def __init__(self, upright: Upright) -> None:
        self._upright = upright
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed at exit
        self._size = 0
        self._kept: list[_Kept] = []
        self._overview_size = (0, 0)
        self._kinds: dict[Box, av.VideoFrame] = {}  # part → a frame of what was cut
        self._cuts: dict[Box, Cut] = {}

    def __enter__(self) -> "FrameBuffer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._kept)

    def add(
        self,
        time: float,
        frame: av.VideoFrame,
        overview: npt.NDArray[np.uint8],
        part: Box,
    ) -> None:
        """Keep a part of a frame."""
        if part not in self._cuts:
            self._cuts[part] = self._upright.cutter(part)
        n_bytes = 0
        if self._size < MOST:
            cut = self._cuts[part](frame)
            self._kinds.setdefault(part, cut)
            height, width = self._overview_size = overview.shape
            try:
                self._file.write(overview.tobytes())
                n_bytes = sum(self._file.write(memoryview(plane)) for plane in cut.planes)
            except OSError as error:
                error.filename = tempfile.gettempdir()  # its file has no name
                raise
            self._size += width * height + n_bytes
        self._kept.append(_Kept(time, part, n_bytes))

    def holds(self, box: Box) -> bool:
        """Whether this part of every frame was kept."""
        return all(_contains(kept.part, box) and kept.n_bytes for kept in self._kept)

    def pictures(self, box: Box, width: int, height: int) -> Iterator[Picture]:
        """All frames, of each this part at this size; `holds` must be true."""
        self._file.seek(0)
        scalers: dict[Box, Any] = {}
        h, w = self._overview_size
        for kept in self._kept:
            kind = self._kinds[kept.part]
            if kept.part not in scalers:
                scalers[kept.part] = self._upright.scaler_of_cuts(
                    kept.part, box, width, height, kind
                )
            overview = np.frombuffer(self._file.read(h * w), np.uint8).reshape(h, w)
            frame = _like(kind, self._file.read(kept.n_bytes))
            with converting():
                picture = Picture(kept.time, scalers[kept.part](frame), overview)
            yield picture


def _contains(outer: Box, inner: Box) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[0] + outer[2] >= inner[0] + inner[2]
        and outer[1] + outer[3] >= inner[1] + inner[3]
    )


def _like(kind: av.VideoFrame, content: bytes) -> av.VideoFrame:
    """A frame of the same kind from the bytes of its planes."""
    frame = av.VideoFrame(kind.width, kind.height, kind.format.name)
    frame.colorspace, frame.color_range = kind.colorspace, kind.color_range
    start = 0
    for plane, there in zip(frame.planes, kind.planes, strict=True):
        lines = there.buffer_size // there.line_size
        stored = np.frombuffer(content, np.uint8, there.buffer_size, start)
        start += there.buffer_size
        buffer: Any = plane
        into = np.frombuffer(buffer, np.uint8).reshape(lines, plane.line_size)
        n = min(plane.line_size, there.line_size)  # lines are padded differently
        into[:, :n] = stored.reshape(lines, there.line_size)[:, :n]
    return frame
