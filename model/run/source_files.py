"""The files that the videos of a cache were made from, as far as they are still the same."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.cache import Cache, Clip
from pipeline.common.csv_files import read_csv
from pipeline.common.files import sha256_of
from pipeline.workers.local import Pool

NAMES = "names.csv"
UNKNOWN, MISSING, CHANGED = LOST = (
    "no names.csv in or beside the embeddings names its file",
    "the file is gone",
    "the file has changed",
)


def find_videos(
    cache: Cache, clips: Sequence[Clip], folder: Path | None, pool: Pool
) -> dict[str, Path | str]:
    """Find the file of each video by the bytes that it was extracted from.

    Args:
        cache: of embeddings; a ``names.csv`` in it or in a cache beside it says where files were.
        clips: one of each video.
        folder: where files are looked for besides, whatever they are called.
        pool: where files are read.

    Returns:
        video id → its file, or one of `LOST`.
    """
    listed = named(cache, {clip.video for clip in clips})
    of_size = _by_size(folder)
    candidates = {clip.video: listed[clip.video] + of_size[clip.n_bytes] for clip in clips}
    there = {path for paths in candidates.values() for path in paths if path.is_file()}
    digests = dict(pool.run(_digest, sorted(there)))
    found: dict[str, Path | str] = {}
    for clip in clips:
        paths = candidates[clip.video]
        same = [path for path in paths if digests.get(path) == clip.source_sha256]
        if same:
            found[clip.video] = same[0]
        elif not paths:
            found[clip.video] = UNKNOWN
        else:
            found[clip.video] = CHANGED if there.intersection(paths) else MISSING
    return found


def named(cache: Cache, videos: set[str]) -> dict[str, list[Path]]:
    """Where the videos were, by all tables of names in a cache of embeddings or beside it."""
    listed: dict[str, list[Path]] = defaultdict(list)
    for table in [cache.folder / NAMES, *sorted(cache.folder.parent.glob(f"*/{NAMES}"))]:
        for video, path in _rows(table):
            if video in videos and Path(path) not in listed[video]:
                listed[video].append(Path(path))
    return listed


def _rows(table: Path) -> list[tuple[str, str]]:
    """Ids and paths; nothing of a file that is something else."""
    try:
        return [(row["id"], row["path"]) for row in read_csv(table)]
    except (OSError, csv.Error, KeyError):
        return []


def _by_size(folder: Path | None) -> dict[int, list[Path]]:
    files: dict[int, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")) if folder else []:
        if path.is_file():
            files[path.stat().st_size].append(path)
    return files


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return ""
