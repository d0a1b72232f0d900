"""A video file → RGB frames of the working size, at equal intervals of time.

Decoding, rotation, crop, resize and colour conversion all happen inside FFmpeg (through PyAV), so
that a full-size RGB frame never exists.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import av.error
import av.filter
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from pipeline.errors import Rejected

Box = tuple[int, int, int, int]  # x, y, width, height in pixels of the upright picture
Item = TypeVar("Item")

_ROTATE = {90: ["cclock"], 180: ["cclock", "cclock"], 270: ["clock"]}  # arguments of `transpose`
# What FFmpeg may open: plain files of these formats, no playlists that name other files or hosts.
PLAIN_FILES = {
    "protocol_whitelist": "file",
    "format_whitelist": "asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,"
    "mpegvideo,mxf,ogg,webm,yuv4mpegpipe",
}
# More than any camera makes: what claims more would fill the memory, or never end.
MOST_PIXELS = 2**26
MOST_FRAMES = 1_000_000
HALF = 0.5 + 1e-6  # half-way between two ticks is the earlier one, whatever the last bits say
REGULAR = 0.25  # intervals within this fraction of the median count as one and the same


SQUARE = Fraction(1)


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
        """
        x, y, w, h = self.crop or (0, 0, width, height)
        if x + w > width or y + h > height:
            raise Rejected(
                "crop outside the picture", f"{x},{y},{w},{h} of a {width}x{height} picture"
            )
        aspect = Fraction(self.width, self.height) / pixel_aspect
        kept_w, kept_h = min(w, max(1, int(h * aspect))), min(h, max(1, int(w / aspect)))
        return x + (w - kept_w) // 2, y + (h - kept_h) // 2, kept_w, kept_h


def open_video(path: Path) -> av.container.InputContainer:
    """Open a video file and check that it has a video stream.

    Raises:
        Rejected: it is not a video, or has no video stream.
    """
    try:
        container = av.open(f"file:{path}", options=PLAIN_FILES, metadata_errors="replace")
    except (PermissionError, FileNotFoundError) as error:
        raise Rejected("unreadable", _words(error)) from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _rejected(error, "not a video") from error
    try:
        _check_stream(container)
    except Rejected:
        container.close()
        raise
    return container


def _check_stream(container: av.container.InputContainer) -> None:
    stream = video_stream(container)
    if stream is None:
        raise Rejected("no video stream", f"container {container.format.name}")
    if stream.codec_context is None:
        raise Rejected("no frame decodes", "FFmpeg has no decoder for its codec")
    if stream.width * stream.height > MOST_PIXELS:
        raise Rejected("too large", f"{stream.width}x{stream.height} pixels")
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # should it grow on the way


def video_stream(container: av.container.InputContainer) -> Any:
    """The first video stream of a file that is not a cover picture, or None."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def frame_rate(times: npt.NDArray[np.float64]) -> float:
    """Frames per second of a video, from its sorted timestamps in seconds.

    Where nearly all intervals are alike (constant frame rate, perhaps with a few frames dropped)
    it is one over their mean. Where they are not (variable frame rate) it is one over the
    90th percentile, so that sampling at this rate seldom meets a gap.

    Raises:
        Rejected: fewer than two different timestamps.
    """
    gaps = np.diff(times)
    gaps = gaps[gaps > 0]
    if not len(gaps):
        raise Rejected("too short", f"{len(times)} frame(s) with different timestamps")
    alike = gaps[np.abs(gaps - np.median(gaps)) <= REGULAR * np.median(gaps)]
    interval = alike.mean() if len(alike) >= 0.9 * len(gaps) else np.quantile(gaps, 0.9)
    return float(1 / interval)


def count_samples(times: npt.NDArray[np.float64], rate: float) -> int:
    """How many frames `at_equal_intervals` keeps of frames with these times (seconds, sorted)."""
    if not len(times):
        return 0
    positions = (times - times[0]) * rate
    ticks = np.ceil(positions - HALF)
    n = len(np.unique(ticks))
    before = positions[-2] if len(positions) > 1 else -math.inf
    return n if _reaches(ticks[-1], positions[-1], before) else n - 1


def at_equal_intervals(
    frames: Iterable[tuple[float, Item]], rate: float
) -> Iterator[tuple[float, Item]]:
    """Sample frames ``rate`` times a second, by their timestamps.

    Each frame belongs to the nearest tick of a clock that starts at the first frame; of the
    frames of one tick the nearest is kept. A frame is never given twice: a gap in the video stays
    a gap in the timestamps rather than becoming a picture that stands still. If the video ends
    before a last tick, no frame is kept for that one.

    Args:
        frames: (time in seconds, frame), times increasing.
        rate: ticks per second.

    Raises:
        Rejected: as ``frames`` does, after the last frame before.
    """
    start: float | None = None
    best: tuple[float, Item] | None = None
    best_tick, best_error = -1, math.inf
    position = before = -math.inf
    broken: Rejected | None = None
    try:
        for time, frame in frames:
            start = time if start is None else start
            before, position = position, (time - start) * rate
            tick = math.ceil(position - HALF)
            error = abs(position - tick)
            if tick != best_tick:
                if best is not None:
                    yield best
                best_tick, best_error, best = tick, error, (time, frame)
            elif error < best_error:
                best_error, best = error, (time, frame)
    except Rejected as rejected:  # the last frame before the damage is sound all the same
        broken = rejected
    if best is not None and _reaches(best_tick, position, before):
        yield best
    if broken is not None:
        raise broken


def _reaches(tick: float, last: float, before: float) -> bool:
    """Whether frames that end at ``last``, after ``before``, hold the one nearest to ``tick``.

    A next frame, as far on as the last from the one before, must not have been nearer.
    """
    return tick - last <= (last - before) / 2


def decode(
    path: Path, geometry: Geometry, rate: float
) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Decode a video at equal intervals of time.

    Args:
        path: the video file.
        geometry: crop and size.
        rate: frames to keep per second.

    Yields:
        the time of a frame in seconds, and the frame as (height, width, 3) uint8, RGB.

    Raises:
        Rejected: the file cannot be opened, or is damaged; ``truncated`` after sound frames.
    """
    with open_video(path) as container:
        scaler: _Scaler | None = None
        for time, frame in at_equal_intervals(timed_frames(container), rate):
            try:
                if scaler is None:
                    scaler = _Scaler(video_stream(container), frame, geometry)
                picture = scaler(frame)
            except av.error.FFmpegError as error:
                raise _rejected(error, "not to be converted") from error
            yield time, picture


def timed_frames(
    container: av.container.InputContainer,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """All sound frames of the first video stream with their times in seconds, increasing.

    Frames without a timestamp get one from the stream's rate; a frame that repeats or goes back in
    time is left out.

    Raises:
        Rejected: ``truncated``, with the number of sound frames before the damage.
    """
    stream = video_stream(container)
    stream.codec_context.thread_count = 1  # processes use the cores
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    n, last = 0, -math.inf
    try:
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise Rejected("truncated", f"at frame {n}: the frame is marked as corrupt")
            if (frame.width, frame.height) != (stream.width, stream.height):
                raise Rejected(
                    "truncated",
                    f"at frame {n}: the picture changes from {stream.width}x{stream.height} "
                    f"to {frame.width}x{frame.height}",
                )
            time = n / rate
            if frame.pts is not None and frame.time_base is not None:
                time = float(frame.pts * frame.time_base)
            n += 1
            if n > MOST_FRAMES:
                raise Rejected("too long", f"more than {MOST_FRAMES} frames")
            if time > last:
                last = time
                yield time, frame
    except (av.error.FFmpegError, ValueError) as error:
        raise _rejected(error, "truncated", f"at frame {n}: ") from error


class _Scaler:
    """Rotates, crops, scales and converts frames of one stream with one filter graph."""

    def __init__(self, stream: Any, frame: av.VideoFrame, geometry: Geometry) -> None:
        turns = _ROTATE.get(round(frame.rotation) % 360, [])
        turned = len(turns) == 1
        width, height = frame.width, frame.height
        aspect = stream.sample_aspect_ratio or SQUARE
        if turned:
            width, height, aspect = height, width, 1 / aspect
        x, y, w, h = geometry.box(width, height, aspect)
        filters = [("transpose", turn) for turn in turns]
        if frame.interlaced_frame:  # one field is one moment, a frame is two
            filters.insert(0, ("field", "top"))
            if turned:
                x, w = x // 2, max(1, w // 2)
            else:
                y, h = y // 2, max(1, h // 2)
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        filters += [
            ("crop", f"{w}:{h}:{x}:{y}:exact=1"),
            ("scale", f"{geometry.width}:{geometry.height}:flags=area+accurate_rnd+bitexact"),
            ("format", "pix_fmts=rgb24"),
            ("buffersink", ""),
        ]
        nodes = [self._graph.add_buffer(template=stream, time_base=stream.time_base)]
        nodes += [self._graph.add(name, arguments or None) for name, arguments in filters]
        self._graph.link_nodes(*nodes).configure()

    def __call__(self, frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
        self._graph.push(frame)
        scaled: Any = self._graph.pull()
        plane = scaled.planes[0]  # lines may be padded; the view keeps the frame alive
        lines = np.frombuffer(plane, np.uint8).reshape(scaled.height, plane.line_size)
        return lines[:, : 3 * scaled.width].reshape(scaled.height, scaled.width, 3)


def _rejected(error: Exception, reason: str, where: str = "") -> Rejected:
    if isinstance(error, MemoryError):  # a header that promises too much, or a full machine
        return Rejected("out of memory", _words(error))
    return Rejected(reason, where + _words(error))


def _words(error: Exception) -> str:
    """What FFmpeg says, without the path and the function that it puts around it."""
    return getattr(error, "strerror", None) or str(error)
