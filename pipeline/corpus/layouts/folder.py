"""What a layout is asked about: one folder, and what its name and those above it say."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.corpus.labelled_video import Video

_COMPRESSION = re.compile(r"(?<![a-z0-9])(raw|c0|c23|c40)(?![a-z0-9])")


@dataclass(frozen=True)
class Folder:
    """One folder and the videos directly in it.

    Attributes:
        path: of the folder; it need not exist.
        videos: whose parent it is.
        label: what its name, or the nearest telling one above it, says: 0 real, 1 fake.
        whole: these are all its videos, and not just those that somebody listed.
    """

    path: Path
    videos: tuple[Path, ...]
    label: int | None = None
    whole: bool = True

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its name and those of the three folders above it, nearest first, in lower case."""
        parts = Path(os.path.abspath(self.path)).parts[1:]  # noqa: PTH100 - a link's name counts
        return tuple(name.lower() for name in reversed(parts[-4:]))

    @property
    def compression(self) -> str:
        """The compression level of FaceForensics++ that a name states: raw, c23, c40 or nothing."""
        for name in self.names:
            if level := _COMPRESSION.search(name):
                return level[1].replace("c0", "raw")
        return ""

    def nearest(self, *names: str, levels: int) -> Path | None:
        """The first of these files in the folder itself, or up to so many levels above it."""
        for folder in (self.path, *Path(os.path.abspath(self.path)).parents[:levels]):  # noqa: PTH100
            for name in names:
                if (folder / name).is_file():
                    return folder / name
        return None


@dataclass(frozen=True)
class Layout:
    """How one dataset names and orders its videos.

    Attributes:
        recognises: whether a folder is one of this dataset's.
        read: its videos among those of a folder, with all that their names and lists say.
        looks_for: what is recognised, in words for whoever gave another folder.
    """

    recognises: Callable[[Folder], bool]
    read: Callable[[Folder], list[Video]]
    looks_for: str
