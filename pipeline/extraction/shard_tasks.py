"""Shards of a cache, written by a pool whose processes may fail, and nothing written twice.

Where shards hold several videos, each is extracted to a part, a file under ``.work/parts``; then
the parts of a shard are packed into it as they are.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py

from pipeline.cache import IncompleteDataset, Shard, shard_row, writing_shard
from pipeline.cache.in_progress import PARTS, CacheInProgress
from pipeline.common.errors import IntegrityError, Rejected
from pipeline.common.files import stamp_of
from pipeline.common.progress import Progress
from pipeline.common.versions import versions
from pipeline.extraction.clips import ClipMetadata, extract_clips, read_metadata
from pipeline.extraction.time_limits import BASE_SECONDS, seconds_to_decode
from pipeline.faces import model_of
from pipeline.settings import Settings
from pipeline.video.probe import Probe
from pipeline.workers.local import Pool

MIN_PACKING_SPEED = 1e6  # bytes per second; only a process that hangs is slower

Clips = dict[str, dict[str, ClipMetadata]]  # by video id and clip id, in order of time


@dataclass(frozen=True)
class VideoTask:
    """A video to extract, on any machine that sees the cache."""

    path: str
    video: Probe
    shard: str
    target: str  # file to write: the shard, or a part of it
    cache: str  # folder
    n_frames: int  # T
    settings: Settings
    recipe: str  # digest of everything that decides the clips' bytes
    model: bytes = field(default=b"", repr=False)  # file of the face detector

    @property
    def video_id(self) -> str:
        """Id of the video, and of its first clip."""
        return self.video.sha256[:16]

    @property
    def rate(self) -> float:
        """Sampling rate, in frames/s."""
        return self.settings.rate(self.video.fps)

    @property
    def n_clips(self) -> int:
        """Number of clips, if all of the video is sound."""
        return min(self.settings.clips, self.video.n_samples // self.n_frames)

    @property
    def time_limit(self) -> float:
        """Time limit in seconds; the queue starts with the longest."""
        n_samples = self.n_clips * self.n_frames
        n_decoded = math.ceil(n_samples * self.video.fps / self.rate)
        return BASE_SECONDS + seconds_to_decode(self.video, n_decoded) + n_samples


@dataclass(frozen=True)
class PackTask:
    """Parts to pack into their shard."""

    videos: tuple[VideoTask, ...]  # in the order of the shard
    seconds: dict[str, float]  # processing time by video id, where it is known

    @property
    def time_limit(self) -> float:
        """Time limit in seconds."""
        parts = [Path(video.cache, video.target) for video in self.videos]
        return BASE_SECONDS + sum(stamp_of(part)[0] for part in parts) / MIN_PACKING_SPEED


class WrittenFile(NamedTuple):
    """A shard or a part on disk."""

    row: Shard
    stamp: list[int]  # see `pipeline.common.files.stamp_of`
    clips: Clips
    seconds: dict[str, float]  # processing time by video id, where it is known


def assign_to_shards(
    videos: Mapping[str, Probe], settings: Settings
) -> dict[str, dict[str, Probe]]:
    """Distribute videos over shards, in an order that the seed and their bytes decide."""
    order = sorted(
        videos.items(),
        key=lambda item: hashlib.sha256(f"{settings.seed} {item[1].sha256}".encode()).digest(),
    )
    size = settings.videos_per_shard(len(order))
    shards: dict[str, dict[str, Probe]] = {}
    for n, (path, video) in enumerate(order):
        shards.setdefault(f"shards/{n // size:05}.h5", {})[path] = video
    return shards


def plan_shards(
    shards: Mapping[str, Mapping[str, Probe]],
    shard_size: int,
    n_frames: int,
    workspace: CacheInProgress,
    settings: Settings,
) -> dict[str, list[VideoTask]]:
    """Return the tasks of each shard."""
    model = model_of(settings.faces)
    return {
        shard: [
            VideoTask(
                path=path,
                video=video,
                shard=shard,
                target=shard if shard_size == 1 else f"{PARTS}/{video.sha256[:16]}.h5",
                cache=str(workspace.folder),
                n_frames=n_frames,
                settings=settings,
                recipe=workspace.recipe(video=video.sha256, n_frames=n_frames, versions=versions()),
                model=model,
            )
            for path, video in videos.items()
        ]
        for shard, videos in shards.items()
    }


def extract_shards(
    plan: Mapping[str, Sequence[VideoTask]], workspace: CacheInProgress, pool: Pool
) -> tuple[dict[str, WrittenFile], dict[str, Rejected]]:
    """Write all shards that an earlier run has not written; return them and the failed videos."""
    work = _RemainingWork(plan, workspace)
    n_videos = sum(isinstance(task, VideoTask) for task in work.queue)
    with Progress("extract", n_videos) as progress:
        for task, result in pool.run(run_task, work.queue, lambda task: task.time_limit):
            work.record(task, result)
            if isinstance(task, VideoTask):
                n_clips = 0 if isinstance(result, Rejected) else len(result.clips[task.video_id])
                progress.update(task.path, result, frames=n_clips * task.n_frames)
    return work.shards, work.rejected


class _RemainingWork:
    """Tasks to run, and the state of each shard; the workspace has notes of it."""

    def __init__(self, plan: Mapping[str, Sequence[VideoTask]], workspace: CacheInProgress) -> None:
        self.shards: dict[str, WrittenFile] = {}
        self.rejected: dict[str, Rejected] = {}
        self.queue: deque[VideoTask | PackTask] = deque()
        self._plan, self._workspace = plan, workspace
        self._seconds: dict[str, float] = {}  # processing time by video id
        self._pending: dict[str, int] = {}  # shard → videos that are neither written nor rejected
        for tasks in sorted(plan.values(), key=lambda tasks: -max(t.time_limit for t in tasks)):
            self._resume(tasks)

    def _resume(self, tasks: Sequence[VideoTask]) -> None:
        """Take over what an earlier run wrote of a shard, and queue the rest."""
        for task in tasks:
            note = self._workspace.note(task.path) or {}
            if note.get("broke_at") == task.n_frames:
                self.rejected[task.path] = Rejected(*note["broke"])
        tasks = [task for task in tasks if task.path not in self.rejected]
        if not tasks:
            return
        shard = tasks[0].shard
        if file := self._written(shard, tasks):
            self.shards[shard] = file
            return
        waiting = []
        for task in sorted(tasks, key=lambda task: -task.time_limit):
            if part := self._written(task.target, [task]):
                self._seconds |= part.seconds
            else:
                waiting.append(task)
        self._pending[shard] = len(waiting)
        self.queue.extend(waiting)
        if not waiting:
            self._queue_packing(shard)

    def _written(self, name: str, tasks: Sequence[VideoTask]) -> WrittenFile | None:
        """Return a file of an earlier run if it holds exactly these videos."""
        path = self._workspace.folder / name
        note = self._workspace.note(name)
        if note and note["stamp"] == stamp_of(path):
            if note["recipe"] != _recipe(tasks):
                return None
            row = Shard(name, note["stamp"][0], note["sha256"])
            return WrittenFile(row, note["stamp"], _read_clips(path), note.get("seconds", {}))
        if self._workspace.has_shard(name, _recipe(tasks)):  # a killed run left no note of it
            return _describe(self._workspace.folder, name, {})
        return None

    def record(self, task: VideoTask | PackTask, result: WrittenFile | Rejected) -> None:
        """Note the result of a task; after the last one of a shard, queue its packing."""
        if isinstance(task, PackTask):
            shard = task.videos[0].shard
            if isinstance(result, Rejected):
                raise IntegrityError(
                    f"{shard} could not be packed: {result.reason} {result.detail}",
                    "run the same command again",
                )
            for video in self._plan[shard]:
                if video.path in self.rejected:
                    self._note_failure(video)
            self._note_file(result, task.videos)
            for video in task.videos:
                (self._workspace.folder / video.target).unlink(missing_ok=True)
            return
        if isinstance(result, Rejected):
            self.rejected[task.path] = result
            if not result.temporary:
                self._note_failure(task)
        else:
            self._note_file(result, [task])
            self._seconds |= result.seconds
        self._pending[task.shard] -= 1
        if not self._pending[task.shard] and task.shard not in self.shards:
            self._queue_packing(task.shard)

    def _note_file(self, file: WrittenFile, tasks: Sequence[VideoTask]) -> None:
        note = {"recipe": _recipe(tasks), "stamp": file.stamp, "sha256": file.row.sha256}
        self._workspace.remember(file.row.name, note | {"seconds": file.seconds})
        if file.row.name in self._plan:
            self.shards[file.row.name] = file

    def _note_failure(self, task: VideoTask) -> None:
        """Let later runs leave the video out, unless its file or T changes."""
        if note := self._workspace.note(task.path):  # none in a repair, which ends with an error
            failure = {"broke_at": task.n_frames, "broke": self.rejected[task.path].args}
            self._workspace.remember(task.path, note | failure)

    def _queue_packing(self, shard: str) -> None:
        tasks = [task for task in self._plan[shard] if task.path not in self.rejected]
        ids = [task.video_id for task in tasks]
        seconds = {video: self._seconds[video] for video in ids if video in self._seconds}
        if tasks:
            self.queue.appendleft(PackTask(tuple(tasks), seconds))


def _recipe(tasks: Sequence[VideoTask]) -> str:
    """Return the digest of everything that decides the bytes of a file."""
    return hashlib.sha256("".join(task.recipe for task in tasks).encode()).hexdigest()


def _describe(cache: Path, name: str, seconds: dict[str, float]) -> WrittenFile:
    return WrittenFile(
        shard_row(cache, name), stamp_of(cache / name), _read_clips(cache / name), seconds
    )


def _read_clips(path: Path) -> Clips:
    clips: Clips = {}
    with h5py.File(path) as file:
        for clip_id in _clip_ids(file):
            video_id = clip_id.partition("-")[0]
            clips.setdefault(video_id, {})[clip_id] = read_metadata(file[clip_id])
    return clips


def _clip_ids(file: h5py.File) -> list[str]:
    """Return the ids of clips in order: ``ID``, ``ID-1``, ``ID-2``, ..."""

    def video_and_number(clip_id: str) -> tuple[str, int]:
        video_id, _, number = clip_id.partition("-")
        return video_id, int(number or 0)

    return sorted(file, key=video_and_number)


# ----------------------------------------------------------------------- in a process of the pool


def run_task(task: VideoTask | PackTask) -> WrittenFile:
    """Write the file of a task."""
    if isinstance(task, PackTask):
        _pack(task.videos)
        return _describe(Path(task.videos[0].cache), task.videos[0].shard, task.seconds)
    start = time.perf_counter()
    extract_video(task)
    seconds = round(time.perf_counter() - start, 3)
    return _describe(Path(task.cache), task.target, {task.video_id: seconds})


def extract_video(task: VideoTask) -> None:
    """Write the clips of one video to the task's target."""
    n_clips = task.n_clips
    while True:
        try:
            with writing_shard(
                Path(task.cache),
                task.target,
                attrs={"recipe": _recipe([task])},
                compression=task.settings.compression,
            ) as shard:
                clips = extract_clips(
                    Path(task.path),
                    shard,
                    task.video_id,
                    task.settings,
                    rate=task.rate,
                    n_frames=task.n_frames,
                    n_clips=n_clips,
                    model=task.model,
                )
            return
        except IncompleteDataset:  # a later clip broke off
            n_clips = len(clips)


def _pack(videos: Sequence[VideoTask]) -> None:
    folder = Path(videos[0].cache)
    with writing_shard(folder, videos[0].shard, attrs={"recipe": _recipe(videos)}) as shard:
        for video in videos:
            with h5py.File(folder / video.target) as file:
                clip_ids = _clip_ids(file)
            shard.copy(folder / video.target, clip_ids)
