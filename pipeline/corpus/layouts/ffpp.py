"""FaceForensics++: 1,000 YouTube clips and five manipulations of each; arXiv:1901.08971.

``original_sequences/youtube/c23/videos/004.mp4`` is clip 004, and
``manipulated_sequences/Face2Face/c23/videos/004_982.mp4`` is clip 004, the target, with the face or
expression of clip 982, the source. Copies may lack the upper folders.
"""

import json
import re

from pipeline.common.errors import SettingsError
from pipeline.corpus.labelled_video import FAKE, REAL, Video
from pipeline.corpus.layouts.folder import Folder

MANIPULATIONS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
LOOKS_FOR = f"004.mp4 in folders like youtube/c23/videos, 004_982.mp4 in {', '.join(MANIPULATIONS)}"
# Clips of one YouTube video in different official splits: one person, two numbers.
SAME_VIDEO = (
    ("605", "606"),
    ("639", "640"),
    ("755", "756"),
    ("837", "838"),
    ("875", "876"),
    ("954", "955"),
    ("982", "983"),
)
_IDENTITY = {number: "+".join(pair) for pair in SAME_VIDEO for number in pair}
_REAL = re.compile(r"\d{3}")
_FAKE = re.compile(r"(\d{3})_(\d{3})")
_DATASET = re.compile(r"faceforensics|ff\+\+|ffpp")


def recognises(folder: Folder) -> bool:
    """Return whether folders have its names; three digits could be anything."""
    return (
        bool(_manipulation(folder))
        or _is_youtube(folder)
        or any(_DATASET.search(name) for name in folder.names)
        or any((folder.path.parent / name).is_dir() for name in MANIPULATIONS)
    )


def read(folder: Folder) -> list[Video]:
    """Take both clips of a fake as its identities, and the target as its original."""
    manipulation, official = _manipulation(folder), _official(folder)
    videos = []
    for path in folder.videos:
        if fake := _FAKE.fullmatch(path.stem):
            clips = fake.groups()
        elif _REAL.fullmatch(path.stem) and not manipulation:
            if folder.label == FAKE and not _is_youtube(folder):
                continue
            clips = (path.stem,)
        else:
            continue
        videos.append(
            Video(
                path,
                FAKE if fake else REAL,
                tuple(dict.fromkeys(f"ffpp:{_IDENTITY.get(clip, clip)}" for clip in clips)),
                source="ffpp",
                manipulation=manipulation,
                compression=folder.compression,
                original=f"ffpp:{clips[0]}",
                official=official.get(clips[0], ""),
            )
        )
    return videos


def _manipulation(folder: Folder) -> str:
    for name in folder.names:
        for manipulation in MANIPULATIONS:
            if name == manipulation.lower():
                return manipulation
    return ""


def _is_youtube(folder: Folder) -> bool:
    # Other fakes may have come from YouTube too.
    return "youtube" in folder.names and (bool(folder.compression) or folder.label != FAKE)


def _official(folder: Folder) -> dict[str, str]:
    """Return the official split by clip, from ``splits/train.json`` and others above."""
    split_of_clip: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = folder.nearest(f"splits/{split}.json", levels=4)
        if path is None:
            continue
        try:
            pairs = json.loads(path.read_text(encoding="utf-8"))
            split_of_clip |= {str(clip): split for pair in pairs for clip in pair}
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise SettingsError(
                f"cannot read {path}: {error}", "it is a JSON list of pairs like [['004', '982']]"
            ) from error
    return split_of_clip
