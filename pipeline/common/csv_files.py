"""CSV files: safe to open in a spreadsheet, read back unchanged."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.common.files import write_whole

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file from which `read_csv` returns the same texts."""
    lines = [csv_line(row) for row in (header, *rows)]
    write_whole(path, lambda temporary: temporary.write_bytes(b"".join(lines)))


def csv_line(values: Iterable[Any]) -> bytes:
    """Return a line, with a ' before what a spreadsheet would take for a formula."""
    cells = [f"'{text}" if _is_formula(text) else text for text in map(csv_text, values)]
    # The writer does not quote a carriage return by itself.
    has_return = any("\r" in cell for cell in cells)
    quoting: Literal[0, 1] = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n", quoting=quoting).writerow(cells)
    return line.getvalue().encode("utf-8", "surrogateescape")


def csv_text(value: Any) -> str:
    """Return the text of a value: None is empty; dicts, lists and tuples are JSON."""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value)
    return "" if value is None else str(value)


def plain_text(cell: str) -> str:
    """Return the text that `csv_line` wrote into a cell."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _is_formula(text: str) -> bool:
    """Return whether a spreadsheet might calculate a text, with or without a leading '."""
    if not text.lstrip("'").startswith(FORMULA_STARTS):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


class CsvRow(dict[str, str]):
    """A row: column → text; ``line`` is the number of its last line."""

    line: int

    @property
    def columns(self) -> str:
        """The first column names, for a message."""
        return first_few([f"{name!s:.20}" for name in self], 6)


def first_few(names: Sequence[str], n: int) -> str:
    """Return the first n names, and "..." if there are more."""
    return ", ".join(names[:n]) + (", ..." if len(names) > n else "")


def read_csv(path: Path) -> list[CsvRow]:
    """Read anybody's CSV file with a header; raise OSError or csv.Error if that fails."""
    rows = []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        if not "".join(reader.fieldnames or ()).isprintable():
            raise csv.Error("its first line is no text in UTF-8")
        for values in reader:
            row = CsvRow(values)
            # Missing cells are None, surplus ones a list.
            texts = {name: cell for name, cell in values.items() if isinstance(cell, str)}
            row.update((name, plain_text(cell)) for name, cell in texts.items())
            row.line = reader.line_num
            rows.append(row)
    return rows
