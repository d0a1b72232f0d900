"""One labelled video of a corpus, as paths and lists describe it before it is decoded."""

from dataclasses import dataclass
from pathlib import Path

REAL, FAKE = 0, 1
LABELS = {"0": REAL, "real": REAL, "1": FAKE, "fake": FAKE}  # in a CSV file
LABEL_NAMES = ("real", "fake")  # by label
SPLITS = ("train", "test", "val", "holdout")
_EXTENSIONS = """
    3g2 3gp 264 265 asf avi divx f4v flv gif h264 hevc ivf m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe
    mpeg mpg mts mxf ogg ogv qt ts vob webm wmv y4m
"""
EXTENSIONS = frozenset(f".{name}" for name in _EXTENSIONS.split())


@dataclass(frozen=True, slots=True)
class Video:
    """One labelled file of a corpus. Empty strings and tuples stand for what is not known.

    Attributes:
        path: the file.
        label: 0 real, 1 fake.
        identities: people who must not be on two sides of a split.
        given: split that a CSV file prescribes.
        source: dataset, or the name of the folder or CSV file that lists it.
        manipulation: method of a fake, in its dataset's words: Face2Face.
        compression: raw, c23 or c40.
        original: recording that it shows: a real video its own, a fake that of its target.
        official: train, val or test, if its dataset publishes a split.
        leads_to: target, if it is a link that leads out of the corpus and is not followed.
    """

    path: Path
    label: int
    identities: tuple[str, ...] = ()
    given: str = ""
    source: str = ""
    manipulation: str = ""
    compression: str = ""
    original: str = ""
    official: str = ""
    leads_to: str = ""

    @property
    def group_keys(self) -> tuple[str, ...]:
        """Keys that must not be on two sides of a split: its identities and its original."""
        return (*self.identities, *([self.original] if self.original else []))


def looks_like_video(path: Path) -> bool:
    """Return whether a file has a video's extension."""
    return path.suffix.lower() in EXTENSIONS
