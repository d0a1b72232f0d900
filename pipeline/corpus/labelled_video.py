"""One labelled video of a corpus, and what is known of it before anybody has opened it."""

from dataclasses import dataclass
from pathlib import Path

REAL, FAKE = 0, 1
LABELS = {"0": REAL, "real": REAL, "1": FAKE, "fake": FAKE}  # as a CSV file may say it
LABEL_NAMES = ("real", "fake")  # by label
SPLITS = ("train", "test", "val", "holdout")
_EXTENSIONS = """
    3g2 3gp 264 265 asf avi divx f4v flv gif h264 hevc ivf m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe
    mpeg mpg mts mxf ogg ogv qt ts vob webm wmv y4m
"""
EXTENSIONS = frozenset(f".{name}" for name in _EXTENSIONS.split())


@dataclass(frozen=True, slots=True)
class Video:
    """One labelled file of a corpus.

    ``identities`` are whoever must not be on two sides of a split; empty means that nobody is
    known. ``given`` is set only where the corpus prescribes a split. The rest is remembered where a
    layout states it.
    """

    path: Path
    label: int  # 0 real, 1 fake
    identities: tuple[str, ...] = ()
    given: str = ""  # the split that a CSV file prescribes, or nothing
    source: str = ""  # the dataset, or the name of the folder or CSV file it was found by
    manipulation: str = ""  # how a fake was made, as its dataset calls it: Face2Face
    compression: str = ""  # raw, c23 or c40
    original: str = ""  # the recording it shows: a real video its own, a fake that of its target
    official: str = ""  # train, val or test, where its dataset publishes a split
    leads_to: str = ""  # where, if it is a link that leads out of the corpus and is not followed

    @property
    def group_keys(self) -> tuple[str, ...]:
        """All that links it to other videos, so that they must be on one side of a split."""
        return (*self.identities, *([self.original] if self.original else []))


def looks_like_video(path: Path) -> bool:
    """Whether a file's extension is one that videos have."""
    return path.suffix.lower() in EXTENSIONS
