"""Selection of the usable videos of a corpus and of T."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.cache.in_progress import CacheInProgress
from pipeline.common.errors import Rejected
from pipeline.common.files import stamp_of
from pipeline.common.progress import Progress
from pipeline.corpus.labelled_video import Video, looks_like_video
from pipeline.extraction.time_limits import seconds_to_decode, seconds_to_probe
from pipeline.settings import Settings
from pipeline.video.probe import Probe, probe, sound_samples
from pipeline.workers.local import Pool


@dataclass(frozen=True)
class Selection:
    """Result of probing a corpus; videos by path."""

    usable: dict[str, Probe]
    rejected: dict[str, Rejected]  # extraction adds to them
    n_frames: int  # T
    copies: dict[str, list[Video]]  # rejected ones, by the usable one


def select(
    videos: Sequence[Video], workspace: CacheInProgress, settings: Settings, pool: Pool
) -> Selection:
    """Probe all files that an earlier run has not probed, and decide on T."""
    usable, rejected = _probe_all(videos, workspace, settings, pool)
    copies = _reject_duplicates(videos, usable, rejected)
    n_frames = settings.frames
    if n_frames is None:
        _reject_short(settings.min_frames, usable, rejected)
        n_frames = _shortest_length(usable, workspace, settings, pool)
    if n_frames == 0:
        for path in usable:
            rejected[path] = Rejected("truncated", "and no sound video says how long a clip is")
        usable = {}
    _reject_short(n_frames, usable, rejected)
    return Selection(usable, rejected, n_frames, copies)


def not_to_be_opened(videos: Iterable[Video]) -> dict[str, Rejected]:
    """Return the files, by path, that are no videos by their extension, and links out."""
    rejected = {}
    for video in videos:
        if not looks_like_video(video.path):
            detail = f"by its extension {video.path.suffix!r}"
            rejected[str(video.path)] = Rejected("not a video", detail)
        if video.leads_to:
            detail = f"a link to {video.leads_to}"
            rejected[str(video.path)] = Rejected("outside the corpus", detail)
    return rejected


def tally(reasons: Iterable[str]) -> str:
    """Return how often each reason occurs."""
    return ", ".join(f"{n} {reason}" for reason, n in Counter(reasons).most_common())


def _probe_all(
    videos: Sequence[Video], workspace: CacheInProgress, settings: Settings, pool: Pool
) -> tuple[dict[str, Probe], dict[str, Rejected]]:
    rejected = not_to_be_opened(videos)
    paths = [video.path for video in videos if str(video.path) not in rejected]
    new = [
        path
        for path in paths
        if (note := workspace.note(str(path))) is None or note["stamp"] != stamp_of(path)
    ]
    new.sort(key=lambda path: stamp_of(path)[0], reverse=True)  # the longest first
    with Progress("probe", len(new)) as progress:
        for path, result in pool.run(partial(probe, rate=settings.rate), new, seconds_to_probe):
            note = {"stamp": stamp_of(path)}
            if not isinstance(result, Rejected):
                workspace.remember(str(path), note | {"probe": dataclasses.asdict(result)})
            elif result.temporary:
                rejected[str(path)] = result
            else:
                reason = {"rejected": [result.reason, result.detail]}
                workspace.remember(str(path), note | reason)
            progress.update(str(path), result)
    usable = {}
    for name in map(str, paths):
        if name in rejected:
            continue
        note = workspace.note(name)
        if "rejected" in note:
            rejected[name] = Rejected(*note["rejected"])
        else:
            usable[name] = Probe(**note["probe"])
    return usable, rejected


def _reject_duplicates(
    videos: Sequence[Video], usable: dict[str, Probe], rejected: dict[str, Rejected]
) -> dict[str, list[Video]]:
    """Keep the first copy, or none if their labels differ; return the others."""
    first: dict[str, Video] = {}  # by sha256
    copies: dict[str, list[Video]] = {}
    for video in videos:
        path = str(video.path)
        if path not in usable:
            continue
        original = first.setdefault(usable[path].sha256, video)
        if original is video:
            continue
        copies.setdefault(str(original.path), []).append(video)
        rejected[path] = Rejected("duplicate", f"same bytes as {original.path}")
        if original.label != video.label:
            rejected[path] = Rejected("duplicate", f"same bytes, other label than {original.path}")
            rejected[str(original.path)] = Rejected(
                "duplicate", f"same bytes, other label than {path}"
            )
    for path in rejected:
        usable.pop(path, None)
    return copies


def _reject_short(n_frames: int, usable: dict[str, Probe], rejected: dict[str, Rejected]) -> None:
    for path, video in list(usable.items()):
        if video.n_samples >= n_frames:
            continue
        del usable[path]
        if video.short_of_promise:
            rejected[path] = Rejected(
                "truncated",
                f"at frame {video.n_packets} of {video.n_promised}, {n_frames} are needed",
            )
        else:
            rejected[path] = Rejected(
                "too short", f"{video.n_samples} frames, {n_frames} are needed"
            )


def _shortest_length(
    usable: dict[str, Probe], workspace: CacheInProgress, settings: Settings, pool: Pool
) -> int:
    """Return T, the number of sampled frames of the shortest sound video, or 0.

    Containers may state too many frames, so it is decoded. If it breaks off, the next one decides;
    it is still extracted if it has T sound frames.
    """
    for path in sorted(usable, key=lambda path: (usable[path].n_samples, path)):
        if usable[path].short_of_promise:
            continue
        note = workspace.note(path)
        if "sound" not in note:
            note |= {"sound": _count_sound(Path(path), usable[path], settings, pool)}
            workspace.remember(path, note)
        if note["sound"] >= settings.min_frames:
            return int(note["sound"])
    return 0


def _count_sound(path: Path, video: Probe, settings: Settings, pool: Pool) -> int:
    seconds = seconds_to_probe(path) + seconds_to_decode(video)
    count = partial(sound_samples, rate=settings.rate(video.fps))
    [(_, n_samples)] = pool.run(count, [path], lambda path: seconds)
    return 0 if isinstance(n_samples, Rejected) else n_samples
