"""Extraction of single videos for a trained detector."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline import farneback
from pipeline.common.errors import Rejected
from pipeline.extraction.shard_tasks import VideoTask, extract_video
from pipeline.faces import model_of
from pipeline.settings import Settings
from pipeline.video.probe import Probe, probe
from pipeline.workers.local import Pool

Change = Callable[[Path, Path], None]  # writes a changed copy of a video


class NewVideo(NamedTuple):
    """Shard and metadata of an extracted video."""

    shard: str  # its name
    metadata: Probe


def extract_new(
    paths: Sequence[Path],
    folder: Path,
    settings: Settings,
    n_frames: int,
    pool: Pool,
    change: Change | None = None,
) -> Generator[tuple[int, NewVideo | Rejected], None, None]:
    """Extract single videos, each into a shard of its own under ``folder/shards``.

    Args:
        settings: those of the cache that the detector was trained on.
        n_frames: T of that cache.
        change: extract changed copies of the videos instead.

    Yields:
        position of a path, and its shard or why there is none, in order of completion.

    Raises:
        SettingsError: this machine lacks the flow backend or the face detector.
    """
    settings = dataclasses.replace(
        settings, flow_backend=farneback.equivalent_backend(settings.flow_backend)
    )
    extract_one = partial(
        _extract_new,
        folder=folder,
        settings=settings,
        n_frames=n_frames,
        model=model_of(settings.faces),
        change=change,
    )
    for (number, _), result in pool.run(extract_one, list(enumerate(paths))):
        yield number, result


def _extract_new(
    item: tuple[int, Path],
    folder: Path,
    settings: Settings,
    n_frames: int,
    model: bytes,
    change: Change | None,
) -> NewVideo:
    number, path = item
    copy = folder / f"{number:05}.mp4"
    try:
        if change is not None:
            change(path, copy)
            path = copy
        video = probe(path, settings.rate)
        if video.n_samples < n_frames:
            raise Rejected("too short", f"{video.n_samples} frames, {n_frames} are needed")
        shard = f"shards/{number:05}.h5"
        task = VideoTask(
            path=str(path),
            video=video,
            shard=shard,
            target=shard,
            cache=str(folder),
            n_frames=n_frames,
            settings=settings,
            recipe="",
            model=model,
        )
        extract_video(task)
        return NewVideo(shard, video)
    finally:
        copy.unlink(missing_ok=True)
