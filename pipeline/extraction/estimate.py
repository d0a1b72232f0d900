"""Estimate of an extraction's time and space."""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.cache import ShardWriter
from pipeline.common.errors import Rejected
from pipeline.common.files import readable_bytes
from pipeline.corpus.labelled_video import Video, looks_like_video
from pipeline.corpus.tables import by_kind, by_split, identities
from pipeline.extraction.clips import extract_clips
from pipeline.faces import model_of
from pipeline.settings import Settings
from pipeline.splits.protocols import split_videos
from pipeline.video.probe import probe
from pipeline.workers.local import Pool

MAX_VIDEOS_TIMED = 8
MAX_FRAMES_TIMED = 24  # per video
MAX_FILES_LISTED = 10  # that are no videos


@dataclass(frozen=True)
class _Cost:
    n_samples: int  # maximum number of sampled frames
    probing: float  # seconds
    per_frame: float  # seconds to decode it, to compute its flow and to compress both
    bytes_per_frame: float


def estimate_extraction(videos: Sequence[Video], settings: Settings, pool: Pool) -> str:
    """Describe a corpus, its splits, and the time and space that its extraction needs."""
    usable = [v for v in videos if looks_like_video(v.path) and not v.leads_to]
    others = [v.path for v in videos if not looks_like_video(v.path) or v.leads_to]
    splits = split_videos(usable, [str(video.path) for video in usable], settings.splitting)
    n_unknown = sum(not video.identities for video in usable)
    parts = [
        "Nothing is written: this is what the same command would do without --dry-run.",
        by_kind(usable),
        f"{len(usable)} videos; {len(identities(usable))} identities, nobody is known in "
        f"{n_unknown} videos",
        _rejected_by_name(others),
        by_split(usable, splits),
        "Broken files, copies and the same footage under other names show when videos are decoded; "
        "the real split leaves them out or keeps them together.",
        _estimate(usable, settings, pool),
    ]
    return "\n\n".join(part for part in parts if part)


def _rejected_by_name(paths: Sequence[Path]) -> str:
    if not paths:
        return ""
    n_more = len(paths) - MAX_FILES_LISTED
    more = f", and {n_more} more" if n_more > 0 else ""
    listed = ", ".join(map(str, paths[:MAX_FILES_LISTED]))
    return f"rejected by their names, or as links that lead elsewhere, {len(paths)}: {listed}{more}"


def _estimate(videos: Sequence[Video], settings: Settings, pool: Pool) -> str:
    spread = np.unique(np.linspace(0, len(videos) - 1, MAX_VIDEOS_TIMED).astype(int))
    paths = [videos[n].path for n in spread]
    measure = partial(_measure, settings=settings, model=model_of(settings.faces))
    costs: list[_Cost] = []
    failed = []
    for path, result in pool.run(measure, paths):
        if isinstance(result, Rejected):
            failed.append(f"{path} ({result.reason})")
        else:
            costs.append(result)
    basis = f"{len(paths)} videos were looked into"
    if failed:
        basis += f"; not usable: {', '.join(failed)}"
    if not costs:
        return f"{basis}. Nothing can be said of time and size."
    n_frames = settings.frames or min(cost.n_samples for cost in costs)
    n_clips = [min(settings.clips, cost.n_samples // n_frames) for cost in costs]
    total_frames = n_frames * float(np.mean(n_clips)) * len(videos)
    seconds = float(np.mean([cost.probing for cost in costs])) * len(videos)
    seconds += float(np.mean([cost.per_frame for cost in costs])) * total_frames
    size = float(np.mean([cost.bytes_per_frame for cost in costs])) * total_frames
    length = f"{n_frames} frames"
    if settings.frames is None:
        length += " (the shortest of these; a shorter one would shorten all)"
    return (
        f"{basis}. With clips of {length}: about {_duration(seconds / pool.slots)} with "
        f"{pool.slots} processes, {readable_bytes(size)}"
    )


def _measure(path: Path, settings: Settings, model: bytes) -> _Cost:
    start = time.perf_counter()
    video = probe(path, settings.rate)
    probed = time.perf_counter()
    needed = settings.frames or settings.min_frames
    if video.n_samples < needed:
        raise Rejected("too short", f"{video.n_samples} frames, {needed} are needed")
    if settings.faces is not None:  # a clip without a suitable face costs the same
        any_face = replace(settings.faces, no_face="whole", several="largest")
        settings = replace(settings, crop=any_face)
    n = min(video.n_samples, MAX_FRAMES_TIMED)
    file = io.BytesIO()
    with ShardWriter(file, compression=settings.compression) as shard:
        rate = settings.rate(video.fps)
        extract_clips(path, shard, "clip", settings, rate=rate, n_frames=n, model=model)
    seconds = time.perf_counter() - probed
    return _Cost(video.n_samples, probed - start, seconds / n, len(file.getbuffer()) / n)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 2):.0f} seconds"
