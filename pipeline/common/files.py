"""Files that are written whole or not at all, locks, and scratch folders."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_TEMPORARY = re.compile(
    r"\.(.+\.(h5|csv|json|png|pt|html|jsonl|md|mp4|mkv)|SHA256SUMS)\.[a-z0-9_]{8}"
)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        if hasattr(hashlib, "file_digest"):  # Python 3.11
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        return digest.hexdigest()


def stamp_of(path: Path) -> list[int]:
    """Return a file's size in bytes and modification time in ns, or 0, 0 without a file."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file in the same folder, which replaces ``path`` in the end."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            fsync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync(path.parent)
    except OSError as error:  # name the file that the user knows
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that appears whole or not at all; ``write`` fills a temporary path."""
    with whole_file(path) as temporary:
        write(temporary)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left of `whole_file`."""
    for path in folder.glob(".*.????????"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink()


def fsync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def one_line(text: str) -> str:
    """Return a text, which may hold any file name, as one printable line."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def readable_bytes(n: float) -> str:
    """Return a size as in ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def try_lock(file: int | IO[bytes]) -> bool:
    """Lock an open file or folder until it is closed; return False if another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


def end_of_lines(path: Path, *, quoted: bool = False) -> int:
    """Return the end of the last whole line in bytes; if quoted, values may hold line breaks."""
    end = at = quotes = 0
    with path.open("rb") as file:
        for line in file:
            at += len(line)
            quotes += line.count(b'"')
            if line.endswith(b"\n") and not (quoted and quotes % 2):
                end = at
    return end


_LOCK_SUFFIX = ".lock"  # of a file beside each scratch folder that its process locks
_UNLOCKED_PREFIX = ".new-"  # of that file before it is locked


@contextlib.contextmanager
def scratch_folder(prefix: str = "deepfake-motion-", parent: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder; also remove those of this prefix that killed processes left."""
    parent = parent or Path(tempfile.gettempdir())
    _remove_abandoned(prefix, parent)
    handle, name = tempfile.mkstemp(_LOCK_SUFFIX, _UNLOCKED_PREFIX + prefix, parent)
    try:
        try_lock(handle)
        lock = Path(name).rename(parent / Path(name).name.removeprefix(_UNLOCKED_PREFIX))
        folder = lock.with_suffix("")
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            _remove(folder, lock)
    finally:
        os.close(handle)


def _remove_abandoned(prefix: str, parent: Path) -> None:
    lock_name = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(_LOCK_SUFFIX)}")
    for lock in parent.iterdir():
        if not lock_name.fullmatch(lock.name):
            continue
        try:
            handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # gone, or another user's
            continue
        try:
            if os.fstat(handle).st_uid == os.getuid() and try_lock(handle):
                _remove(lock.with_suffix(""), lock)
        finally:
            os.close(handle)


def _remove(folder: Path, lock: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():  # otherwise the next process tries again
        lock.unlink(missing_ok=True)
