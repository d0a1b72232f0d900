"""Files that are whole or not there, whatever happens while they are written."""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # how one may begin
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


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, whole or not at all; `read_csv` gives back the very texts."""
    lines = [csv_line(row) for row in (header, *rows)]
    write_whole(path, lambda temporary: temporary.write_bytes(b"".join(lines)))


def csv_line(values: Iterable[Any]) -> bytes:
    """A line of a CSV file; what a spreadsheet would take for a formula gets a ' in front."""
    cells = [f"'{text}" if _is_formula(text) else text for text in map(csv_text, values)]
    # Of itself the writer would not quote a carriage return.
    odd = any("\r" in cell for cell in cells)
    quoting: Literal[0, 1] = csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n", quoting=quoting).writerow(cells)
    return line.getvalue().encode("utf-8", "surrogateescape")


def csv_text(value: Any) -> str:
    """A value as a text that is read back; None is empty, what has parts is JSON."""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value)
    return "" if value is None else str(value)


def plain_text(cell: str) -> str:
    """What `csv_line` was given for the text of a cell."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet might calculate it; what begins with ' counts as what follows."""
    if not text.lstrip("'").startswith(FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


class Row(dict[str, str]):
    """A row of a CSV file by the names in its header; ``line`` is where it ends in the file."""

    line: int

    @property
    def columns(self) -> str:
        """The first few names in the header, for a message."""
        names = [f"{name!s:.20}" for name in self]
        return some(names, 6)


def some(names: Sequence[str], n: int) -> str:
    """The first n names as a list in a message, which says if there are more."""
    return ", ".join(names[:n]) + (", ..." if len(names) > n else "")


def read_csv(path: Path) -> list[Row]:
    """The rows of a CSV file with a header, anybody's or ours.

    Raises:
        OSError, csv.Error: it cannot be read.
    """
    rows = []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        if not "".join(reader.fieldnames or ()).isprintable():
            raise csv.Error("its first line is no text in UTF-8")
        for values in reader:
            row = Row(values)
            # A row of another length has None, or a list.
            texts = {name: cell for name, cell in values.items() if isinstance(cell, str)}
            row.update((name, plain_text(cell)) for name, cell in texts.items())
            row.line = reader.line_num
            rows.append(row)
    return rows


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
