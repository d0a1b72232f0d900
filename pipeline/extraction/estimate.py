"""What an extraction would do, found out without writing anything."""

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
from pipeline.video.probe import probe, sampling_rate
from pipeline.workers.local import Pool

SAMPLED = 8  # videos that are looked into
FRAMES_TIMED = 24  # of each of them
NAMED = 10  # files that are no videos


@dataclass(frozen=True)
class _Timing:
    """What one video costs.

    Attributes:
        n_samples: frames that sampling gives, at most.
        probing: seconds to probe it.
        per_frame: seconds to decode a frame, compute its flow and compress both.
        bytes_per_frame: that are stored.
    """

    n_samples: int
    probing: float
    per_frame: float
    bytes_per_frame: float


def estimate_extraction(videos: Sequence[Video], settings: Settings, pool: Pool) -> str:
    """What extracting a corpus would do: what it holds, its splits, about how long and how much.

    Files are taken at their names: which are broken, and which show the same footage, only shows
    when they are decoded. A few videos are looked into for the estimate.

    Args:
        videos: as `pipeline.corpus.reading.read_corpus` gives them.
        settings: of the cache.
        pool: where the work runs, and would.

    Raises:
        SettingsError: the split that is asked for does not fit these videos.
    """
    usable = [v for v in videos if looks_like_video(v.path) and not v.leads_to]
    others = [v.path for v in videos if not looks_like_video(v.path) or v.leads_to]
    splits = split_videos(usable, [str(video.path) for video in usable], settings.splitting)
    unknown = sum(not video.identities for video in usable)
    parts = [
        "Nothing is written: this is what the same command would do without --dry-run.",
        by_kind(usable),
        f"{len(usable)} videos; {len(identities(usable))} identities, nobody is known in {unknown} "
        "videos",
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
    more = f", and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    listed = ", ".join(map(str, paths[:NAMED]))
    return f"rejected by their names, or as links that lead elsewhere, {len(paths)}: {listed}{more}"


def _estimate(videos: Sequence[Video], settings: Settings, pool: Pool) -> str:
    spread = np.unique(np.linspace(0, len(videos) - 1, SAMPLED).astype(int))
    paths = [videos[n].path for n in spread]
    timings, failed = [], []
    for path, result in pool.run(
        partial(_time, settings=settings, model=model_of(settings.faces)), paths
    ):
        if isinstance(result, Rejected):
            failed.append(f"{path} ({result.reason})")
        else:
            timings.append(result)
    looked = f"{len(paths)} videos were looked into"
    if failed:
        looked += f"; not usable: {', '.join(failed)}"
    if not timings:
        return f"{looked}. Nothing can be said of time and size."
    n_frames = settings.frames or min(timing.n_samples for timing in timings)
    clips = [min(settings.clips, timing.n_samples // n_frames) for timing in timings]
    frames = n_frames * float(np.mean(clips)) * len(videos)
    seconds = float(np.mean([timing.probing for timing in timings])) * len(videos)
    seconds += float(np.mean([timing.per_frame for timing in timings])) * frames
    size = float(np.mean([timing.bytes_per_frame for timing in timings])) * frames
    length = f"{n_frames} frames"
    if settings.frames is None:
        length = f"{n_frames} frames (the shortest of these; a shorter one would shorten all)"
    return (
        f"{looked}. With clips of {length}: about {_duration(seconds / pool.slots)} with "
        f"{pool.slots} processes, {readable_bytes(size)}"
    )


def _time(path: Path, settings: Settings, model: bytes) -> _Timing:
    start = time.perf_counter()
    video = probe(path, fps=settings.fps, stride=settings.stride)
    probed = time.perf_counter()
    needed = settings.frames or settings.min_frames
    if video.n_samples < needed:
        raise Rejected("too short", f"{video.n_samples} frames, {needed} are needed")
    n = min(video.n_samples, FRAMES_TIMED)
    file = io.BytesIO()
    with ShardWriter(file, compression=settings.compression) as shard:
        extract_clips(
            path,
            shard,
            "clip",
            settings.geometry,
            rate=sampling_rate(video.fps, settings.fps, settings.stride),
            n_frames=n,
            backend=settings.flow_backend,
            keep_frames=settings.keep_frames,
            stabilise=settings.stabilise,
            faces=settings.faces and replace(settings.faces, no_face="whole", several="largest"),
            model=model,
        )
    seconds = time.perf_counter() - probed
    return _Timing(video.n_samples, probed - start, seconds / n, len(file.getbuffer()) / n)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 2):.0f} seconds"
