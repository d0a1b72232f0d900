"""A corpus → a cache of clips: probe everything, agree on one length, extract, index."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline import farneback, workers
from pipeline.cache import (
    Cache,
    Clip,
    Compression,
    Shard,
    finished_cache,
    shard_clips,
    shard_row,
    write_csv,
    write_index,
    write_shard,
)
from pipeline.clips import extract_clips
from pipeline.corpus import Video, looks_like_video
from pipeline.decode import Box, Geometry
from pipeline.errors import NothingUsable, Rejected, SettingsError
from pipeline.probe import Probe, probe, sampling_rate, sound_samples
from pipeline.resume import CacheInProgress
from pipeline.splits import partition

STAGE = "extract"
SECONDS_PER_VIDEO = 3600.0  # a decoder that hangs is ended after this


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is in a cache, apart from the videos themselves."""

    width: int = 224
    height: int = 224
    crop: Box | None = None
    fps: float | None = None  # None: each video at its own rate
    stride: int = 1
    frames: int | None = None  # None: as many as the shortest sound video has
    min_frames: int = 16
    clips: int = 1
    flow_backend: farneback.Backend = "opencv"
    keep_frames: bool = True
    compression: Compression = "gzip"
    test: float = 0.2
    holdout: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 32:
            raise SettingsError(f"size {self.width}x{self.height}", "both sides need 32 or more")
        if self.frames is not None and self.frames < 2:
            raise SettingsError(f"{self.frames} frames", "flow needs at least 2")
        if self.crop is not None and (min(self.crop) < 0 or min(self.crop[2:]) < 1):
            raise SettingsError(f"crop {self.crop}", "give x,y,width,height in pixels")

    @property
    def geometry(self) -> Geometry:
        """Crop and size."""
        return Geometry(self.width, self.height, self.crop)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Settings":
        """Settings as a cache stores them."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        return cls(**known | {"crop": known["crop"] and tuple(known["crop"])})


@dataclass(frozen=True)
class _Task:
    """One video to be extracted, complete enough to be done by any process on any machine."""

    path: str
    clip_id: str
    shard: str
    cache: str
    rate: float
    n_frames: int
    settings: Settings
    digest: str


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
    corpus = [
        [str(video.path), video.label, ";".join(video.identities), video.split] for video in videos
    ]
    corpus_digest = hashlib.sha256(json.dumps(corpus).encode("utf-8", "surrogatepass")).hexdigest()
    everything = dataclasses.asdict(settings) | {
        "corpus": f"{len(videos)} files, sha256 {corpus_digest}"
    }
    if finished := finished_cache(folder, STAGE, everything):
        return finished
    with CacheInProgress(folder, everything) as work:
        probes, rejected = _probe_all(videos, work, settings, jobs)
        n_frames = settings.frames or _shortest_sound(probes, rejected, work, settings)
        tasks = _plan(probes, rejected, work, settings, n_frames)
        shards = _extract_all(tasks, rejected, work, jobs)
        _finish(videos, probes, rejected, tasks, shards, work, settings, n_frames)
    return Cache(folder, STAGE)


# -------------------------------------------------------------------------------------- probing


def _probe_all(
    videos: Sequence[Video], work: CacheInProgress, settings: Settings, jobs: int
) -> tuple[dict[str, Probe], dict[str, Rejected]]:
    """Probe every file not probed by an earlier run; both results are by path."""
    probes: dict[str, Probe] = {}
    rejected: dict[str, Rejected] = {}
    unknown = []
    for video in videos:
        path = str(video.path)
        if not looks_like_video(video.path):
            rejected[path] = Rejected("not a video", f"by its extension {video.path.suffix!r}")
        elif (known := work.notes.get(path)) and known["stamp"] == _stamp(video.path):
            _sort_in(path, known, probes, rejected)
        else:
            unknown.append(_ProbeTask(path, settings.fps, settings.stride))
    results = workers.run(_probe_one, unknown, jobs=jobs, timeout=SECONDS_PER_VIDEO)
    for task, result in _with_progress(results, "probe", len(unknown), rejected):
        note = _note(result) | {"stamp": _stamp(Path(task.path))}
        work.note(task.path, note)
        _sort_in(task.path, note, probes, rejected)
    _reject_duplicates(videos, probes, rejected)
    return dict(sorted(probes.items())), rejected


@dataclass(frozen=True)
class _ProbeTask:
    path: str
    fps: float | None
    stride: int


def _probe_one(task: _ProbeTask) -> Probe:
    return probe(Path(task.path), fps=task.fps, stride=task.stride)


def _stamp(path: Path) -> list[int]:
    """What tells that a file has changed since it was probed."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _note(result: Probe | Rejected) -> dict[str, Any]:
    if isinstance(result, Rejected):
        return {"rejected": [result.reason, result.detail]}
    return {"probe": dataclasses.asdict(result)}


def _sort_in(
    path: str, note: dict[str, Any], probes: dict[str, Probe], rejected: dict[str, Rejected]
) -> None:
    if "rejected" in note:
        rejected[path] = Rejected(*note["rejected"])
    else:
        probes[path] = Probe(**note["probe"])


def _reject_duplicates(
    videos: Sequence[Video], probes: dict[str, Probe], rejected: dict[str, Rejected]
) -> None:
    """Keep the first of files with the same bytes; none, where they disagree about the label."""
    first: dict[str, Video] = {}
    for video in videos:
        path = str(video.path)
        if path not in probes:
            continue
        other = first.setdefault(probes[path].sha256, video)
        if other is video:
            continue
        rejected[path] = Rejected("duplicate", f"same bytes as {other.path}")
        if other.label != video.label:
            rejected[path] = Rejected("duplicate", f"same bytes, other label than {other.path}")
            rejected[str(other.path)] = Rejected(
                "duplicate", f"same bytes, other label than {path}"
            )
    for path in rejected:
        probes.pop(path, None)


# ------------------------------------------------------------------------------------- planning


def _shortest_sound(
    probes: dict[str, Probe],
    rejected: dict[str, Rejected],
    work: CacheInProgress,
    settings: Settings,
) -> int:
    """T for the whole cache: the sampled frames of the shortest video that is sound to its end.

    Containers lie about their frames, so the shortest video is decoded before it decides. One
    that breaks, or ends before its container says, does not decide: it is kept if it turns out
    to have T sound frames all the same. A video under ``min_frames`` does not decide either.
    """
    for path in sorted(probes, key=lambda path: (probes[path].n_samples, path)):
        video = probes[path]
        if video.n_samples < settings.min_frames:
            rejected[path] = Rejected(
                "too short", f"{video.n_samples} frames, at least {settings.min_frames} are needed"
            )
            del probes[path]
        elif not video.short_of_promise:
            key = f"{path}\0sound"
            if key not in work.notes:
                rate = sampling_rate(video.fps, settings.fps, settings.stride)
                work.note(key, _count_sound(path, rate))
            if work.notes[key] >= settings.min_frames:
                return int(work.notes[key])
    raise NothingUsable(
        f"no sound video of {settings.min_frames} frames or more"
        f" ({_tally(rejected.values()) or 'all are truncated'})",
        "--min-frames allows shorter ones, --frames sets the length of a clip",
    )


@dataclass(frozen=True)
class _CountTask:
    path: str
    rate: float


def _count_one(task: _CountTask) -> int:
    return sound_samples(Path(task.path), task.rate)


def _count_sound(path: str, rate: float) -> int:
    """The sound frames of a video, 0 if it breaks off."""
    task = _CountTask(path, rate)
    for _, result in workers.run(_count_one, [task], jobs=1, timeout=SECONDS_PER_VIDEO):
        return 0 if isinstance(result, Rejected) else result
    return 0


def _plan(
    probes: dict[str, Probe],
    rejected: dict[str, Rejected],
    work: CacheInProgress,
    settings: Settings,
    n_frames: int,
) -> list[_Task]:
    """One task per video with enough frames, shuffled by the seed and their bytes."""
    tasks = []
    for path, video in probes.items():
        if video.n_samples < n_frames:
            rejected[path] = (
                Rejected(
                    "truncated",
                    f"at frame {video.n_packets} of {video.n_promised}, {n_frames} are needed",
                )
                if video.short_of_promise
                else Rejected("too short", f"{video.n_samples} frames, {n_frames} are needed")
            )
            continue
        tasks.append(
            _Task(
                path=path,
                clip_id=video.sha256[:16],
                shard="",
                cache=str(work.folder),
                rate=sampling_rate(video.fps, settings.fps, settings.stride),
                n_frames=n_frames,
                settings=settings,
                digest=work.digest,
            )
        )
    tasks.sort(key=lambda t: hashlib.sha256(f"{settings.seed} {t.clip_id}".encode()).digest())
    return [
        dataclasses.replace(task, shard=f"shards/{number:05}.h5")
        for number, task in enumerate(tasks)
    ]


# ----------------------------------------------------------------------------------- extracting


def _extract_all(
    tasks: Sequence[_Task], rejected: dict[str, Rejected], work: CacheInProgress, jobs: int
) -> dict[str, Shard]:
    """Do what an earlier run has not done; all shards by name."""
    shards: dict[str, Shard] = {}
    to_do = []
    for task in tasks:
        if broke := work.notes.get(f"{task.path}\0broke"):
            rejected[task.path] = Rejected(*broke)
        elif work.has_shard(task.shard):
            shards[task.shard] = shard_row(work.folder, task.shard)
        else:
            to_do.append(task)
    results = workers.run(_extract_one, to_do, jobs=jobs, timeout=SECONDS_PER_VIDEO)
    for task, result in _with_progress(results, "extract", len(to_do), rejected):
        if isinstance(result, Rejected):
            rejected[task.path] = result
            work.note(f"{task.path}\0broke", [result.reason, result.detail])
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
        task.clip_id if n == 0 else f"{task.clip_id}-{n}": clip.datasets(
            keep_frames=settings.keep_frames
        )
        for n, clip in enumerate(clips)
    }
    return write_shard(
        Path(task.cache),
        task.shard,
        arrays,
        attrs={"settings": task.digest},
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

    Yields:
        the position of a path and the name of its shard, or why there is none; in the order in
        which they are done.
    """
    tasks = [
        _NewTask(n, str(path), str(folder), settings, n_frames) for n, path in enumerate(paths)
    ]
    results = workers.run(
        _extract_new, tasks, jobs=jobs or workers.available_cores(), timeout=SECONDS_PER_VIDEO
    )
    for task, result in results:
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
        _Task(new.path, "video", shard, new.folder, rate, new.n_frames, settings, digest="")
    )
    return shard


def _with_progress(
    results: Iterable[tuple[Any, Any]], what: str, total: int, rejected: dict[str, Rejected]
) -> Iterator[tuple[Any, Any]]:
    with tqdm(
        results, desc=what, total=total, unit="video", disable=None, dynamic_ncols=True
    ) as bar:
        for item, result in bar:
            yield item, result
            bar.set_postfix(rejected=len(rejected), refresh=False)


# ------------------------------------------------------------------------------------- indexing


def _finish(
    videos: Sequence[Video],
    probes: dict[str, Probe],
    rejected: dict[str, Rejected],
    tasks: Sequence[_Task],
    shards: dict[str, Shard],
    work: CacheInProgress,
    settings: Settings,
    n_frames: int,
) -> None:
    """Split, and write what makes the folder a cache; the index comes last."""
    by_path = {str(video.path): video for video in videos}
    done = [task for task in tasks if task.path not in rejected]
    sources = [by_path[task.path] for task in done]
    write_csv(
        work.folder / "rejected.csv",
        ["path", "reason", "detail"],
        [[path, rejected[path].reason, rejected[path].detail] for path in sorted(rejected)],
    )
    if {video.label for video in sources} != {0, 1}:
        raise NothingUsable(
            f"{len(sources)} of {len(videos)} files are usable, real and fake ones are needed"
            f" ({_tally(rejected.values())})",
            f"{work.folder / 'rejected.csv'} says what is wrong with each",
        )
    splits = partition(
        [video.identities for video in sources],
        [video.label for video in sources],
        seed=settings.seed,
        test=settings.test,
        holdout=settings.holdout,
        fixed=[video.split for video in sources],
        names=[probes[task.path].sha256 for task in done],
    )
    clips = []
    for task, video, split in zip(done, sources, splits, strict=True):
        facts = probes[task.path]
        for clip_id, start in shard_clips(work.folder, task.shard):
            clips.append(
                Clip(
                    id=clip_id,
                    video=task.clip_id,
                    label=video.label,
                    split=split or "",
                    identities=video.identities,
                    shard=task.shard,
                    n_frames=n_frames,
                    start=start,
                    fps=facts.fps,
                    width=facts.width,
                    height=facts.height,
                    duration=facts.duration,
                    bit_rate=facts.bit_rate,
                    n_bytes=facts.n_bytes,
                    source_sha256=facts.sha256,
                )
            )
    write_csv(work.folder / "names.csv", ["id", "path"], [[t.clip_id, t.path] for t in done])
    write_index(
        work.folder,
        stage=STAGE,
        settings=work.settings,
        attrs={"frames": n_frames, "flow_backend": settings.flow_backend, "versions": versions()},
        clips=clips,
        shards=[shards[task.shard] for task in done],
    )
    work.finish()


def versions() -> str:
    """The versions of what decides the bytes of a cache, as JSON."""
    packages = ("deepfake-motion", "av", "numpy", "opencv-contrib-python", "h5py")
    return json.dumps({name: _version(name) for name in packages}, sort_keys=True)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _tally(rejected: Iterable[Rejected]) -> str:
    counts = Counter(r.reason for r in rejected)
    return ", ".join(f"{n} {reason}" for reason, n in counts.most_common())
