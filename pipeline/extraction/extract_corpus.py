"""A corpus → a cache of clips: select, extract, split, index."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

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
from pipeline.cache.in_progress import CacheInProgress, remove_work
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import NothingUsable
from pipeline.common.versions import versions
from pipeline.corpus.labelled_video import Video
from pipeline.extraction.repair import repair_cache
from pipeline.extraction.selection import Selection, select, tally
from pipeline.extraction.shard_tasks import Made, VideoTask, make_shards, video_task
from pipeline.faces import model_of
from pipeline.settings import Settings
from pipeline.splits.partition import groups
from pipeline.splits.protocols import split_clips
from pipeline.video.fingerprint import Pictures, same_footage
from pipeline.workers.local import LocalPool, Pool

STAGE = "extract"


def extract(
    videos: Sequence[Video],
    folder: Path,
    settings: Settings,
    pool: Pool | None = None,
) -> Cache:
    """Make a cache of frame stacks and flow maps, or finish one that was begun.

    Args:
        videos: as `pipeline.corpus.reading.read_corpus` gives them.
        folder: of the cache.
        settings: of the cache.
        pool: where the work runs; by default a process per core of this machine.

    Returns:
        the finished cache; ``cache.rejected()`` has every file that is not in it, and why.

    Raises:
        NothingUsable: no real or no fake video is left.
        SettingsError: the folder was begun with other settings or other videos.
        IntegrityError: shards are missing, and their videos or the libraries are no longer the
            same.
    """
    if pool is None:
        with LocalPool() as pool:
            return extract(videos, folder, settings, pool)
    everything = dataclasses.asdict(settings) | {"corpus": _digest(videos)}
    if finished := finished_cache(folder, STAGE, everything):
        remove_work(folder)
        return finished
    with CacheInProgress(folder, everything) as work:
        if begun := readable_cache(folder, STAGE):
            repair_cache(begun, work, settings, pool)
        else:
            selection = select(videos, work, settings, pool)
            plans = _plans(selection, work, settings)
            made, lost = make_shards(plans, work, pool)
            selection.rejected.update(lost)
            _finish(videos, selection, plans, made, work, settings)
    return Cache(folder, STAGE)


def _digest(videos: Sequence[Video]) -> str:
    digest = hashlib.sha256()
    for video in videos:
        known = [str(getattr(video, field.name)) for field in dataclasses.fields(video)]
        digest.update(json.dumps(known).encode())
    return f"{len(videos)} files, sha256 {digest.hexdigest()}"


def _plans(
    selection: Selection, work: CacheInProgress, settings: Settings
) -> dict[str, list[VideoTask]]:
    """All usable videos, shuffled by the seed and their bytes, by the shard that they go into."""
    order = sorted(
        selection.usable.items(),
        key=lambda item: hashlib.sha256(f"{settings.seed} {item[1].sha256}".encode()).digest(),
    )
    size = settings.videos_per_shard(len(order))
    plans: dict[str, list[VideoTask]] = {}
    model = model_of(settings.faces)
    for n, (path, video) in enumerate(order):
        shard = f"shards/{n // size:05}.h5"
        task = video_task(
            work,
            Path(path),
            video,
            shard=shard,
            alone=size == 1,
            settings=settings,
            n_frames=selection.n_frames,
            model=model,
        )
        plans.setdefault(shard, []).append(task)
    return plans


def _finish(
    videos: Sequence[Video],
    selection: Selection,
    plans: Mapping[str, Sequence[VideoTask]],
    made: Mapping[str, Made],
    work: CacheInProgress,
    settings: Settings,
) -> None:
    """Split, and write what makes the folder a cache; the index comes last."""
    rejected = selection.rejected
    by_path = {str(video.path): video for video in videos}
    done = [
        (task, made[shard].clips[task.video_id])
        for shard, tasks in plans.items()
        for task in tasks
        if shard in made and task.video_id in made[shard].clips
    ]
    sources = [
        _with_copies(by_path[task.path], selection.copies.get(task.path, [])) for task, _ in done
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
    clips, hashes = [], []
    for (task, its_clips), video in zip(done, sources, strict=True):
        facts = selection.usable[task.path]
        for clip_id, of_clip in its_clips.items():
            hashes.append(of_clip.hashes)
            clips.append(
                Clip(
                    id=clip_id,
                    video=task.video_id,
                    label=video.label,
                    split="",
                    identities=video.identities,
                    shard=task.shard,
                    n_frames=selection.n_frames,
                    start=of_clip.start,
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
                    crop=",".join(map(str, of_clip.crop)),
                    face_share=of_clip.face_share,
                    n_faces=of_clip.n_faces,
                    camera_known=of_clip.camera_known,
                    given=video.given,
                    official=video.official,
                )
            )

    def pictures_of(n: int) -> Pictures:
        return read_dataset(work.folder, clips[n].shard, clips[n].id, "thumbnails")

    clips = split_clips(_with_footage(clips, same_footage(hashes, pictures_of)), settings.splitting)
    write_csv(work.folder / "names.csv", ["id", "path"], [[t.video_id, t.path] for t, _ in done])
    write_csv(
        work.folder / TIMING,
        ["id", "frames", "seconds"],
        [
            [task.video_id, len(its_clips) * selection.n_frames, seconds]
            for task, its_clips in done
            if (seconds := made[task.shard].seconds.get(task.video_id)) is not None
        ],
    )
    attrs: dict[str, str | int | float] = {
        "frames": selection.n_frames,
        "shard_size": settings.videos_per_shard(sum(map(len, plans.values()))),
        "flow_backend": settings.flow_backend,
        "versions": versions(),
        "rejected": json.dumps(Counter(r.reason for r in rejected.values()), sort_keys=True),
    }
    write_datacard(work.folder, clips, extraction=work.settings, attrs=attrs)
    write_index(
        work.folder,
        stage=STAGE,
        settings=work.settings,
        attrs=attrs,
        clips=clips,
        shards=[made[shard].shard for shard in plans if shard in made],
    )
    work.finish(made)


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
