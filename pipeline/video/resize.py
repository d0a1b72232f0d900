"""Which part of a picture is kept, and at what size.

Rotation, crop, resize and colour conversion all happen inside FFmpeg (through PyAV), so that a
full-size RGB frame never exists.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
import numpy.typing as npt

from pipeline.common.errors import Rejected

Box = tuple[int, int, int, int]  # x, y, width, height in pixels of the upright picture
Size = tuple[int, int]  # width, height
Cut = Callable[[av.VideoFrame], av.VideoFrame]
Scale = Callable[[av.VideoFrame], npt.NDArray[np.uint8]]

SQUARE = Fraction(1)
OVERVIEW = 192  # pixels, the longer side of the whole picture at the size that cameras are seen at
OVERVIEW_SHORT = 32  # its shorter side at least: flow needs so many
_ROTATE = {90: ["cclock"], 180: ["cclock", "cclock"], 270: ["clock"]}  # arguments of `transpose`
_AREA = "area+accurate_rnd+bitexact"


@dataclass(frozen=True)
class Geometry:
    """Which part of the picture is kept, and at what size.

    Args:
        width: of the result, in pixels.
        height: of the result, in pixels.
        crop: the part of the upright picture to keep, or None for all of it. What has another
            aspect ratio than the result is cut to it about its centre, never squeezed.
    """

    width: int = 224
    height: int = 224
    crop: Box | None = None

    def box(self, width: int, height: int, pixel_aspect: Fraction = SQUARE) -> Box:
        """The part of an upright ``width`` × ``height`` picture that will be scaled to the result.

        Args:
            width: of the picture as it is stored, in pixels.
            height: of it.
            pixel_aspect: width of a stored pixel as it is shown, over its height.

        Raises:
            Rejected: the crop lies outside this picture.

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
        if self.crop and abs(w - h * aspect) <= max(SQUARE, aspect) + Fraction(
            1, 2
        ):  # as near as pixels come
            return x, y, w, h
        return x + (w - kept_w) // 2, y + (h - kept_h) // 2, kept_w, kept_h


def shrunk(width: int, height: int, longest: int) -> Size:
    """The size of a picture whose longer side is so many pixels, if it is not smaller anyhow."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


class Upright:
    """The pictures of one stream: upright, one moment each, and any part of them at any size.

    Args:
        stream: of an open container.
        frame: the first one; its rotation and interlacing are those of all.

    Attributes:
        stream: as given.
        width, height: of the upright picture, in stored pixels.
        pixel_aspect: width of a stored pixel as it is shown, over its height.
    """

    def __init__(self, stream: Any, frame: av.VideoFrame) -> None:
        self.stream = stream
        turns = _ROTATE.get(round(frame.rotation) % 360, [])
        self._turned = len(turns) == 1
        self._interlaced = bool(frame.interlaced_frame)
        self._filters = [("field", "top")] if self._interlaced else []  # a frame is two moments
        if frame.format.has_palette:  # a part of it means nothing without the palette
            self._filters.append(("format", "rgb24"))
        self._filters += [("transpose", turn) for turn in turns]
        self.width, self.height = frame.width, frame.height
        self.pixel_aspect = Fraction(stream.sample_aspect_ratio or SQUARE)
        if self._turned:
            self.width, self.height = frame.height, frame.width
            self.pixel_aspect = 1 / self.pixel_aspect

    @property
    def whole(self) -> Box:
        """All of the picture."""
        return 0, 0, self.width, self.height

    def overview_size(self) -> Size:
        """Of the whole picture at the size that the camera's motion is seen at."""
        width, height = shrunk(self.width, self.height, OVERVIEW)
        return max(width, OVERVIEW_SHORT), max(height, OVERVIEW_SHORT)

    def scaler(self, box: Box, width: int, height: int, pix_fmt: str = "rgb24") -> Scale:
        """What makes of a decoded frame this part of it at this size.

        The result is (height, width) uint8 for the format ``gray``, else (height, width, 3).
        """
        graph = self._graph(self._filters, self._stored(box), (width, height, pix_fmt))
        return lambda frame: _array(graph(frame))

    def cutter(self, box: Box) -> Cut:
        """What cuts this part out of a decoded frame, in the pixels and colours that it has."""
        return self._graph(self._filters, self._stored(box), None)

    def scaler_of_cuts(self, cut: Box, box: Box, width: int, height: int, kind: Any) -> Scale:
        """As `scaler`, of what `cutter` cut out; the result is the same.

        Args:
            cut: what was cut out, in pixels of the picture.
            box: the part of the picture that is kept; it lies within.
            width: of the result.
            height: of the result.
            kind: a frame that was cut out.
        """
        (left, top, _, _), (x, y, w, h) = self._stored(cut), self._stored(box)
        graph = self._graph([], (x - left, y - top, w, h), (width, height, "rgb24"), kind)
        return lambda frame: _array(graph(frame))

    def _stored(self, box: Box) -> Box:
        """A part of the picture in the lines that are there once a field has been taken."""
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
            filters += [("copy", "")]  # else it would be a view of the whole frame
        else:
            width, height, pix_fmt = scaled
            filters += [("scale", f"{width}:{height}:flags={_AREA}"), ("format", pix_fmt)]
        graph = av.filter.Graph()
        graph.threads = 1
        time_base = self.stream.time_base
        if kind is None:
            nodes = [graph.add_buffer(template=self.stream, time_base=time_base)]
        else:
            nodes = [graph.add_buffer(None, kind.width, kind.height, kind.format, "", time_base)]
        nodes += [graph.add(name, value or None) for name, value in [*filters, ("buffersink", "")]]
        graph.link_nodes(*nodes).configure()

        def through(frame: av.VideoFrame) -> av.VideoFrame:
            graph.push(frame)
            return graph.pull()  # type: ignore[return-value]

        return through


def _array(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    plane: Any = frame.planes[0]  # lines may be padded; the view keeps the frame alive
    lines = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    if frame.format.name == "gray":
        return lines[:, : frame.width]
    return lines[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
