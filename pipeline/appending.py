"""Files that one process appends lines to: no second writer, and no half a line after a kill."""

import errno
import fcntl
from pathlib import Path
from typing import IO


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
