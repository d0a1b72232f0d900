"""Extract single videos outside any corpus, to be judged by a trained detector."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline import farneback
from pipeline.common.errors import Rejected
from pipeline.extraction.shard_tasks import VideoTask, extract_video
from pipeline.faces import model_of
from pipeline.settings import Settings
from pipeline.video.probe import Probe, probe, sampling_rate
from pipeline.workers.local import Pool

Change = Callable[[Path, Path], None]  # writes a changed copy of a video


class NewVideo(NamedTuple):
    """A video outside any corpus.

    Attributes:
        shard: the name of the one that its clips are in.
        facts: of the file.
    """

    shard: str
    facts: Probe


def extract_new(
    paths: Sequence[Path],
    folder: Path,
    settings: Settings,
    n_frames: int,
    pool: Pool,
    change: Change | None = None,
) -> Generator[tuple[int, NewVideo | Rejected], None, None]:
    """Extract single videos outside any corpus, each into a shard of its own.

    Args:
        paths: video files.
        folder: where ``shards/`` is made.
        settings: of the cache that the videos are to be compared with.
        n_frames: T of that cache.
        pool: where the work runs.
        change: extract changed copies of the videos, each of which is there only meanwhile.

    Raises:
        SettingsError: the flow backend or face detector of that cache is not on this machine.

    Yields:
        the position of a path and its shard, or why there is none; in the order in which they are
        done.
    """
    settings = dataclasses.replace(
        settings, flow_backend=farneback.equivalent_backend(settings.flow_backend)
    )
    model = model_of(settings.faces)
    tasks = [
        _NewTask(n, str(path), str(folder), settings, n_frames, model, change)
        for n, path in enumerate(paths)
    ]
    for task, result in pool.run(_extract_new, tasks):
        yield task.number, result


@dataclass(frozen=True)
class _NewTask:
    number: int
    path: str
    folder: str
    settings: Settings
    n_frames: int
    model: bytes
    change: Change | None


def _extract_new(new: _NewTask) -> NewVideo:
    if new.change is None:
        return _extract_file(new)
    copy = Path(new.folder, f"{new.number:05}.mp4")
    try:
        new.change(Path(new.path), copy)
        return _extract_file(dataclasses.replace(new, path=str(copy)))
    finally:
        copy.unlink(missing_ok=True)


def _extract_file(new: _NewTask) -> NewVideo:
    settings = new.settings
    video = probe(Path(new.path), fps=settings.fps, stride=settings.stride)
    if video.n_samples < new.n_frames:
        raise Rejected("too short", f"{video.n_samples} frames, {new.n_frames} are needed")
    shard = f"shards/{new.number:05}.h5"
    n_clips = min(settings.clips, video.n_samples // new.n_frames)
    extract_video(
        VideoTask(
            path=new.path,
            video_id="video",
            shard=shard,
            target=shard,
            cache=new.folder,
            rate=sampling_rate(video.fps, settings.fps, settings.stride),
            n_frames=new.n_frames,
            n_clips=n_clips,
            seconds=0.0,
            settings=settings,
            recipe="",
            model=new.model,
        ),
        n_clips,
    )
    return NewVideo(shard, video)
