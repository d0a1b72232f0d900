"""Folders for the meantime: what a killed process left of one is removed by the next process."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.appending import try_lock

LOCK = ".lock"  # beside each folder; held by its process, and given up when that ends
_NEW = ".new-"  # a lock that is not held yet


@contextlib.contextmanager
def scratch_folder(prefix: str = "deepfake-motion-", parent: Path | None = None) -> Iterator[Path]:
    """A new folder, which is removed in the end; so are those of processes that were killed.

    Args:
        prefix: of its name, by which those of earlier processes are found.
        parent: where it is made; by default in the folder of the system for temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    _remove_abandoned(prefix, parent)
    handle, name = tempfile.mkstemp(prefix=_NEW + prefix, suffix=LOCK, dir=parent)
    try:
        try_lock(handle)
        lock = Path(name).rename(parent / Path(name).name.removeprefix(_NEW))
        folder = lock.with_suffix("")
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            _remove(folder, lock)
    finally:
        os.close(handle)


def _remove_abandoned(prefix: str, parent: Path) -> None:
    ours = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(LOCK)}")
    for lock in parent.iterdir():
        if not ours.fullmatch(lock.name):
            continue
        try:
            handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # it is gone, or somebody else's
            continue
        try:
            if os.fstat(handle).st_uid == os.getuid() and try_lock(handle):
                _remove(lock.with_suffix(""), lock)
        finally:
            os.close(handle)


def _remove(folder: Path, lock: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():  # else the next process tries again
        lock.unlink(missing_ok=True)
