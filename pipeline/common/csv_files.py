"""CSV files: written whole, safe to open in a spreadsheet, read back to the very texts."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.common.files import write_whole

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # how one may begin


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
        return first_few(names, 6)


def first_few(names: Sequence[str], n: int) -> str:
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
