"""One labelled video of a corpus, as paths and lists describe it."""

from dataclasses import dataclass
from pathlib import Path

REAL, FAKE = 0, 1
LABELS = {"0": REAL, "real": REAL, "1": FAKE, "fake": FAKE}  # in a CSV file
LABEL_NAMES = ("real", "fake")  # by label
OWN = "own:"  # begins the manipulation of a fake that data.fakes made: own:blend+drift
SPLITS = ("train", "test", "val", "holdout")
_EXTENSIONS = """
    3g2 3gp 264 265 asf avi divx f4v flv gif h264 hevc ivf m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe
    mpeg mpg mts mxf ogg ogv qt ts vob webm wmv y4m
"""
EXTENSIONS = frozenset(f".{name}" for name in _EXTENSIONS.split())


@dataclass(frozen=True, slots=True)
class Video:
    """One labelled file of a corpus; what is empty is not known."""

    path: Path
    label: int  # 0 real, 1 fake
    identities: tuple[str, ...] = ()  # people who must not be on two sides of a split
    given: str = ""  # split that a CSV file prescribes
    source: str = ""  # dataset, or name of the folder or CSV file
    manipulation: str = ""  # in its dataset's words: Face2Face
    compression: str = ""  # raw, c23 or c40
    original: str = ""  # recording it shows; of a fake, that of its target
    official: str = ""  # split that its dataset publishes
    leads_to: str = ""  # target, if it is a link that is not followed

    @property
    def group_keys(self) -> tuple[str, ...]:
        """Identities and original, which must not be on two sides of a split."""
        return (*self.identities, *([self.original] if self.original else []))

    @property
    def is_own_fake(self) -> bool:
        """Whether data.fakes made it; all other fakes are called real fakes."""
        return self.label == FAKE and self.manipulation.startswith(OWN)


def own_kinds(manipulation: str) -> tuple[str, ...]:
    """Return the kinds in the manipulation of an own fake; none of another one.

    Example:
        >>> own_kinds("own:blend+drift"), own_kinds("Deepfakes")
        (('blend', 'drift'), ())
    """
    if not manipulation.startswith(OWN):
        return ()
    return tuple(filter(None, manipulation.removeprefix(OWN).split("+")))


def looks_like_video(path: Path) -> bool:
    """Return whether a file has a video's extension."""
    return path.suffix.lower() in EXTENSIONS
