"""Time limits of one video, which only a hanging process exceeds."""

from pathlib import Path

from pipeline.common.files import stamp_of
from pipeline.video.probe import Probe

BASE_SECONDS = 120.0
MIN_READING_SPEED = 1e6  # bytes per second
SECONDS_PER_MEGAPIXEL = 0.5


def seconds_to_probe(path: Path) -> float:
    """Return the time limit of a probe."""
    return BASE_SECONDS + stamp_of(path)[0] / MIN_READING_SPEED


def seconds_to_decode(video: Probe, n_frames: int | None = None) -> float:
    """Return the time limit for decoding a video or its start."""
    n_frames = video.n_packets if n_frames is None else min(n_frames, video.n_packets)
    return n_frames * SECONDS_PER_MEGAPIXEL * max(video.width * video.height / 1e6, 0.1)
