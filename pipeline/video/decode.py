"""Frames of a video at equal intervals of time."""

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from pipeline.common.errors import Rejected
from pipeline.video.resize import Geometry, Upright

Item = TypeVar("Item")

# Plain files of these formats, but no playlists that name other files or hosts.
PLAIN_FILES = {
    "protocol_whitelist": "file",
    "format_whitelist": "asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,"
    "mpegvideo,mxf,ogg,webm,yuv4mpegpipe",
}
# Without it, PyAV before version 19 fails on titles that are not UTF-8.
TITLE_OPTIONS: dict[str, Any] = {"metadata_errors": "replace"}
if int(av.__version__.split(".")[0]) >= 19:
    TITLE_OPTIONS = {}
# A file that claims more than any camera makes would fill the memory, or never end.
MAX_PIXELS = 2**26
MAX_FRAMES = 1_000_000
TICK_ROUNDING = 0.5 + 1e-6  # ticks; a frame half-way belongs to the earlier one
INTERVAL_TOLERANCE = 0.25  # of the median, within which intervals count as equal


class ScaledFrame(NamedTuple):
    """One frame of a video, scaled."""

    time: float  # seconds
    rgb: npt.NDArray[np.uint8]  # the part that a clip keeps, (height, width, 3)
    overview: npt.NDArray[np.uint8]  # the whole frame, (h, w) grey, see `Upright.overview_size`


def open_video(path: Path) -> av.container.InputContainer:
    """Open a video file that has a video stream, or raise `Rejected`."""
    try:
        container = av.open(f"file:{path}", options=PLAIN_FILES, **TITLE_OPTIONS)
    except (PermissionError, FileNotFoundError) as error:
        raise Rejected("unreadable", _message(error)) from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _rejected(error, "not a video") from error
    try:
        stream = video_stream(container)
        if stream is None:
            raise Rejected("no video stream", f"container {container.format.name}")
        if stream.codec_context is None:
            raise Rejected("no frame decodes", "FFmpeg has no decoder for its codec")
        if stream.width * stream.height > MAX_PIXELS:
            raise Rejected("too large", f"{stream.width}x{stream.height} pixels")
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # frames may grow later on
    except Rejected:
        container.close()
        raise
    return container


def video_stream(container: av.container.InputContainer) -> Any:
    """Return the first video stream that is not a cover picture, or None."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def frame_rate(times: npt.NDArray[np.float64]) -> float:
    """Return the frames per second of a video, from its sorted timestamps in seconds.

    With a variable frame rate it is one over the 90th percentile of the intervals, so that sampling
    at this rate seldom meets a gap; otherwise dropped frames do not count.

    Raises:
        Rejected: fewer than two different timestamps.

    Example:
        >>> round(frame_rate(np.array([0.0, 0.04, 0.08, 0.12, 0.16])), 6)
        25.0
    """
    gaps = np.diff(times)
    gaps = gaps[gaps > 0]
    if not len(gaps):
        raise Rejected("too short", f"{len(times)} frame(s) with different timestamps")
    regular = gaps[np.abs(gaps - np.median(gaps)) <= INTERVAL_TOLERANCE * np.median(gaps)]
    interval = regular.mean() if len(regular) >= 0.9 * len(gaps) else np.quantile(gaps, 0.9)
    return float(1 / interval)


def count_samples(times: npt.NDArray[np.float64], rate: float) -> int:
    """Count the frames that `at_equal_intervals` keeps, from all sorted times in seconds."""
    if not len(times):
        return 0
    positions = (times - times[0]) * rate
    ticks = np.ceil(positions - TICK_ROUNDING)
    n = len(np.unique(ticks))
    before = positions[-2] if len(positions) > 1 else -math.inf
    return n if _reaches(ticks[-1], positions[-1], before) else n - 1


def at_equal_intervals(
    frames: Iterable[tuple[float, Item]], rate: float
) -> Iterator[tuple[float, Item]]:
    """Sample pairs of time in seconds and frame ``rate`` times a second.

    Each frame belongs to the nearest tick of a clock that starts at the first frame; of the frames
    of one tick the nearest is kept. No frame is repeated: a gap in the video stays a gap. A last
    tick after the end has no frame.

    Example:
        >>> list(at_equal_intervals([(0.0, "a"), (0.04, "b"), (0.08, "c"), (0.12, "d")], rate=12.5))
        [(0.0, 'a'), (0.08, 'c')]
    """
    start: float | None = None
    best: tuple[float, Item] | None = None
    best_tick, best_error = -1, math.inf
    position = before = -math.inf
    damage: Rejected | None = None
    try:
        for time, frame in frames:
            start = time if start is None else start
            before, position = position, (time - start) * rate
            tick = math.ceil(position - TICK_ROUNDING)
            error = abs(position - tick)
            if tick != best_tick:
                if best is not None:
                    yield best
                best_tick, best_error, best = tick, error, (time, frame)
            elif error < best_error:
                best_error, best = error, (time, frame)
    except Rejected as rejected:  # the last frame before the damage is sound
        damage = rejected
    if best is not None and _reaches(best_tick, position, before):
        yield best
    if damage is not None:
        raise damage


def _reaches(tick: float, last: float, before: float) -> bool:
    """Return whether a next frame, after the same interval, would not be nearer to a tick."""
    return tick - last <= (last - before) / 2


@contextlib.contextmanager
def sampled(
    path: Path, rate: float
) -> Iterator[tuple[Upright, Iterator[tuple[float, av.VideoFrame]]]]:
    """Open a video, and sample its decoded frames with their times in seconds.

    Raises:
        Rejected: the file cannot be opened, or is damaged: ``truncated`` after sound frames,
            ``too short`` without any.
    """
    with open_video(path) as container:
        frames = at_equal_intervals(timed_frames(container), rate)
        first = next(frames, None)
        if first is None:
            raise Rejected("too short", "0 frames")
        yield Upright(video_stream(container), first[1]), itertools.chain([first], frames)


def scaled_frames(
    upright: Upright, frames: Iterable[tuple[float, av.VideoFrame]], geometry: Geometry
) -> Iterator[ScaledFrame]:
    """Crop and scale frames with their times; raise `Rejected` if that is not possible."""
    with converting():
        box = geometry.box(upright.width, upright.height, upright.pixel_aspect)
        scale = upright.scaler(box, geometry.width, geometry.height)
        scale_overview = upright.scaler(upright.whole, *upright.overview_size(), "gray")
    for time, frame in frames:
        with converting():
            scaled = ScaledFrame(time, scale(frame), scale_overview(frame))
        yield scaled


@contextlib.contextmanager
def converting() -> Iterator[None]:
    """Raise `Rejected` if FFmpeg cannot scale a frame."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise _rejected(error, "not to be converted") from error


def timed_frames(
    container: av.container.InputContainer,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield all sound frames whose times in seconds increase; at damage, `Rejected` says where."""
    stream = video_stream(container)
    stream.codec_context.thread_count = 1  # processes use the cores
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    n, last = 0, -math.inf
    first: av.VideoFrame | None = None
    try:
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise Rejected("truncated", f"at frame {n}: the frame is marked as corrupt")
            first = first or frame  # the stream's own width changes along with its frames
            if _shape(frame) != _shape(first):
                raise Rejected(
                    "truncated",
                    f"at frame {n}: the picture changes from {_shape(first)} to {_shape(frame)}",
                )
            time = n / rate
            if frame.pts is not None and frame.time_base is not None:
                time = float(frame.pts * frame.time_base)
            n += 1
            if n > MAX_FRAMES:
                raise Rejected("too long", f"more than {MAX_FRAMES} frames")
            if time > last:
                last = time
                yield time, frame
    except (av.error.FFmpegError, ValueError) as error:
        raise _rejected(error, "truncated", f"at frame {n}: ") from error


def _shape(frame: av.VideoFrame) -> str:
    return f"{frame.width}x{frame.height} {frame.format.name}"


def _rejected(error: Exception, reason: str, where: str = "") -> Rejected:
    if isinstance(error, MemoryError):  # a header may claim too much
        return Rejected("out of memory", _message(error))
    return Rejected(reason, where + _message(error))


def _message(error: Exception) -> str:
    """Return FFmpeg's message without path and function."""
    return getattr(error, "strerror", None) or str(error)
