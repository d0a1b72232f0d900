"""Extraction of a corpus: selection, shards, splits, index."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.cache import (
    TIMING,
    Cache,
    Clip,
    finished_cache,
    read_dataset,
    readable_cache,
    write_index,
)
from pipeline.cache.datacard import write_datacard
from pipeline.cache.in_progress import WORK, CacheInProgress, remove_work
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import NothingUsable, Rejected
from pipeline.common.versions import versions
from pipeline.corpus.labelled_video import Video
from pipeline.extraction.clips import ClipMetadata
from pipeline.extraction.repair import repair_cache
from pipeline.extraction.selection import Selection, select, tally
from pipeline.extraction.shard_tasks import (
    VideoTask,
    WrittenFile,
    assign_to_shards,
    extract_shards,
    plan_shards,
)
from pipeline.settings import Settings
from pipeline.splits.partition import groups
from pipeline.splits.protocols import split_clips
from pipeline.video.fingerprint import Thumbnails, same_footage
from pipeline.workers.local import LocalPool, Pool

STAGE = "extract"
MADE = f"{WORK}/made"  # videos made for a cache, until it is finished


@dataclass(frozen=True)
class MadeVideos:
    """Videos made from those of a corpus, to be extracted in their place."""

    videos: Sequence[Video]
    made_from: Mapping[str, str]  # path → that of the video it was made from
    rejected: Mapping[str, Rejected]  # of the corpus, by path


Make: TypeAlias = Callable[[Sequence[Video], Path, Pool], MadeVideos]  # into a folder; resumable


def extract(
    videos: Sequence[Video],
    folder: Path,
    settings: Settings,
    pool: Pool | None = None,
    make: Make | None = None,
) -> Cache:
    """Extract a corpus into a cache of frames and flow maps, or finish one that was begun.

    Args:
        videos: corpus, see `pipeline.corpus.reading.read_corpus`.
        pool: by default one process per core.
        make: makes the videos that are extracted, which are removed in the end; the settings must
            say how.

    Returns:
        finished cache; its ``rejected()`` lists every other file and the reason.

    Raises:
        NothingUsable: no video is left, or none of a label that the corpus has.
        SettingsError: the folder was begun with other settings or other videos.
        IntegrityError: shards are missing, and their videos or the libraries have changed.
    """
    if pool is None:
        with LocalPool() as pool:
            return extract(videos, folder, settings, pool, make)
    all_settings = dataclasses.asdict(settings) | {"corpus": _digest(videos)}
    if finished := finished_cache(folder, STAGE, all_settings):
        remove_work(folder)
        return finished
    with CacheInProgress(folder, all_settings) as workspace:
        made = MadeVideos(videos, {}, {})
        if make:
            made = make(videos, folder / MADE, pool)
        if incomplete := readable_cache(folder, STAGE):
            repair_cache(incomplete, workspace, settings, pool)
        else:
            selection = select(made.videos, workspace, settings, pool)
            selection.rejected.update(made.rejected)
            plan = plan_shards(
                assign_to_shards(selection.usable, settings),
                settings.videos_per_shard(len(selection.usable)),
                selection.n_frames,
                workspace,
                settings,
            )
            shards, failed = extract_shards(plan, workspace, pool)
            selection.rejected.update(failed)
            _write_cache(made, selection, plan, shards, workspace, settings)
    return Cache(folder, STAGE)


def _digest(videos: Sequence[Video]) -> str:
    digest = hashlib.sha256()
    for video in videos:
        values = [str(getattr(video, field.name)) for field in dataclasses.fields(video)]
        digest.update(json.dumps(values).encode())
    return f"{len(videos)} files, sha256 {digest.hexdigest()}"


def _write_cache(
    made: MadeVideos,
    selection: Selection,
    plan: Mapping[str, Sequence[VideoTask]],
    shards: Mapping[str, WrittenFile],
    workspace: CacheInProgress,
    settings: Settings,
) -> None:
    """Split the clips, and write the files beside the shards, the index last."""
    folder, rejected, videos = workspace.folder, selection.rejected, made.videos
    write_csv(
        folder / "rejected.csv",
        ["path", "reason", "detail"],
        [[path, rejected[path].reason, rejected[path].detail] for path in sorted(rejected)],
    )
    by_path = {str(video.path): video for video in videos}
    tasks = [
        task
        for shard in plan
        for task in plan[shard]
        if shard in shards and task.video_id in shards[shard].clips
    ]
    clips: list[Clip] = []
    hashes, timing = [], []
    for task in tasks:
        video = _with_copies(by_path[task.path], selection.copies.get(task.path, []))
        metadata = shards[task.shard].clips[task.video_id]
        clips += [_clip(clip_id, one, task, video) for clip_id, one in metadata.items()]
        hashes += [one.hashes for one in metadata.values()]
        if (seconds := shards[task.shard].seconds.get(task.video_id)) is not None:
            timing.append([task.video_id, len(metadata) * task.n_frames, seconds])
    labels = {video.label for video in videos}
    if {clip.label for clip in clips} != labels:
        needed = "real and fake ones are" if len(labels) > 1 else "at least one is"
        raise NothingUsable(
            f"{len(tasks)} of {len(videos)} files are usable, {needed} needed"
            f" ({tally(rejection.reason for rejection in rejected.values())})",
            f"{folder / 'rejected.csv'} says what is wrong with each",
        )

    def thumbnails(n: int) -> Thumbnails:
        return read_dataset(folder, clips[n].shard, clips[n].id, "thumbnails")

    clips = _with_footage(clips, same_footage(hashes, thumbnails))
    clips = split_clips(clips, settings.splitting)
    names = [[task.video_id, task.path] for task in tasks]
    header = ["id", "path"]
    if made.made_from:
        header.append("made_from")
        names = [[video, path, made.made_from.get(path, "")] for video, path in names]
    write_csv(folder / "names.csv", header, names)
    write_csv(folder / TIMING, ["id", "frames", "seconds"], timing)
    attrs: dict[str, str | int | float] = {
        "frames": selection.n_frames,
        "shard_size": settings.videos_per_shard(len(selection.usable)),
        "flow_backend": settings.flow_backend,
        "versions": versions(),
        "rejected": json.dumps(Counter(r.reason for r in rejected.values()), sort_keys=True),
    }
    write_datacard(folder, clips, extraction=workspace.settings, attrs=attrs)
    write_index(
        folder,
        stage=STAGE,
        settings=workspace.settings,
        attrs=attrs,
        clips=clips,
        shards=[shards[name].row for name in plan if name in shards],
    )
    workspace.finish(shards)


def _clip(clip_id: str, metadata: ClipMetadata, task: VideoTask, video: Video) -> Clip:
    return Clip(
        id=clip_id,
        video=task.video_id,
        label=video.label,
        split="",
        identities=video.identities,
        shard=task.shard,
        n_frames=task.n_frames,
        start=metadata.start,
        fps=task.video.fps,
        width=task.video.width,
        height=task.video.height,
        duration=task.video.duration,
        bit_rate=task.video.bit_rate,
        n_bytes=task.video.n_bytes,
        source_sha256=task.video.sha256,
        source=video.source,
        manipulation=video.manipulation,
        compression=video.compression,
        original=video.original,
        crop=",".join(map(str, metadata.crop)),
        face_share=metadata.face_share,
        n_faces=metadata.n_faces,
        camera_known=metadata.camera_known,
        given=video.given,
        official=video.official,
    )


def _with_copies(video: Video, copies: Sequence[Video]) -> Video:
    """Merge identities, splits and original of a video's copies into it."""
    files = [video, *copies]
    identities = [identity for file in files for identity in file.identities]
    return dataclasses.replace(
        video,
        identities=tuple(dict.fromkeys(identities)),
        given=next(filter(None, (file.given for file in files)), ""),
        original=next(filter(None, (file.original for file in files)), ""),
        official=next(filter(None, (file.official for file in files)), ""),
    )


def _with_footage(clips: Sequence[Clip], recordings: npt.NDArray[np.int64]) -> list[Clip]:
    """Set ``footage`` of clips whose recording, (N,), other videos show too."""
    numbers = groups(
        [(clip.video, f"recording {n}") for clip, n in zip(clips, recordings, strict=True)]
    ).tolist()
    videos: dict[int, set[str]] = {}
    for clip, number in zip(clips, numbers, strict=True):
        videos.setdefault(number, set()).add(clip.video)
    names = {n: f"footage:{min(ids)}" if len(ids) > 1 else "" for n, ids in videos.items()}
    return [
        dataclasses.replace(clip, footage=names[n]) for clip, n in zip(clips, numbers, strict=True)
    ]
