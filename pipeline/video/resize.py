"""Rotation, crop, resizing and colour conversion of frames, in FFmpeg: no full-size RGB frame."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
import numpy.typing as npt

from pipeline.common.errors import Rejected

Box = tuple[int, int, int, int]  # x, y, width, height in pixels of the upright frame
Size = tuple[int, int]  # width, height
Cut = Callable[[av.VideoFrame], av.VideoFrame]
Scale = Callable[[av.VideoFrame], npt.NDArray[np.uint8]]

SQUARE = Fraction(1)
OVERVIEW_SIDE = 192  # pixels, the longer side of the whole frame where camera motion is measured
MIN_OVERVIEW_SIDE = 32  # pixels; flow needs them
_ROTATE = {90: ["cclock"], 180: ["cclock", "cclock"], 270: ["clock"]}  # arguments of `transpose`
_AREA = "area+accurate_rnd+bitexact"


@dataclass(frozen=True)
class Geometry:
    """Crop and size of the frames of a clip.

    A crop of another aspect ratio than the result is cut about its centre, never squeezed.
    """

    width: int = 224  # of the result, pixels
    height: int = 224
    crop: Box | None = None  # None for the whole frame

    def box(self, width: int, height: int, pixel_aspect: Fraction = SQUARE) -> Box:
        """Return the part that is kept of an upright frame of a size in stored pixels.

        Raises:
            Rejected: the crop lies outside the frame.

        Example:
            >>> Geometry(224, 224).box(1920, 1080)
            (420, 0, 1080, 1080)
        """
        x, y, w, h = self.crop or (0, 0, width, height)
        if x + w > width or y + h > height:
            raise Rejected(
                "crop outside the picture", f"{x},{y},{w},{h} of a {width}x{height} picture"
            )
        aspect = Fraction(self.width, self.height) / pixel_aspect
        kept_w, kept_h = min(w, max(1, int(h * aspect))), min(h, max(1, int(w / aspect)))
        nearest = max(SQUARE, aspect) + Fraction(1, 2)  # as near as whole pixels come
        if self.crop and abs(w - h * aspect) <= nearest:
            return x, y, w, h
        return x + (w - kept_w) // 2, y + (h - kept_h) // 2, kept_w, kept_h


def shrunk(width: int, height: int, longest: int) -> Size:
    """Return a size scaled to a longer side of ``longest``, never enlarged."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


class Upright:
    """The upright, deinterlaced frames of one stream, all taken to be like the first."""

    def __init__(self, stream: Any, frame: av.VideoFrame) -> None:
        self._stream = stream
        turns = _ROTATE.get(round(frame.rotation) % 360, [])
        self._turned = len(turns) == 1
        self._interlaced = bool(frame.interlaced_frame)
        self._filters = [("field", "top")] if self._interlaced else []  # of two fields, one is kept
        if frame.format.has_palette:  # a crop would lose the palette
            self._filters.append(("format", "rgb24"))
        self._filters += [("transpose", turn) for turn in turns]
        self.width, self.height = frame.width, frame.height  # stored pixels
        # Displayed width of a stored pixel over its height:
        self.pixel_aspect = Fraction(stream.sample_aspect_ratio or SQUARE)
        if self._turned:
            self.width, self.height = frame.height, frame.width
            self.pixel_aspect = 1 / self.pixel_aspect

    @property
    def whole(self) -> Box:
        """Box of the whole frame."""
        return 0, 0, self.width, self.height

    def overview_size(self) -> Size:
        """Return the size of the whole frame at which camera motion is measured."""
        width, height = shrunk(self.width, self.height, OVERVIEW_SIDE)
        return max(width, MIN_OVERVIEW_SIDE), max(height, MIN_OVERVIEW_SIDE)

    def scaler(self, box: Box, width: int, height: int, pix_fmt: str = "rgb24") -> Scale:
        """Return a function from a decoded frame to this part, (H, W, 3) uint8, or grey (H, W)."""
        graph = self._graph(self._filters, self._stored(box), (width, height, pix_fmt))
        return lambda frame: _array(graph(frame))

    def cutter(self, box: Box) -> Cut:
        """Return a function that crops a decoded frame and keeps its pixel format."""
        return self._graph(self._filters, self._stored(box), None)

    def scaler_of_cuts(self, cut: Box, box: Box, width: int, height: int, kind: Any) -> Scale:
        """Return a `scaler` of frames like ``kind``, from the `cutter` of ``cut``; same results."""
        (left, top, _, _), (x, y, w, h) = self._stored(cut), self._stored(box)
        graph = self._graph([], (x - left, y - top, w, h), (width, height, "rgb24"), kind)
        return lambda frame: _array(graph(frame))

    def _stored(self, box: Box) -> Box:
        """Return a box in the lines that are left when one field is kept."""
        x, y, w, h = box
        if self._interlaced and self._turned:
            return x // 2, y, max(1, w // 2), h
        if self._interlaced:
            return x, y // 2, w, max(1, h // 2)
        return box

    def _graph(
        self,
        filters: list[tuple[str, str]],
        box: Box,
        scaled: tuple[int, int, str] | None,
        kind: Any = None,
    ) -> Cut:
        x, y, w, h = box
        filters = [*filters, ("crop", f"{w}:{h}:{x}:{y}:exact=1")]
        if scaled is None:
            filters += [("copy", "")]  # or else it would be a view of the whole frame
        else:
            width, height, pix_fmt = scaled
            filters += [("scale", f"{width}:{height}:flags={_AREA}"), ("format", pix_fmt)]
        graph = av.filter.Graph()
        graph.threads = 1
        time_base = self._stream.time_base
        if kind is None:
            nodes = [graph.add_buffer(template=self._stream, time_base=time_base)]
        else:
            nodes = [graph.add_buffer(None, kind.width, kind.height, kind.format, "", time_base)]
        nodes += [graph.add(name, value or None) for name, value in [*filters, ("buffersink", "")]]
        graph.link_nodes(*nodes).configure()

        def through(frame: av.VideoFrame) -> av.VideoFrame:
            graph.push(frame)
            return graph.pull()  # type: ignore[return-value]

        return through


def _array(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    plane: Any = frame.planes[0]  # lines may be padded; the array keeps the frame alive
    lines = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    if frame.format.name == "gray":
        return lines[:, : frame.width]
    return lines[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
