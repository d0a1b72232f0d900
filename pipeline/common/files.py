"""Files that are whole or not there, whatever happens while they are written."""

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

_TEMPORARY = re.compile(r"\.(.+\.(h5|csv|json|png|pt|html|jsonl|md)|SHA256SUMS)\.[a-z0-9_]{8}")


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        if hasattr(hashlib, "file_digest"):  # Python 3.11
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        return digest.hexdigest()


def stamp_of(path: Path) -> list[int]:
    """A file's size in bytes and time in ns, which tell that it has changed; 0, 0 if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file that is either whole or not there, whatever happens meanwhile.

    Args:
        path: the file to make or to replace.

    Yields:
        a temporary path in the same folder, of an empty file to be filled.
    """
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
    except OSError as error:  # nobody knows the temporary name; PyAV's errors keep theirs
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Make a file that is either whole or not there; ``write`` fills a temporary path."""
    with whole_file(path) as temporary:
        write(temporary)


def remove_temporaries(folder: Path) -> None:
    """Remove what `write_whole` leaves behind in a folder when its process is killed."""
    for path in folder.glob(".*.????????"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink()


def fsync(path: Path) -> None:
    """Let a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def one_line(text: str) -> str:
    """A text with names of files in it as one line that a terminal takes for nothing else."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def readable_bytes(n: float) -> str:
    """``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def try_lock(file: int | IO[bytes]) -> bool:
    """Lock an open file or folder, unless another process has; closing it gives up the lock.

    So does the end of the process.

    Raises:
        OSError: the file system knows no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


def end_of_lines(path: Path, *, quoted: bool = False) -> int:
    """Where the last whole line of a file ends, in bytes: a kill may have cut the one after it.

    Args:
        path: of the file.
        quoted: it is CSV, where a quoted value may hold line breaks.
    """
    end = at = quotes = 0
    with path.open("rb") as file:
        for line in file:
            at += len(line)
            quotes += line.count(b'"')
            if line.endswith(b"\n") and not (quoted and quotes % 2):
                end = at
    return end


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
