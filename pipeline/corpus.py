"""Which videos there are, whether they are real or fake, and whose face they show."""

import csv
import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import NothingUsable, SettingsError
from pipeline.files import read_csv
from pipeline.splits import SPLITS, leaks

REAL, FAKE = 0, 1
LABELS = {"0": REAL, "real": REAL, "1": FAKE, "fake": FAKE}
_EXTENSIONS = """
    3g2 3gp 264 265 asf avi divx f4v flv gif h264 hevc ivf m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe
    mpeg mpg mts mxf ogg ogv qt ts vob webm wmv y4m
"""
EXTENSIONS = frozenset(f".{name}" for name in _EXTENSIONS.split())
# DFD: 01__exit_phone_room.mp4, and 24_23__outside__YR5OVD4S.mp4 for source 23 on target 24.
_DFD_REAL = re.compile(r"(\d{2})__.+")
_DFD_FAKE = re.compile(r"(\d{2})_(\d{2})__.+__[A-Z0-9]{8}")


@dataclass(frozen=True)
class Video:
    """One labelled file of a corpus.

    ``identities`` are whatever must not be on two sides of a split; empty means that nothing is
    known and the video stands for itself. ``split`` is set only where the corpus prescribes it.
    """

    path: Path
    label: int  # 0 real, 1 fake
    identities: tuple[str, ...] = ()
    split: str | None = None


def read_corpus(roots: Sequence[Path]) -> list[Video]:
    """Find the videos of a corpus.

    Args:
        roots: folders, searched all the way down, whose own names or those of their subfolders
            say what they hold (``*REAL*`` and ``*original*``, ``*FAKE*`` and ``*manipulated*``; the
            folder nearest to the file decides); and CSV files with the columns ``path``,
            ``label``, and perhaps ``identity`` and ``split``.

    Returns:
        the videos sorted by path. Files that are no videos by their extension are among them, so
        that they are accounted for; hidden files are not.

    Raises:
        SettingsError: a root is missing, a folder does not say whether it is real or fake, a CSV
            cannot be read, two roots disagree about a file, or the splits that are given leak.
        OSError: a folder cannot be read.
        NothingUsable: no video at all, or only one of the two labels.
    """
    found: dict[Path, Video] = {}
    for root in roots:
        if root.is_dir():
            videos = _from_folder(root)
        elif root.suffix.lower() == ".csv" and root.is_file():
            videos = _from_csv(root)
        else:
            what = "is neither a folder nor a CSV file" if root.exists() else "does not exist"
            raise SettingsError(f"{root} {what}", "give folders of videos, or CSV files")
        for video in videos:
            other = found.setdefault(_absolute(video.path), video)
            if dataclasses.replace(other, path=video.path) != video:
                raise SettingsError(
                    f"{video.path} is listed twice, with different labels, identities or splits",
                    "list it once",
                )
    videos = sorted(found.values(), key=lambda video: os.fsencode(video.path))
    _check_both_labels(roots, videos)
    who, splits = [v.identities for v in videos], [v.split for v in videos]
    if straddling := leaks(who, splits, [str(video.path) for video in videos]):
        raise SettingsError(
            f"the splits given leak: {straddling[0]}",
            "give all videos of an identity the same split",
        )
    return videos


def looks_like_video(path: Path) -> bool:
    """Whether a file's extension is one that videos have."""
    return path.suffix.lower() in EXTENSIONS


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - must not follow links, as resolve() does


def _from_folder(root: Path) -> list[Video]:
    videos, unlabelled = [], set()
    seen: set[str] = set()  # a link may lead back up
    for folder, subfolders, names in os.walk(root, onerror=_raise, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:
            subfolders.clear()
            continue
        seen.add(place)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files = sorted(name for name in names if not name.startswith("."))
        label = _label_of(Path(folder), root)
        for name in files:
            path = Path(folder, name)
            if label is not None:
                videos.append(Video(path, label, identities_of(path, label)))
            elif looks_like_video(path):
                unlabelled.add(Path(folder))
    if unlabelled:
        listed = ", ".join(str(folder) for folder in sorted(unlabelled)[:10])
        raise SettingsError(
            f"cannot tell whether these folders hold real or fake videos: {listed}",
            "name a folder *REAL* or *original*, *FAKE* or *manipulated*, "
            "or give a CSV file with the columns path,label",
        )
    return videos


def _raise(error: OSError) -> None:
    raise error


def _label_of(folder: Path, root: Path) -> int | None:
    """The label that the nearest telling folder name gives, from ``folder`` up to ``root``."""
    for part in (folder, *folder.parents):
        name = (part.name or part.resolve().name).lower()
        real = "real" in name or "original" in name
        fake = "fake" in name or "manipulated" in name
        if real != fake:
            return FAKE if fake else REAL
        if part == root:
            return None
    return None


def identities_of(path: Path, label: int) -> tuple[str, ...]:
    """The actors that a file name of the DFD dataset states: target and source, or nobody."""
    match = (_DFD_FAKE if label == FAKE else _DFD_REAL).fullmatch(path.stem)
    return tuple(f"actor:{number}" for number in match.groups()) if match else ()


def _from_csv(path: Path) -> list[Video]:
    try:
        rows = read_csv(path)
    except (OSError, csv.Error) as error:
        raise SettingsError(f"cannot read {path}: {error}", "save it as a plain CSV") from error
    videos = []
    for row in rows:
        where = f"{path} line {row.line}"
        if not row.get("path") or row.get("label") is None:
            raise SettingsError(
                f"{where}: it needs a path and a label; the columns are {', '.join(map(str, row))}",
                "the first line must be path,label or path,label,identity,split",
            )
        label = LABELS.get(row["label"].strip().lower())
        if label is None:
            raise SettingsError(
                f"{where}: label {row['label']!r}", f"labels are {', '.join(LABELS)}"
            )
        split = (row.get("split") or "").strip().lower() or None
        if split is not None and split not in SPLITS:
            raise SettingsError(f"{where}: split {split!r}", f"splits are {', '.join(SPLITS)}")
        file = path.parent / row["path"]
        named = tuple(i.strip() for i in (row.get("identity") or "").split(";") if i.strip())
        videos.append(Video(file, label, named or identities_of(file, label), split))
    return videos


def _check_both_labels(roots: Iterable[Path], videos: Sequence[Video]) -> None:
    searched = ", ".join(str(root) for root in roots)
    usable = [video for video in videos if looks_like_video(video.path)]
    if not usable:
        raise NothingUsable(
            f"no video in {searched}",
            f"looked for files ending in {' '.join(sorted(EXTENSIONS))}",
        )
    labels = {video.label for video in usable}
    if len(labels) == 1:
        missing = "fake" if REAL in labels else "real"
        raise NothingUsable(
            f"no {missing} video in {searched}", f"give a folder of {missing} videos as well"
        )
