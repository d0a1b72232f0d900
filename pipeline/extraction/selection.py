"""Which videos can be used, and how long every clip will be."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.cache.in_progress import CacheInProgress
from pipeline.common.errors import Rejected
from pipeline.common.files import stamp_of
from pipeline.common.progress import Progress
from pipeline.corpus.labelled_video import Video, looks_like_video
from pipeline.settings import Settings
from pipeline.video.probe import Probe, probe, sampling_rate, sound_samples
from pipeline.workers.local import Pool

# What a very slow disk reads in a second, and a very slow decoder needs for a million pixels.
SECONDS, BYTES_PER_SECOND, SECONDS_PER_MEGAPIXEL = 120.0, 1e6, 0.5


@dataclass(frozen=True)
class Selection:
    """What probing came to.

    Attributes:
        usable: path → what is known of a video that seems to have ``n_frames``.
        rejected: path → why a file is not usable; extraction adds those that break.
        n_frames: T, the length of every clip.
        copies: path of a usable video → others with the same bytes, which are rejected.
    """

    usable: dict[str, Probe]
    rejected: dict[str, Rejected]
    n_frames: int
    copies: dict[str, list[Video]]


def select(
    videos: Sequence[Video],
    work: CacheInProgress,
    settings: Settings,
    pool: Pool,
) -> Selection:
    """Probe every file that an earlier run has not probed, and agree on T."""
    probes, rejected = _probe_all(videos, work, settings, pool)
    copies = _reject_duplicates(videos, probes, rejected)
    n_frames = settings.frames
    if n_frames is None:
        _reject_under(settings.min_frames, probes, rejected)
        n_frames = _shortest_sound(probes, work, settings, pool)
    if n_frames == 0:
        for path in probes:
            rejected[path] = Rejected("truncated", "and no sound video says how long a clip is")
        probes = {}
    _reject_under(n_frames, probes, rejected)
    return Selection(probes, rejected, n_frames, copies)


def tally(rejected: Iterable[Rejected]) -> str:
    """How many files were rejected for which reason, in words."""
    counts = Counter(r.reason for r in rejected)
    return ", ".join(f"{n} {reason}" for reason, n in counts.most_common())


def _probe_all(
    videos: Sequence[Video],
    work: CacheInProgress,
    settings: Settings,
    pool: Pool,
) -> tuple[dict[str, Probe], dict[str, Rejected]]:
    rejected = {
        str(video.path): Rejected("not a video", f"by its extension {video.path.suffix!r}")
        for video in videos
        if not looks_like_video(video.path)
    }
    rejected |= {
        str(video.path): Rejected("outside the corpus", f"a link to {video.leads_to}")
        for video in videos
        if video.leads_to
    }
    paths = [video.path for video in videos if str(video.path) not in rejected]
    unknown = [path for path in paths if not _still_holds(path, work.note(str(path)))]
    unknown.sort(key=lambda path: stamp_of(path)[0], reverse=True)  # the longest first
    look = partial(probe, fps=settings.fps, stride=settings.stride)
    with Progress("probe", len(unknown)) as progress:
        for path, result in pool.run(look, unknown, seconds_to_probe):
            if isinstance(result, Rejected) and result.temporary:
                rejected[str(path)] = result
            else:
                work.remember(str(path), _note(path, result))
            progress.update(str(path), result)
    probes = {}
    for name in map(str, paths):
        if name in rejected:
            continue
        note = work.note(name)
        if "rejected" in note:
            rejected[name] = Rejected(*note["rejected"])
        else:
            probes[name] = Probe(**note["probe"])
    return probes, rejected


def _note(path: Path, result: Probe | Rejected) -> dict[str, Any]:
    if isinstance(result, Rejected):
        return {"stamp": stamp_of(path), "rejected": [result.reason, result.detail]}
    return {"stamp": stamp_of(path), "probe": dataclasses.asdict(result)}


def _still_holds(path: Path, note: dict[str, Any] | None) -> bool:
    return note is not None and note["stamp"] == stamp_of(path)


def _reject_duplicates(
    videos: Sequence[Video], probes: dict[str, Probe], rejected: dict[str, Rejected]
) -> dict[str, list[Video]]:
    """Keep the first of files with the same bytes; none, where they disagree about the label.

    Returns the others by the path of the first.
    """
    first: dict[str, Video] = {}
    copies: dict[str, list[Video]] = {}
    for video in videos:
        path = str(video.path)
        if path not in probes:
            continue
        other = first.setdefault(probes[path].sha256, video)
        if other is video:
            continue
        copies.setdefault(str(other.path), []).append(video)
        rejected[path] = Rejected("duplicate", f"same bytes as {other.path}")
        if other.label != video.label:
            rejected[path] = Rejected("duplicate", f"same bytes, other label than {other.path}")
            rejected[str(other.path)] = Rejected(
                "duplicate", f"same bytes, other label than {path}"
            )
    for path in rejected:
        probes.pop(path, None)
    return copies


def _reject_under(n_frames: int, probes: dict[str, Probe], rejected: dict[str, Rejected]) -> None:
    for path, video in list(probes.items()):
        if video.n_samples < n_frames:
            del probes[path]
            rejected[path] = Rejected(
                "too short", f"{video.n_samples} frames, {n_frames} are needed"
            )
            if video.short_of_promise:
                rejected[path] = Rejected(
                    "truncated",
                    f"at frame {video.n_packets} of {video.n_promised}, {n_frames} are needed",
                )


def _shortest_sound(
    probes: dict[str, Probe], work: CacheInProgress, settings: Settings, pool: Pool
) -> int:
    """T for the whole cache: the sampled frames of the shortest video that is sound to its end.

    Containers lie about their frames, so the shortest video is decoded before it decides. One
    that breaks, or ends before its container says, does not decide: it is kept if it turns out to
    have T sound frames all the same. 0 if no video decides.
    """
    for path in sorted(probes, key=lambda path: (probes[path].n_samples, path)):
        if probes[path].short_of_promise:
            continue
        note = work.note(path)
        if "sound" not in note:
            rate = sampling_rate(probes[path].fps, settings.fps, settings.stride)
            seconds = seconds_to_probe(Path(path)) + seconds_to_decode(probes[path])
            note = note | {"sound": _count_sound(Path(path), rate, seconds, pool)}
            work.remember(path, note)
        if note["sound"] >= settings.min_frames:
            return int(note["sound"])
    return 0


def _count_sound(path: Path, rate: float, seconds: float, pool: Pool) -> int:
    """The sound frames of a video, 0 if it breaks off."""
    count = partial(sound_samples, rate=rate)
    for _, result in pool.run(count, [path], lambda path: seconds):
        return 0 if isinstance(result, Rejected) else result
    return 0


def seconds_to_probe(path: Path) -> float:
    """How long probing a file may take: so long that only what hangs meets it."""
    return SECONDS + stamp_of(path)[0] / BYTES_PER_SECOND


def seconds_to_decode(video: Probe, n_frames: int | None = None) -> float:
    """How long decoding all frames of a video, or so many, may take, likewise."""
    n_frames = video.n_packets if n_frames is None else min(n_frames, video.n_packets)
    return n_frames * SECONDS_PER_MEGAPIXEL * max(video.width * video.height / 1e6, 0.1)
