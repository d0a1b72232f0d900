"""Shards of a cache, written by a pool whose processes may fail, and nothing written twice.

One process extracts one video. If a shard holds a single video, that process writes the shard.
Otherwise each video goes to a part, a file of its own under ``.work/parts``, and once all parts of
a shard are there they are packed into it, compressed as they are.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from pipeline.cache import IncompleteDataset, Shard, shard_row, writing_shard
from pipeline.cache.in_progress import PARTS, CacheInProgress
from pipeline.common.errors import IntegrityError, Rejected
from pipeline.common.files import stamp_of
from pipeline.common.progress import Progress
from pipeline.common.versions import versions
from pipeline.extraction.clips import ClipMetadata, extract_clips, read_metadata
from pipeline.extraction.selection import BASE_SECONDS, seconds_to_decode
from pipeline.faces import model_of
from pipeline.settings import Settings
from pipeline.video.probe import Probe
from pipeline.workers.local import Pool

MIN_PACKING_SPEED = 1e6  # bytes per second; only a process that hangs is slower

Clips = dict[str, dict[str, ClipMetadata]]


class FinishedShard(NamedTuple):
    """A shard on disk.

    Attributes:
        row: its row in the index.
        clips: metadata by video id and clip id, in order of time.
        seconds: processing time by video id, of the videos for which it is known.
    """

    row: Shard
    clips: Clips
    seconds: dict[str, float]


@dataclass(frozen=True)
class VideoTask:
    """One video to extract; any process on any machine that sees the cache can do it.

    Attributes:
        path: video file.
        video: its metadata.
        shard: name of the shard that its clips belong to.
        target: name of the file to write: the shard, or a part of it.
        cache: folder of the cache.
        n_frames: T, frames of a clip.
        settings: of the cache.
        recipe: digest of everything that decides the clips' bytes.
        model: file of the face detector, if the settings ask for one.
    """

    path: str
    video: Probe
    shard: str
    target: str
    cache: str
    n_frames: int
    settings: Settings
    recipe: str
    model: bytes = field(default=b"", repr=False)

    @property
    def video_id(self) -> str:
        """Id of the video, and of its first clip."""
        return self.video.sha256[:16]

    @property
    def rate(self) -> float:
        """Sampling rate in frames per second."""
        return self.settings.rate(self.video.fps)

    @property
    def n_clips(self) -> int:
        """Number of clips, if all of the video is sound."""
        return min(self.settings.clips, self.video.n_samples // self.n_frames)

    @property
    def seconds(self) -> float:
        """Time limit; long videos are also started first."""
        n_samples = self.n_clips * self.n_frames
        n_decoded = math.ceil(n_samples * self.video.fps / self.rate)
        return BASE_SECONDS + seconds_to_decode(self.video, n_decoded) + n_samples


@dataclass(frozen=True)
class PackTask:
    """Parts to pack into their shard.

    Attributes:
        cache: folder of the cache.
        shard: name of the shard.
        recipe: digest of the recipes of its videos.
        parts: names of the parts, in the order of the shard.
        n_bytes: size of all parts.
    """

    cache: str
    shard: str
    recipe: str
    parts: tuple[str, ...]
    n_bytes: int

    @property
    def target(self) -> str:
        """Name of the file to write."""
        return self.shard

    @property
    def seconds(self) -> float:
        """Time limit."""
        return BASE_SECONDS + self.n_bytes / MIN_PACKING_SPEED


class WrittenFile(NamedTuple):
    """Result of a task.

    Attributes:
        stamp: size in bytes and modification time in ns.
        sha256: of a shard; empty for a part.
        clips: metadata by video id and clip id, in order of time.
        seconds: processing time.
    """

    stamp: list[int]
    sha256: str
    clips: Clips
    seconds: float


def assign_to_shards(
    videos: Mapping[str, Probe], settings: Settings
) -> dict[str, dict[str, Probe]]:
    """Distribute videos over shards, in an order that the seed and their bytes decide.

    Args:
        videos: metadata of the usable videos by path.
        settings: of the cache.

    Returns:
        metadata by name of the shard and path.
    """
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
    """Return the tasks of each shard by its name.

    Args:
        shards: metadata of the videos by name of their shard and path.
        shard_size: maximum number of videos in a shard; if 1, tasks write shards themselves.
        n_frames: T, frames of a clip.
        workspace: the cache.
        settings: of the cache.
    """
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
) -> tuple[dict[str, FinishedShard], dict[str, Rejected]]:
    """Write all shards that an earlier run has not written.

    The videos that take longest come first, so that none of them keeps a process busy at the end.

    Args:
        plan: tasks of each shard by its name, in the order of the shard.
        workspace: the cache.
        pool: runs the tasks.

    Returns:
        the shards by name, without those whose videos all failed; and the failed videos by path.
    """
    work = _RemainingWork(plan, workspace)
    n_videos = sum(isinstance(task, VideoTask) for task in work.queue)
    with Progress("extract", n_videos) as progress:
        for task, result in pool.run(run_task, work.queue, lambda task: task.seconds):
            work.record(task, result)
            if isinstance(task, VideoTask):
                n_clips = 0 if isinstance(result, Rejected) else len(result.clips[task.video_id])
                progress.update(task.path, result, frames=n_clips * task.n_frames)
    return work.shards, work.rejected


class _RemainingWork:
    """Tasks to run, and the state of each shard.

    The workspace has a note of each file that was written: its ``recipe``, ``stamp``, ``sha256``,
    the ``seconds`` of its videos, and the videos that are ``lost`` because they failed.
    """

    def __init__(self, plan: Mapping[str, Sequence[VideoTask]], workspace: CacheInProgress) -> None:
        self.shards: dict[str, FinishedShard] = {}
        self.rejected: dict[str, Rejected] = {}
        self.queue: deque[VideoTask | PackTask] = deque()
        self._plan, self._workspace = plan, workspace
        self._pending: dict[str, int] = {}  # shard → videos that are neither written nor rejected
        for tasks in sorted(plan.values(), key=lambda tasks: -max(t.seconds for t in tasks)):
            if not self._resume_shard(tasks):
                self._resume_videos(tasks)

    def _resume_shard(self, tasks: Sequence[VideoTask]) -> bool:
        """Take over a shard of an earlier run, if it holds these videos."""
        shard = tasks[0].shard
        path = self._workspace.folder / shard
        note = self._workspace.note(shard)
        if note and note["stamp"] == stamp_of(path):
            lost = {
                t.path: Rejected(*note["lost"][t.video_id])
                for t in tasks
                if t.video_id in note["lost"]
            }
            if note["recipe"] != _recipe([task for task in tasks if task.path not in lost]):
                return False
            self.rejected |= lost
        elif self._workspace.has_shard(shard, _recipe(tasks)):  # a killed run left no note of it
            sha256 = shard_row(self._workspace.folder, shard).sha256
            self._note(shard, _recipe(tasks), WrittenFile(stamp_of(path), sha256, {}, 0), {})
        else:
            return False
        self._add_shard(shard, _read_clips(path))
        return True

    def _resume_videos(self, tasks: Sequence[VideoTask]) -> None:
        """Take over the parts of an earlier run, and queue the other videos of a shard."""
        shard = tasks[0].shard
        waiting = []
        for task in sorted(tasks, key=lambda task: -task.seconds):
            history = self._workspace.note(task.path) or {}
            if history.get("broke_at") == task.n_frames:
                self.rejected[task.path] = Rejected(*history["broke"])
            elif not self._has_part(task):
                waiting.append(task)
        self._pending[shard] = len(waiting)
        self.queue.extend(waiting)
        if not waiting:
            self._queue_packing(shard)

    def _has_part(self, task: VideoTask) -> bool:
        note = self._workspace.note(task.target)
        return (
            note is not None
            and note["recipe"] == _recipe([task])
            and note["stamp"] == stamp_of(self._workspace.folder / task.target)
        )

    def record(self, task: VideoTask | PackTask, result: WrittenFile | Rejected) -> None:
        """Note the result of a task, and queue the packing of its shard if that is due."""
        if isinstance(task, PackTask):
            self._record_packing(task, result)
            return
        if isinstance(result, Rejected):
            self.rejected[task.path] = result
            if not result.temporary:
                note = self._workspace.note(task.path) or {}
                failure = {"broke_at": task.n_frames, "broke": [result.reason, result.detail]}
                self._workspace.remember(task.path, note | failure)
        else:
            self._note(task.target, _recipe([task]), result, {task.video_id: result.seconds})
            if task.target == task.shard:
                self._add_shard(task.shard, result.clips)
                return
        self._pending[task.shard] -= 1
        if not self._pending[task.shard]:
            self._queue_packing(task.shard)

    def _queue_packing(self, shard: str) -> None:
        tasks = [task for task in self._plan[shard] if task.path not in self.rejected]
        if tasks:
            folder = self._workspace.folder
            parts = tuple(task.target for task in tasks)
            n_bytes = sum(stamp_of(folder / part)[0] for part in parts)
            self.queue.appendleft(PackTask(str(folder), shard, _recipe(tasks), parts, n_bytes))

    def _record_packing(self, task: PackTask, result: WrittenFile | Rejected) -> None:
        if isinstance(result, Rejected):
            raise IntegrityError(
                f"{task.shard} could not be packed: {result.reason} {result.detail}",
                "run the same command again",
            )
        seconds: dict[str, float] = {}
        for part in task.parts:
            seconds |= self._workspace.note(part)["seconds"]
        failed = [video for video in self._plan[task.shard] if video.path in self.rejected]
        lost = {video.video_id: self.rejected[video.path].args for video in failed}
        self._note(task.shard, task.recipe, result, seconds, lost)
        for part in task.parts:
            (self._workspace.folder / part).unlink(missing_ok=True)
        self._add_shard(task.shard, result.clips)

    def _note(
        self,
        name: str,
        recipe: str,
        file: WrittenFile,
        seconds: Mapping[str, float],
        lost: Mapping[str, Any] | None = None,
    ) -> None:
        note = {"recipe": recipe, "stamp": file.stamp, "sha256": file.sha256}
        self._workspace.remember(name, note | {"seconds": seconds, "lost": lost or {}})

    def _add_shard(self, shard: str, clips: Clips) -> None:
        note = self._workspace.note(shard)
        row = Shard(shard, note["stamp"][0], note["sha256"])
        self.shards[shard] = FinishedShard(row, clips, note.get("seconds", {}))


def _recipe(tasks: Sequence[VideoTask]) -> str:
    """Return the digest that decides the bytes of a file with these videos."""
    return hashlib.sha256("".join(task.recipe for task in tasks).encode()).hexdigest()


def _read_clips(shard: Path) -> Clips:
    """Read the metadata of all clips of a shard, by video id and clip id, in order of time."""
    clips: Clips = {}
    with h5py.File(shard) as file:
        for clip_id in _clip_ids(file):
            video_id = clip_id.partition("-")[0]
            clips.setdefault(video_id, {})[clip_id] = read_metadata(file[clip_id])
    return clips


def _clip_ids(shard: h5py.File) -> list[str]:
    """Return the ids of a shard's clips: of each video ``ID``, ``ID-1``, ``ID-2``, ..."""

    def video_and_number(clip_id: str) -> tuple[str, int]:
        video_id, _, number = clip_id.partition("-")
        return video_id, int(number or 0)

    return sorted(shard, key=video_and_number)


# ----------------------------------------------------------------------- in a process of the pool


def run_task(task: VideoTask | PackTask) -> WrittenFile:
    """Write the file of a task.

    Raises:
        Rejected: the video cannot be used.
    """
    start = time.perf_counter()
    if isinstance(task, PackTask):
        _pack(task)
    else:
        extract_video(task)
    seconds = round(time.perf_counter() - start, 3)
    folder = Path(task.cache)
    path = folder / task.target
    sha256 = shard_row(folder, task.shard).sha256 if task.target == task.shard else ""
    return WrittenFile(stamp_of(path), sha256, _read_clips(path), seconds)


def extract_video(task: VideoTask) -> None:
    """Write the clips of one video to the task's target.

    Raises:
        Rejected: the video is damaged or too short, or has no suitable face.
    """
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
        except IncompleteDataset:  # a later clip broke off: the file must not hold a part of it
            n_clips = len(clips)


def _pack(task: PackTask) -> None:
    """Copy the clips of all parts into their shard."""
    folder = Path(task.cache)
    with writing_shard(folder, task.shard, attrs={"recipe": task.recipe}) as shard:
        for part in task.parts:
            with h5py.File(folder / part) as file:
                clip_ids = _clip_ids(file)
            shard.copy(folder / part, clip_ids)
