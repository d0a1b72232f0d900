"""Repair of a finished cache that lacks shards."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pipeline.cache import Cache, Clip
from pipeline.cache.in_progress import CacheInProgress, remove_work
from pipeline.common.errors import IntegrityError, Rejected
from pipeline.common.versions import versions
from pipeline.extraction.shard_tasks import extract_shards, plan_shards
from pipeline.extraction.time_limits import seconds_to_probe
from pipeline.settings import Settings
from pipeline.video.probe import Probe, probe
from pipeline.workers.local import Pool

START_ANEW = "bring the old state back, or remove the folder and extract everything anew"


def repair_cache(cache: Cache, workspace: CacheInProgress, settings: Settings, pool: Pool) -> None:
    """Extract missing shards again, and fail unless they get the bytes that the index states."""
    if cache.attrs["versions"] != versions():
        raise IntegrityError(
            f"shards of {workspace.folder} are missing, and the libraries that made it were "
            f"{cache.attrs['versions']}, now {versions()}",
            "install those versions, or remove the folder and extract everything anew",
        )
    missing = set(cache.missing())
    first_clips: dict[str, Clip] = {}  # by video, in the order of the shards
    for clip in cache.clips:
        if clip.shard in missing:
            first_clips.setdefault(clip.video, clip)
    shards: dict[str, dict[str, Probe]] = {}
    for video_id, (path, video) in _probe(cache, first_clips, settings, pool).items():
        shards.setdefault(first_clips[video_id].shard, {})[path] = video
    plan = plan_shards(
        shards, int(cache.attrs["shard_size"]), int(cache.attrs["frames"]), workspace, settings
    )
    finished, rejected = extract_shards(plan, workspace, pool)
    for path, reason in rejected.items():
        raise IntegrityError(f"{path} can no longer be extracted: {reason}", START_ANEW)
    for shard in cache.shards:
        if shard.name in missing and finished[shard.name].row != shard:
            (workspace.folder / shard.name).unlink()
            raise IntegrityError(
                f"{workspace.folder / shard.name} did not come out as it was", START_ANEW
            )
    remove_work(workspace.folder)


def _probe(
    cache: Cache, clips: Mapping[str, Clip], settings: Settings, pool: Pool
) -> dict[str, tuple[str, Probe]]:
    """Return path and metadata of the unchanged videos, by id."""
    names = cache.names()
    ids = {Path(names[video_id]): video_id for video_id in clips}
    probes: dict[str, tuple[str, Probe]] = {}
    for path, result in pool.run(partial(probe, rate=settings.rate), list(ids), seconds_to_probe):
        video_id = ids[path]
        if isinstance(result, Rejected) or result.sha256 != clips[video_id].source_sha256:
            raise IntegrityError(
                f"{path} is no longer what it was when {cache.folder} was made", START_ANEW
            )
        probes[video_id] = str(path), result
    return {video_id: probes[video_id] for video_id in clips}
