"""Checks of a video file, and its metadata before it is decoded."""

import itertools
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from pipeline.common.errors import Rejected
from pipeline.common.files import sha256_of
from pipeline.video.decode import (
    MAX_FRAMES,
    count_samples,
    frame_rate,
    open_video,
    timed_frames,
    video_stream,
)

N_TRIED_FRAMES = 3  # to see whether the codec works at all
_MATROSKA_DURATION = re.compile(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d+)?)")  # 00:00:01.480000000
MAX_LOSS = 0.02  # of the promised frames; containers round, and count hidden frames


@dataclass(frozen=True, slots=True)
class Probe:
    """Metadata of a video, from its packets; frames may still be damaged."""

    sha256: str
    n_bytes: int
    width: int  # of the upright frame, in pixels
    height: int
    fps: float
    duration: float  # seconds
    bit_rate: float  # bits per second
    n_packets: int  # that will be shown
    n_promised: int  # frames that the container states, 0 if it states none
    n_samples: int  # upper bound on the frames that sampling at equal intervals will give

    @property
    def short_of_promise(self) -> bool:
        """Whether the file ends well before the end that its container states."""
        return self.n_packets < self.n_promised * (1 - MAX_LOSS) - 1


def probe(path: Path, rate: Callable[[float], float] = lambda own_rate: own_rate) -> Probe:
    """Read the metadata of a video, decoding only its first frames.

    ``rate`` returns the sampling rate for a video's own frame rate, as `Settings.rate` does.

    Raises:
        Rejected: not a video, no video stream, nothing decodes, too short, or as ``rate`` raises.
    """
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise Rejected("unreadable", getattr(error, "strerror", None) or str(error)) from error
    if not is_file:
        raise Rejected("unreadable", "not a plain file")
    with open_video(path) as container:
        first = _first_frame(container)
        rotated = round(first.rotation) % 180 != 0
        width, height = (first.height, first.width) if rotated else (first.width, first.height)
    with open_video(path) as container:
        times = np.sort(np.fromiter(packet_times(container), dtype=np.float64))  # (n_packets,)
        if len(times) < 2:
            raise Rejected("too short", f"{len(times)} frame(s)")
        own_rate = frame_rate(times)
        n_bytes = path.stat().st_size
        duration = float(times[-1] - times[0] + 1 / own_rate)
        return Probe(
            sha256=sha256_of(path),
            n_bytes=n_bytes,
            width=width,
            height=height,
            fps=own_rate,
            duration=duration,
            bit_rate=8 * n_bytes / duration,
            n_packets=len(times),
            n_promised=_promised_frames(container, own_rate),
            n_samples=count_samples(times, rate(own_rate)),
        )


def sound_samples(path: Path, rate: float) -> int:
    """Decode a whole video and count the frames that sampling gives, as `timed_frames` raises."""
    with open_video(path) as container:
        times = np.array([time for time, _ in timed_frames(container)])
    return count_samples(times, rate)


def _first_frame(container: Any) -> av.VideoFrame:
    frames = []
    try:
        for _, frame in itertools.islice(timed_frames(container), N_TRIED_FRAMES):
            frames.append(frame)
    except Rejected:
        if not frames:
            raise
    if not frames:
        raise Rejected("no frame decodes", f"codec {video_stream(container).codec_context.name}")
    return frames[0]


def packet_times(container: Any) -> Iterator[float]:
    """Yield the times in seconds of all packets that will be shown, in the order of the file."""
    stream = video_stream(container)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    packets = container.demux(stream)
    n = 0
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError, ValueError):
            return  # packets after the damage do not count
        if packet.size and not packet.is_discard:
            if n == MAX_FRAMES:
                raise Rejected("too long", f"more than {MAX_FRAMES} frames")
            yield float(packet.pts * packet.time_base) if packet.pts is not None else n / rate
            n += 1


def _promised_frames(container: Any, rate: float) -> int:
    stream = video_stream(container)
    if stream.frames:
        return int(stream.frames)
    seconds = 0.0
    if stream.duration:
        seconds = float(stream.duration * stream.time_base)
    elif tag := _MATROSKA_DURATION.fullmatch(stream.metadata.get("DURATION", "")):
        hours, minutes, rest = tag.groups()
        seconds = 3600 * int(hours) + 60 * int(minutes) + float(rest)
    elif container.duration and len(container.streams) == 1:
        seconds = container.duration / av.time_base
    return round(seconds * rate)
