"""One folder as a layout sees it."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from pipeline.corpus.labelled_video import Video

_COMPRESSION = re.compile(r"(?<![a-z0-9])(raw|c0|c23|c40)(?![a-z0-9])")


@dataclass(frozen=True)
class Folder:
    """One folder and the videos directly in it."""

    path: Path  # need not exist
    videos: tuple[Path, ...]
    label: int | None = None  # in its name, or in the nearest above that has one
    whole: bool = True  # these are all its videos, not just some that a CSV file lists

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its name and those of three folders above, nearest first, in lower case."""
        parts = Path(os.path.abspath(self.path)).parts[1:]  # noqa: PTH100 - a link's name counts
        return tuple(name.lower() for name in reversed(parts[-4:]))

    @property
    def compression(self) -> str:
        """FaceForensics++'s level in a name: raw, c23, c40 or nothing."""
        for name in self.names:
            if level := _COMPRESSION.search(name):
                return level[1].replace("c0", "raw")
        return ""

    def nearest(self, *names: str, levels: int) -> Path | None:
        """Return the first of these files in the folder, or up to ``levels`` above."""
        for folder in (self.path, *Path(os.path.abspath(self.path)).parents[:levels]):  # noqa: PTH100
            for name in names:
                if (folder / name).is_file():
                    return folder / name
        return None


class Layout(Protocol):
    """A module that knows how one dataset names and orders its videos."""

    LOOKS_FOR: str  # for an error message

    def recognises(self, folder: Folder) -> bool:
        """Return whether a folder belongs to this dataset."""

    def read(self, folder: Folder) -> list[Video]:
        """Return this dataset's videos in a folder."""
