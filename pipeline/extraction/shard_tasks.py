"""Videos → shards on disk: many processes, any of which may fail, and nothing done twice.

A video is extracted by one process. Where a shard holds one video, that process writes the shard.
Where it holds several, each is written to a file of its own under ``.work/parts``, and when the
last of them is there they are put together, compressed as they are.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from pipeline.cache import Shard, Unfilled, shard_row, writing_shard
from pipeline.cache.in_progress import PARTS, CacheInProgress
from pipeline.common.errors import IntegrityError, Rejected
from pipeline.common.files import stamp_of
from pipeline.common.progress import Progress
from pipeline.common.versions import versions
from pipeline.extraction.clips import ClipFacts, extract_clips
from pipeline.extraction.selection import SECONDS, seconds_to_decode
from pipeline.faces import Followed
from pipeline.settings import Settings
from pipeline.video.fingerprint import perceptual_hashes
from pipeline.video.probe import Probe, sampling_rate
from pipeline.video.resize import Box
from pipeline.workers.local import Pool

PACKED_PER_SECOND = 1e6  # bytes; so slow that only what hangs takes longer

Clips = dict[str, ClipFacts]


@dataclass(frozen=True)
class VideoTask:
    """One video to be extracted, complete enough to be done by any process on any machine."""

    path: str
    video_id: str
    shard: str
    target: str  # the file to write: the shard, or a part of it
    cache: str
    rate: float
    n_frames: int
    n_clips: int
    seconds: float  # that it may take; the more, the earlier it comes
    settings: Settings
    recipe: str
    model: bytes = field(default=b"", repr=False)  # the file of the detector of faces


@dataclass(frozen=True)
class PackTask:
    """Parts that are all there, to be put together."""

    cache: str
    shard: str
    recipe: str
    parts: tuple[tuple[str, tuple[str, ...]], ...]  # file and its clips
    n_bytes: int

    @property
    def seconds(self) -> float:
        """How long it may take."""
        return SECONDS + self.n_bytes / PACKED_PER_SECOND


class Made(NamedTuple):
    """A shard that is on disk.

    Attributes:
        shard: its row in the index.
        clips: video id → its clips by name.
        seconds: video id → how long a process was busy with it, of those that are known.
    """

    shard: Shard
    clips: dict[str, Clips]
    seconds: dict[str, float]


def make_shards(
    plans: dict[str, list[VideoTask]],
    work: CacheInProgress,
    pool: Pool,
) -> tuple[dict[str, Made], dict[str, Rejected]]:
    """Make all shards, of which an earlier run may have made some.

    The most expensive videos come first, so that no process works on one of them alone at the end.

    Args:
        plans: name of a shard → the videos in it, in their order.
        work: the cache.
        pool: where the work runs.

    Returns:
        shards by name (one whose videos all broke is not among them), and why videos are in none.
    """
    making = _Making(plans, work)
    with Progress("extract", making.n_videos) as progress:
        for task, result in pool.run(_do, making.waiting, lambda task: task.seconds):
            making.take(task, result)
            if isinstance(task, VideoTask):
                n_clips = 0 if isinstance(result, Rejected) else len(result["clips"])
                progress.update(task.path, result, frames=n_clips * task.n_frames)
    return making.made, making.lost


class _Making:
    """What is done, and what is to be done next."""

    def __init__(self, plans: dict[str, list[VideoTask]], work: CacheInProgress) -> None:
        self.made: dict[str, Made] = {}
        self.lost: dict[str, Rejected] = {}
        self.waiting: deque[VideoTask | PackTask] = deque()
        self._plans, self._work = plans, work
        self._missing: dict[str, set[str]] = {}  # shard → videos that are neither done nor lost
        self._parts: dict[str, dict[str, Clips]] = {}  # shard → video → its clips
        self._seconds: dict[str, float] = {}  # video → how long it took
        for tasks in sorted(plans.values(), key=lambda ts: -max(t.seconds for t in ts)):
            self._resume(tasks)
        self.n_videos = sum(isinstance(task, VideoTask) for task in self.waiting)

    def take(self, task: VideoTask | PackTask, result: dict[str, Any] | Rejected) -> None:
        """Take the result of a task, and add to what is waiting."""
        if isinstance(task, PackTask):
            if isinstance(result, Rejected):
                raise IntegrityError(
                    f"{task.shard} could not be put together: {result.reason} {result.detail}",
                    "run the same command again",
                )
            self._shard_is_there(self._plans[task.shard], result)
            return
        if isinstance(result, Rejected):
            self.lost[task.path] = result
            if not result.temporary:
                note = self._work.note(task.path) or {}
                broke = {"broke_at": task.n_frames, "broke": [result.reason, result.detail]}
                self._work.remember(task.path, note | broke)
        else:
            clips = {clip: _facts(*values) for clip, values in result["clips"].items()}
            self._parts[task.shard][task.video_id] = clips
            self._seconds[task.video_id] = result["seconds"]
            if task.target != task.shard:
                self._work.remember(task.target, result | {"recipe": task.recipe})
        self._missing[task.shard].discard(task.path)
        if self._missing[task.shard]:
            return
        if task.target == task.shard and not isinstance(result, Rejected):
            self._shard_is_there(self._plans[task.shard], result)
        else:
            self._pack(self._plans[task.shard])

    def _resume(self, tasks: list[VideoTask]) -> None:
        """See what an earlier run did of a shard; the rest waits."""
        shard = tasks[0].shard
        if self._is_made(tasks):
            return
        self._parts[shard], self._missing[shard] = {}, set()
        for task in sorted(tasks, key=lambda task: -task.seconds):
            known = self._work.note(task.path) or {}
            if known.get("broke_at") == task.n_frames:
                self.lost[task.path] = Rejected(*known["broke"])
                continue
            part = self._work.note(task.target) if task.target != shard else None
            if part and part["recipe"] == task.recipe and self._stands(task.target, part):
                clips = {clip: _facts(*values) for clip, values in part["clips"].items()}
                self._parts[shard][task.video_id] = clips
                if "seconds" in part:  # earlier versions did not note it
                    self._seconds[task.video_id] = part["seconds"]
            else:
                self._missing[shard].add(task.path)
                self.waiting.append(task)
        if not self._missing[shard]:
            self._pack(tasks)

    def _is_made(self, tasks: list[VideoTask]) -> bool:
        shard = tasks[0].shard
        note = self._work.note(shard)
        if note is None or not self._stands(shard, note):
            # Whoever made it left no note, or it was copied here: then its content must tell.
            if not self._work.has_shard(shard, _recipe(tasks)):
                return False
            self.made[shard] = Made(
                shard_row(self._work.folder, shard), _read_facts(self._work.folder, tasks), {}
            )
            return True
        there = [task for task in tasks if task.video_id in note["clips"]]
        if note["recipe"] != _recipe(there) or len(there) + len(note["lost"]) != len(tasks):
            return False
        self.lost |= {path: Rejected(*why) for path, why in note["lost"].items()}
        clips = {
            video: {clip: _facts(*values) for clip, values in its.items()}
            for video, its in note["clips"].items()
        }
        self.made[shard] = Made(
            Shard(shard, note["stamp"][0], note["sha256"]), clips, note.get("seconds", {})
        )
        return True

    def _stands(self, name: str, note: dict[str, Any]) -> bool:
        """Whether a file is as it was when it was noted, as far as its size and time tell."""
        return stamp_of(self._work.folder / name) == note["stamp"]

    def _pack(self, tasks: list[VideoTask]) -> None:
        shard = tasks[0].shard
        parts = self._parts[shard]
        there = [task for task in tasks if task.video_id in parts]
        if not there:
            return
        self.waiting.appendleft(
            PackTask(
                cache=str(self._work.folder),
                shard=shard,
                recipe=_recipe(there),
                parts=tuple((task.target, tuple(parts[task.video_id])) for task in there),
                n_bytes=sum(stamp_of(self._work.folder / task.target)[0] for task in there),
            )
        )

    def _shard_is_there(self, tasks: list[VideoTask], result: dict[str, Any]) -> None:
        shard = tasks[0].shard
        clips = self._parts.pop(shard)
        seconds = {video: self._seconds[video] for video in clips if video in self._seconds}
        note = {
            "recipe": _recipe([task for task in tasks if task.video_id in clips]),
            "stamp": result["stamp"],
            "sha256": result["sha256"],
            "clips": {video: _noted(its) for video, its in clips.items()},
            "seconds": seconds,
            "lost": {
                task.path: [self.lost[task.path].reason, self.lost[task.path].detail]
                for task in tasks
                if task.video_id not in clips
            },
        }
        self._work.remember(shard, note)
        for task in tasks:
            if task.target != shard:
                (self._work.folder / task.target).unlink(missing_ok=True)
        self.made[shard] = Made(Shard(shard, result["stamp"][0], result["sha256"]), clips, seconds)


def video_task(
    work: CacheInProgress,
    path: Path,
    video: Probe,
    *,
    shard: str,
    alone: bool,
    settings: Settings,
    n_frames: int,
    model: bytes = b"",
) -> VideoTask:
    """What is to be done with a video.

    Args:
        work: the cache.
        path: the video file.
        video: what is known of it.
        shard: where its clips belong.
        alone: whether they are all that the shard may hold.
        settings: of the cache.
        n_frames: T.
        model: the file of the detector of faces, if the settings ask for one.
    """
    n_clips = min(settings.clips, video.n_samples // n_frames)
    rate = sampling_rate(video.fps, settings.fps, settings.stride)
    n_decoded = math.ceil(n_clips * n_frames * video.fps / rate)
    video_id = video.sha256[:16]
    return VideoTask(
        path=str(path),
        video_id=video_id,
        shard=shard,
        target=shard if alone else f"{PARTS}/{video_id}.h5",
        cache=str(work.folder),
        rate=rate,
        n_frames=n_frames,
        n_clips=n_clips,
        seconds=SECONDS + seconds_to_decode(video, n_decoded) + n_clips * n_frames,
        settings=settings,
        recipe=work.recipe(video=video.sha256, n_frames=n_frames, versions=versions()),
        model=model,
    )


def _do(task: VideoTask | PackTask) -> dict[str, Any]:
    """Do a task in a process of its own; the result can be noted as JSON."""
    folder = Path(task.cache)
    if isinstance(task, PackTask):
        with writing_shard(folder, task.shard, attrs={"recipe": task.recipe}) as shard:
            for part, names in task.parts:
                shard.copy(folder / part, names)
        return {
            "stamp": stamp_of(folder / task.shard),
            "sha256": shard_row(folder, task.shard).sha256,
        }
    begun = time.perf_counter()
    clips = extract_video(task, task.n_clips)
    result = {
        "stamp": stamp_of(folder / task.target),
        "clips": _noted(clips),
        "seconds": round(time.perf_counter() - begun, 3),
    }
    if task.target == task.shard:
        result["sha256"] = shard_row(folder, task.target).sha256
    return result


def extract_video(task: VideoTask, n_clips: int) -> Clips:
    """Write the file of one video.

    Raises:
        Rejected: it is damaged or too short.
    """
    settings = task.settings
    clips: Clips = {}
    try:
        with writing_shard(
            Path(task.cache),
            task.target,
            attrs={"recipe": _recipe([task])},
            compression=settings.compression,
        ) as shard:
            clips = extract_clips(
                Path(task.path),
                shard,
                task.video_id,
                settings.geometry,
                rate=task.rate,
                n_frames=task.n_frames,
                n_clips=n_clips,
                backend=settings.flow_backend,
                keep_frames=settings.keep_frames,
                stabilise=settings.stabilise,
                faces=settings.faces,
                model=task.model,
            )
    except Unfilled:  # a later clip was begun and broke off; a file's bytes must not tell of it
        return extract_video(task, len(clips))
    return clips


def _recipe(tasks: Sequence[VideoTask]) -> str:
    """What a file with these videos is made of, as a digest."""
    return hashlib.sha256("".join(task.recipe for task in tasks).encode()).hexdigest()


def _noted(clips: Clips) -> dict[str, tuple[float, str, Box, float, int, float]]:
    return {
        name: (
            facts.start,
            facts.hashes.tobytes().hex(),
            facts.crop,
            facts.face_share,
            facts.n_faces,
            facts.camera_known,
        )
        for name, facts in clips.items()
    }


def _facts(
    start: float,
    hashes: str,
    crop: Sequence[int],
    face_share: float,
    n_faces: int,
    camera_known: float,
) -> ClipFacts:
    rows = np.frombuffer(bytes.fromhex(hashes), np.uint8).reshape(-1, 8)
    x, y, w, h = crop
    return ClipFacts(start, rows, (x, y, w, h), face_share, n_faces, camera_known)


def _read_facts(cache: Path, tasks: Sequence[VideoTask]) -> dict[str, Clips]:
    """What `extract_clips` said of these videos, from the shard itself."""
    found: dict[str, Clips] = {}
    with h5py.File(cache / tasks[0].shard) as file:
        for task in tasks:
            names = [n for n in file if n == task.video_id or n.startswith(f"{task.video_id}-")]
            found[task.video_id] = {
                name: _facts_of(file[name])
                for name in sorted(names, key=lambda name: file[name]["timestamps"][0])
            }
    return found


def _facts_of(clip: h5py.Group) -> ClipFacts:
    x, y, w, h = clip["crop"][:].tolist()
    face = Followed(clip["faces"][:]) if "faces" in clip else None
    return ClipFacts(
        float(clip["timestamps"][0]),
        perceptual_hashes(clip["thumbnails"][:]),
        (x, y, w, h),
        face.share if face else 0.0,
        face.n_faces if face else 0,
        1 - float(np.isnan(clip["camera"][:, 0]).sum()) / len(clip["camera"]),
    )
