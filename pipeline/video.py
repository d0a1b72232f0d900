"""One labelled video of a corpus, and what is known of it before anybody has opened it."""

from dataclasses import dataclass
from pathlib import Path

REAL, FAKE = 0, 1
LABELS = {"0": REAL, "real": REAL, "1": FAKE, "fake": FAKE}
_EXTENSIONS = """
    3g2 3gp 264 265 asf avi divx f4v flv gif h264 hevc ivf m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe
    mpeg mpg mts mxf ogg ogv qt ts vob webm wmv y4m
"""
EXTENSIONS = frozenset(f".{name}" for name in _EXTENSIONS.split())


@dataclass(frozen=True)
class Video:
    """One labelled file of a corpus.

    ``identities`` are whatever must not be on two sides of a split; empty means that nothing is
    known and the video stands for itself. ``split`` is set only where the corpus prescribes it.
    The rest is remembered where a layout states it.
    """

    path: Path
    label: int  # 0 real, 1 fake
    identities: tuple[str, ...] = ()
    split: str | None = None
    source: str = ""  # the dataset, or the name of the folder or CSV file it was found by
    manipulation: str = ""  # how a fake was made, as its dataset calls it: Face2Face
    compression: str = ""  # raw, c23 or c40
    original: str = ""  # the real video that a fake was made from: dfd:24__kitchen_still
    official: str = ""  # train, val or test, where its dataset publishes a split; not applied


def looks_like_video(path: Path) -> bool:
    """Whether a file's extension is one that videos have."""
    return path.suffix.lower() in EXTENSIONS
