"""Buffer for decoded frames until their crop is known."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from pipeline.video.decode import ScaledFrame, converting
from pipeline.video.resize import Box, Cut, Upright

MAX_IN_MEMORY = 2**27  # bytes; a larger buffer becomes a temporary file
MAX_BYTES = 2**32  # frames beyond it have to be decoded again


@dataclass(frozen=True)
class _BufferedFrame:
    time: float  # seconds
    part: Box  # that was stored
    n_bytes: int  # of its planes; 0 if the buffer was full


class FrameBuffer:
    """Parts of decoded frames: whole ones would take gigabytes, decoding twice twice the time."""

    def __init__(self, upright: Upright) -> None:
        self._upright = upright
        self._file = tempfile.SpooledTemporaryFile(MAX_IN_MEMORY)  # noqa: SIM115 - closed at exit
        self._n_bytes = 0
        self._frames: list[_BufferedFrame] = []
        self._overview_size = (0, 0)
        self._templates: dict[Box, av.VideoFrame] = {}  # part → the first frame cut to it
        self._cuts: dict[Box, Cut] = {}

    def __enter__(self) -> "FrameBuffer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._frames)

    def add(
        self,
        time: float,
        frame: av.VideoFrame,
        overview: npt.NDArray[np.uint8],
        part: Box,
    ) -> None:
        """Store a part of a frame, and its overview, (h, w)."""
        if part not in self._cuts:
            self._cuts[part] = self._upright.cutter(part)
        n_bytes = 0
        if self._n_bytes < MAX_BYTES:
            cut = self._cuts[part](frame)
            self._templates.setdefault(part, cut)
            height, width = self._overview_size = overview.shape
            try:
                self._file.write(overview.tobytes())
                n_bytes = sum(self._file.write(memoryview(plane)) for plane in cut.planes)
            except OSError as error:
                error.filename = tempfile.gettempdir()  # the file has no name
                raise
            self._n_bytes += width * height + n_bytes
        self._frames.append(_BufferedFrame(time, part, n_bytes))

    def holds(self, box: Box) -> bool:
        """Return whether a box of every frame is stored."""
        return all(_contains(frame.part, box) and frame.n_bytes for frame in self._frames)

    def scaled_frames(self, box: Box, width: int, height: int) -> Iterator[ScaledFrame]:
        """Scale a box that the buffer `holds` of all frames."""
        self._file.seek(0)
        scalers: dict[Box, Any] = {}
        h, w = self._overview_size
        for stored in self._frames:
            template = self._templates[stored.part]
            if stored.part not in scalers:
                scalers[stored.part] = self._upright.scaler_of_cuts(
                    stored.part, box, width, height, template
                )
            overview = np.frombuffer(self._file.read(h * w), np.uint8).reshape(h, w)
            frame = _frame_from(self._file.read(stored.n_bytes), template)
            with converting():
                scaled = ScaledFrame(stored.time, scalers[stored.part](frame), overview)
            yield scaled


def _contains(outer: Box, inner: Box) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[0] + outer[2] >= inner[0] + inner[2]
        and outer[1] + outer[3] >= inner[1] + inner[3]
    )


def _frame_from(planes: bytes, template: av.VideoFrame) -> av.VideoFrame:
    """Build a frame like a template from the bytes of its planes."""
    frame = av.VideoFrame(template.width, template.height, template.format.name)
    frame.colorspace, frame.color_range = template.colorspace, template.color_range
    start = 0
    for plane, like in zip(frame.planes, template.planes, strict=True):
        n_lines = like.buffer_size // like.line_size
        stored = np.frombuffer(planes, np.uint8, like.buffer_size, start)
        start += like.buffer_size
        buffer: Any = plane
        target = np.frombuffer(buffer, np.uint8).reshape(n_lines, plane.line_size)
        n = min(plane.line_size, like.line_size)  # lines are padded differently
        target[:, :n] = stored.reshape(n_lines, like.line_size)[:, :n]
    return frame
