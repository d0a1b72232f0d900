"""The Deepfake Detection Challenge (DFDC): arXiv:2006.07397, and its preview, arXiv:1910.08854.

``dfdc_train_part_0/metadata.json`` has labels and the originals of fakes, the test set a
``metadata.json`` with ``is_fake`` or a ``labels.csv``, the preview a ``dataset.json`` with actors.
Without actors, a fake and its original share an identity.
"""

import csv
import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.csv_files import read_csv
from pipeline.common.errors import SettingsError
from pipeline.corpus.labelled_video import FAKE, LABELS, Video
from pipeline.corpus.layouts.folder import Folder

LOOKS_FOR = (
    "metadata.json, labels.csv or dataset.json with the videos' labels, beside or above them"
)
_NAME = re.compile(r"[a-z]{10}\.mp4")  # other datasets have a labels.csv, too
MAX_LEVELS_ABOVE = 3  # of dataset.json, above method_A/1224068/...; of the others 1


def recognises(folder: Folder) -> bool:
    """Return whether a list has one of its videos."""
    above, entries = _list_of(folder)
    return any(_entry(path, above, entries) for path in folder.videos)


def read(folder: Folder) -> list[Video]:
    """Take the originals, or in the preview the actors, as identities."""
    above, entries = _list_of(folder)
    videos, unlisted = [], []
    for path in folder.videos:
        entry = _entry(path, above, entries)
        label = _label(entry)
        if label is None:
            unlisted.append(path.name)
            continue
        original = str(entry.get("original") or "") if label == FAKE else path.name
        actors = [entry.get("target_id"), entry.get("swapped_id")]
        if path.parent.parent.name == "original_videos":  # of the preview
            actors.append(path.parent.name)
        who = [str(actor) for actor in actors if actor] or [original]
        videos.append(
            Video(
                path,
                label,
                tuple(f"dfdc:{identity}" for identity in dict.fromkeys(who) if identity),
                source="dfdc",
                manipulation="DFDC" if label == FAKE else "",
                original=f"dfdc:{original}" if original else "",
                official=_official(entry),
            )
        )
    if unlisted and videos and folder.whole:
        raise SettingsError(
            f"{len(unlisted)} of {len(folder.videos)} videos in {folder.path} are not in the list "
            f"that labels the others: {', '.join(unlisted[:10])}",
            "move them elsewhere, or give a CSV file with the columns path,label",
        )
    return videos


def _list_of(folder: Folder) -> tuple[Path, Mapping[str, Any]]:
    """Return the list's folder, and its entries by file name or relative path."""
    near = folder.nearest("metadata.json", "labels.csv", levels=1)
    path = near or folder.nearest("dataset.json", levels=MAX_LEVELS_ABOVE)
    if path is None:
        return folder.path, {}
    return path.parent, _load(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _load(path: Path, stamp: int) -> Mapping[str, Any]:
    try:
        if path.suffix == ".csv":
            by_name = {row.get("filename") or "": dict(row) for row in read_csv(path)}
            return by_name if all(map(_NAME.fullmatch, by_name)) else {}
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise SettingsError(
            f"cannot read {path}: {error}",
            "download it again, or give --layout if it is not DFDC's",
        ) from error
    return entries if isinstance(entries, dict) else {}


def _entry(path: Path, above: Path, entries: Mapping[str, Any]) -> Mapping[str, Any]:
    entry = entries.get(path.name)
    if entry is None and entries:
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(above))  # noqa: PTH100
        entry = entries.get(relative.replace(os.sep, "/"))
    return entry if isinstance(entry, dict) and _label(entry) is not None else {}


def _label(entry: Mapping[str, Any]) -> int | None:
    return LABELS.get(str(entry.get("label", entry.get("is_fake"))).strip().lower())


def _official(entry: Mapping[str, Any]) -> str:
    # Entries of the test set name no split.
    split = str(entry.get("split") or entry.get("set") or "test").lower()
    return split if split in ("train", "val", "test") else ""
