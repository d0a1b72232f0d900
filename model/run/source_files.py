"""The video files that a cache was made from, identified by their sha256."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.cache import Cache, Clip
from pipeline.common.csv_files import read_csv
from pipeline.common.files import sha256_of
from pipeline.workers.local import Pool

NAMES_FILE = "names.csv"
UNLISTED, MISSING, CHANGED = LOST = (
    "no names.csv in or beside the embeddings names its file",
    "the file is gone",
    "the file has changed",
)


def find_videos(
    cache: Cache, clips: Sequence[Clip], folder: Path | None, pool: Pool
) -> dict[str, Path | str]:
    """Find the source file of one clip of each video by its sha256; else say why, as one of `LOST`.

    Candidates are the paths in ``names.csv`` in the cache or beside it, and all files of
    ``folder``.
    """
    listed = listed_files(cache, {clip.video for clip in clips})
    by_size = _by_size(folder)
    candidates = {clip.video: listed[clip.video] + by_size[clip.n_bytes] for clip in clips}
    existing = {path for paths in candidates.values() for path in paths if path.is_file()}
    digests = dict(pool.run(_digest, sorted(existing)))
    files: dict[str, Path | str] = {}
    for clip in clips:
        paths = candidates[clip.video]
        same = [path for path in paths if digests.get(path) == clip.source_sha256]
        if same:
            files[clip.video] = same[0]
        elif not paths:
            files[clip.video] = UNLISTED
        else:
            files[clip.video] = CHANGED if existing.intersection(paths) else MISSING
    return files


def listed_files(cache: Cache, videos: set[str]) -> dict[str, list[Path]]:
    """Return the paths of videos in every ``names.csv`` in an embedding cache or beside it."""
    listed: dict[str, list[Path]] = defaultdict(list)
    for table in [cache.folder / NAMES_FILE, *sorted(cache.folder.parent.glob(f"*/{NAMES_FILE}"))]:
        for video, path in _read_names(table):
            if video in videos and Path(path) not in listed[video]:
                listed[video].append(Path(path))
    return listed


def _read_names(table: Path) -> list[tuple[str, str]]:
    """Return ids and paths; none if the file is missing or another table."""
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
