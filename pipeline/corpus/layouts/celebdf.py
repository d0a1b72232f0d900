"""Celeb-DF, version 1 and 2: https://github.com/yuezunli/celeb-deepfakeforensics.

``Celeb-real/id1_0007.mp4`` is celebrity 1, ``Celeb-synthesis/id1_id2_0007.mp4`` that video of
celebrity 1, the target, with the face of celebrity 2, the source, and ``YouTube-real/00170.mp4``
somebody else. Both versions number the same people, so they share identities.
"""

import re

from pipeline.common.errors import SettingsError
from pipeline.corpus.labelled_video import FAKE, REAL, Video
from pipeline.corpus.layouts.folder import Folder

LOOKS_FOR = (
    "id1_0007.mp4 in Celeb-real, id1_id2_0007.mp4 in Celeb-synthesis, 00170.mp4 in YouTube-real"
)
LIST = "List_of_testing_videos.txt"
_CELEBRITY = re.compile(r"(id\d+)_\d+")
_FAKE = re.compile(r"(id\d+)_(id\d+)_(\d+)")
_YOUTUBE = re.compile(r"\d{5}")
_FOLDERS = {"celeb-real", "youtube-real", "celeb-synthesis"}


def recognises(folder: Folder) -> bool:
    """Return whether a folder has one of its names, or a label and its ids."""
    ids = any(_CELEBRITY.fullmatch(p.stem) or _FAKE.fullmatch(p.stem) for p in folder.videos)
    return _is_official(folder) or (ids and folder.label is not None)


def read(folder: Folder) -> list[Video]:
    """Take both celebrities of a fake as identities, and the target's video as original."""
    test_videos = _test_videos(folder)
    videos = []
    for path in folder.videos:
        who: tuple[str, ...]
        if fake := _FAKE.fullmatch(path.stem):
            target, source, recording = fake.groups()
            label, who = FAKE, (target, source)
        elif celebrity := _CELEBRITY.fullmatch(path.stem):
            label, who = REAL, (celebrity[1],)
        elif _YOUTUBE.fullmatch(path.stem):
            label, who = REAL, (path.stem,)
        else:
            continue
        if folder.label is not None and not _is_official(folder):
            label = folder.label
        videos.append(
            Video(
                path,
                label,
                tuple(f"celebdf:{person}" for person in dict.fromkeys(who)),
                source="celebdf",
                manipulation="Celeb-synthesis" if fake else "",
                original=f"celebdf:{target}_{recording}" if fake else f"celebdf:{path.stem}",
                official=_official(path.stem, test_videos),
            )
        )
    return videos


def _is_official(folder: Folder) -> bool:
    return not _FOLDERS.isdisjoint(folder.names[:2])  # some copies insert videos/


def _official(name: str, test_videos: set[str] | None) -> str:
    if test_videos is None:
        return ""
    return "test" if name in test_videos else "train"


def _test_videos(folder: Folder) -> set[str] | None:
    """Return the names in the official list, of lines like ``1 Celeb-real/id1_0007.mp4``."""
    path = folder.nearest(LIST, levels=3)
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {path}: {error}", "download it again") from error
    return {line.strip().rsplit("/", 1)[-1].rsplit(".", 1)[0] for line in lines if line.strip()}
