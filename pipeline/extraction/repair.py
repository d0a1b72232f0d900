"""A finished cache of which shards are missing, made whole: those, and nothing else, are remade."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.cache import Cache, Clip
from pipeline.cache.in_progress import CacheInProgress, remove_work
from pipeline.common.errors import IntegrityError, Rejected
from pipeline.common.versions import versions
from pipeline.extraction.selection import seconds_to_probe
from pipeline.extraction.shard_tasks import VideoTask, make_shards, video_task
from pipeline.faces import model_of
from pipeline.settings import Settings
from pipeline.video.probe import Probe, probe
from pipeline.workers.local import Pool

ANEW = "bring the old state back, or remove the folder and extract everything anew"


def repair_cache(cache: Cache, work: CacheInProgress, settings: Settings, pool: Pool) -> None:
    """Make the missing shards of a cache again. What the index says of them must come true.

    Args:
        cache: opened with ``whole=False``.
        work: the same folder.
        settings: of the cache.
        pool: where the work runs.

    Raises:
        IntegrityError: a video or a library is no longer the same, or a shard comes out otherwise.
    """
    if cache.attrs["versions"] != versions():
        raise IntegrityError(
            f"shards of {work.folder} are missing, and the libraries that made it were "
            f"{cache.attrs['versions']}, now {versions()}",
            "install those versions, or remove the folder and extract everything anew",
        )
    missing = set(cache.missing())
    videos: dict[str, list[Clip]] = {}
    for clip in cache.clips:
        if clip.shard in missing:
            videos.setdefault(clip.video, []).append(clip)
    plans: dict[str, list[VideoTask]] = {}
    model = model_of(settings.faces)
    for video_id, (path, video) in _probe(cache, videos, settings, pool).items():
        clips = videos[video_id]
        task = video_task(
            work,
            path,
            video,
            shard=clips[0].shard,
            alone=cache.attrs["shard_size"] == 1,
            settings=settings,
            n_frames=clips[0].n_frames,
            model=model,
        )
        plans.setdefault(task.shard, []).append(task)
    made, lost = make_shards(plans, work, pool)
    for name, why in lost.items():
        raise IntegrityError(f"{name} can no longer be extracted: {why}", ANEW)
    for shard in cache.shards:
        if shard.name in missing and made[shard.name].shard != shard:
            (work.folder / shard.name).unlink()
            raise IntegrityError(f"{work.folder / shard.name} did not come out as it was", ANEW)
    remove_work(work.folder)


def _probe(
    cache: Cache,
    videos: Mapping[str, Sequence[Clip]],
    settings: Settings,
    pool: Pool,
) -> dict[str, tuple[Path, Probe]]:
    """Where videos are, and what is known of them, by their ids, in the order given."""
    names = cache.names()
    paths = {Path(names[video]): video for video in videos}
    look = partial(probe, fps=settings.fps, stride=settings.stride)
    found: dict[str, tuple[Path, Probe]] = {}
    for path, result in pool.run(look, list(paths), seconds_to_probe):
        video = paths[path]
        if isinstance(result, Rejected) or result.sha256 != videos[video][0].source_sha256:
            raise IntegrityError(
                f"{path} is no longer what it was when {cache.folder} was made", ANEW
            )
        found[video] = (path, result)
    return {video: found[video] for video in videos}
