"""A corpus → a cache of clips: select, extract, split, index."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import farneback, workers
from pipeline.cache import (
    Cache,
    Clip,
    Shard,
    finished_cache,
    shard_clips,
    shard_row,
    write_index,
    write_shard,
)
from pipeline.clips import extract_clips
from pipeline.corpus import Video
from pipeline.datacard import write_datacard
from pipeline.errors import NothingUsable, Rejected
from pipeline.files import write_csv
from pipeline.footage import same_footage
from pipeline.planning import Selection, select, tally
from pipeline.probe import probe, sampling_rate
from pipeline.resplitting import split_clips
from pipeline.resume import CacheInProgress, remove_work
from pipeline.settings import Settings
from pipeline.splits import groups

STAGE = "extract"


@dataclass(frozen=True)
class _Task:
    """One video to be extracted, complete enough to be done by any process on any machine."""

    path: str
    video_id: str
    shard: str
    cache: str
    rate: float
    n_frames: int
    settings: Settings
    recipe: str


def extract(
    videos: Sequence[Video], folder: Path, settings: Settings, *, jobs: int | None = None
) -> Cache:
    """Make a cache of frame stacks and flow maps, or finish one that was begun.

    Args:
        videos: as `pipeline.corpus.read_corpus` gives them.
        folder: of the cache.
        settings: of the cache.
        jobs: processes; by default one per core.

    Returns:
        the finished cache; ``cache.rejected()`` has every file that is not in it, and why.

    Raises:
        NothingUsable: no real or no fake video is left.
        SettingsError: the folder was begun with other settings or other videos.
    """
    jobs = jobs or workers.available_cores()
    corpus = [[*map(str, dataclasses.astuple(video))] for video in videos]
    corpus_digest = hashlib.sha256(json.dumps(corpus).encode("utf-8", "surrogatepass")).hexdigest()
    everything = dataclasses.asdict(settings) | {
        "corpus": f"{len(videos)} files, sha256 {corpus_digest}"
    }
    if finished := finished_cache(folder, STAGE, everything):
        remove_work(folder)
        return finished
    with CacheInProgress(folder, everything) as work:
        selection = select(videos, work, settings, jobs)
        tasks = _tasks(selection, work, settings)
        shards = _extract_all(tasks, selection, work, jobs)
        _finish(videos, selection, tasks, shards, work, settings)
    return Cache(folder, STAGE)


def _tasks(selection: Selection, work: CacheInProgress, settings: Settings) -> list[_Task]:
    """One task per usable video, shuffled by the seed and the videos' bytes."""
    order = sorted(
        selection.usable.items(),
        key=lambda item: hashlib.sha256(f"{settings.seed} {item[1].sha256}".encode()).digest(),
    )
    return [
        _Task(
            path=path,
            video_id=video.sha256[:16],
            shard=f"shards/{number:05}.h5",
            cache=str(work.folder),
            rate=sampling_rate(video.fps, settings.fps, settings.stride),
            n_frames=selection.n_frames,
            settings=settings,
            recipe=work.recipe(
                video=video.sha256, n_frames=selection.n_frames, versions=_versions()
            ),
        )
        for number, (path, video) in enumerate(order)
    ]


def _extract_all(
    tasks: Sequence[_Task], selection: Selection, work: CacheInProgress, jobs: int
) -> dict[str, Shard]:
    """Do what an earlier run has not done; all shards by name."""
    shards: dict[str, Shard] = {}
    to_do = []
    for task in tasks:
        note = work.notes[task.path]
        if note.get("broke_at") == task.n_frames:
            selection.rejected[task.path] = Rejected(*note["broke"])
        elif work.has_shard(task.shard, task.recipe):
            shards[task.shard] = shard_row(work.folder, task.shard)
        else:
            to_do.append(task)
    for task, result in workers.run(_extract_one, to_do, jobs=jobs, title="extract"):
        if isinstance(result, Rejected):
            selection.rejected[task.path] = result
            if result.passing:
                continue
            broke = {"broke_at": task.n_frames, "broke": [result.reason, result.detail]}
            work.note(task.path, work.notes[task.path] | broke)
        else:
            shards[task.shard] = result
    return shards


def _extract_one(task: _Task) -> Shard:
    settings = task.settings
    clips = extract_clips(
        Path(task.path),
        settings.geometry,
        rate=task.rate,
        n_frames=task.n_frames,
        n_clips=settings.clips,
        backend=settings.flow_backend,
    )
    arrays = {
        task.video_id if n == 0 else f"{task.video_id}-{n}": clip.datasets(
            keep_frames=settings.keep_frames
        )
        for n, clip in enumerate(clips)
    }
    return write_shard(
        Path(task.cache),
        task.shard,
        arrays,
        attrs={"recipe": task.recipe},
        compression=settings.compression,
    )


def extract_new(
    paths: Sequence[Path],
    folder: Path,
    settings: Settings,
    n_frames: int,
    *,
    jobs: int | None = None,
) -> Iterator[tuple[int, str | Rejected]]:
    """Extract single videos outside any corpus, each into a shard of its own.

    Args:
        paths: video files.
        folder: where ``shards/`` is made.
        settings: of the cache that the videos are to be compared with.
        n_frames: T of that cache.
        jobs: processes; by default one per core.

    Raises:
        SettingsError: the flow backend of that cache is not on this machine.

    Yields:
        the position of a path and the name of its shard, or why there is none; in the order in
        which they are done.
    """
    settings = dataclasses.replace(settings, flow_backend=farneback.stand_in(settings.flow_backend))
    tasks = [
        _NewTask(n, str(path), str(folder), settings, n_frames) for n, path in enumerate(paths)
    ]
    jobs = jobs or workers.available_cores()
    for task, result in workers.run(_extract_new, tasks, jobs=jobs):
        yield task.number, result


@dataclass(frozen=True)
class _NewTask:
    number: int
    path: str
    folder: str
    settings: Settings
    n_frames: int


def _extract_new(new: _NewTask) -> str:
    settings = new.settings
    video = probe(Path(new.path), fps=settings.fps, stride=settings.stride)
    if video.n_samples < new.n_frames:
        raise Rejected("too short", f"{video.n_samples} frames, {new.n_frames} are needed")
    rate = sampling_rate(video.fps, settings.fps, settings.stride)
    shard = f"shards/{new.number:05}.h5"
    _extract_one(
        _Task(new.path, "video", shard, new.folder, rate, new.n_frames, settings, recipe="")
    )
    return shard


def _finish(
    videos: Sequence[Video],
    selection: Selection,
    tasks: Sequence[_Task],
    shards: dict[str, Shard],
    work: CacheInProgress,
    settings: Settings,
) -> None:
    """Split, and write what makes the folder a cache; the index comes last."""
    rejected = selection.rejected
    by_path = {str(video.path): video for video in videos}
    done = [task for task in tasks if task.path not in rejected]
    sources = [
        _with_copies(by_path[task.path], selection.copies.get(task.path, [])) for task in done
    ]
    write_csv(
        work.folder / "rejected.csv",
        ["path", "reason", "detail"],
        [[path, rejected[path].reason, rejected[path].detail] for path in sorted(rejected)],
    )
    if {video.label for video in sources} != {0, 1}:
        raise NothingUsable(
            f"{len(sources)} of {len(videos)} files are usable, real and fake ones are needed"
            f" ({tally(rejected.values())})",
            f"{work.folder / 'rejected.csv'} says what is wrong with each",
        )
    clips, pictures = [], []
    for task, video in zip(done, sources, strict=True):
        facts = selection.usable[task.path]
        for clip_id, start, thumbnails in shard_clips(work.folder, task.shard):
            pictures.append(thumbnails)
            clips.append(
                Clip(
                    id=clip_id,
                    video=task.video_id,
                    label=video.label,
                    split="",
                    identities=video.identities,
                    shard=task.shard,
                    n_frames=selection.n_frames,
                    start=start,
                    fps=facts.fps,
                    width=facts.width,
                    height=facts.height,
                    duration=facts.duration,
                    bit_rate=facts.bit_rate,
                    n_bytes=facts.n_bytes,
                    source_sha256=facts.sha256,
                    source=video.source,
                    manipulation=video.manipulation,
                    compression=video.compression,
                    original=video.original,
                    given=video.given,
                    official=video.official,
                )
            )
    clips = split_clips(_with_footage(clips, same_footage(pictures)), settings.splitting)
    write_csv(work.folder / "names.csv", ["id", "path"], [[t.video_id, t.path] for t in done])
    attrs: dict[str, str | int | float] = {
        "frames": selection.n_frames,
        "flow_backend": settings.flow_backend,
        "versions": _versions(),
        "rejected": json.dumps(Counter(r.reason for r in rejected.values()), sort_keys=True),
    }
    write_datacard(work.folder, clips, extraction=work.settings, attrs=attrs)
    write_index(
        work.folder,
        stage=STAGE,
        settings=work.settings,
        attrs=attrs,
        clips=clips,
        shards=[shards[task.shard] for task in done],
    )
    work.finish(shards)


def _with_copies(video: Video, copies: Sequence[Video]) -> Video:
    """A video with all that is known of files with the same bytes."""
    everything = [video, *copies]
    identities = [identity for known in everything for identity in known.identities]
    return dataclasses.replace(
        video,
        identities=tuple(dict.fromkeys(identities)),
        given=next(filter(None, (known.given for known in everything)), ""),
        original=next(filter(None, (known.original for known in everything)), ""),
        official=next(filter(None, (known.official for known in everything)), ""),
    )


def _with_footage(clips: Sequence[Clip], recording: npt.NDArray[np.int64]) -> list[Clip]:
    """Clips that know with which other videos they show the same recording, if with any."""
    shown = groups(
        [(clip.video, f"recording {n}") for clip, n in zip(clips, recording, strict=True)]
    ).tolist()
    videos: dict[int, set[str]] = {}
    for clip, number in zip(clips, shown, strict=True):
        videos.setdefault(number, set()).add(clip.video)
    names = {n: f"footage:{min(same)}" if len(same) > 1 else "" for n, same in videos.items()}
    return [
        dataclasses.replace(clip, footage=names[n]) for clip, n in zip(clips, shown, strict=True)
    ]


def _versions() -> str:
    """The versions of what decides the bytes of a cache, as JSON."""
    packages = ("deepfake-motion", "av", "numpy", "opencv-contrib-python", "h5py")
    return json.dumps({name: _version(name) for name in packages}, sort_keys=True)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
