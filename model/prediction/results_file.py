"""A file of verdicts that grows by a line a video, and knows which videos it still lacks."""

import contextlib
import csv
import dataclasses
import json
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from model.prediction.predict_videos import Prediction
from model.run.run import Run, digest_of
from pipeline.common.csv_files import csv_line, csv_text, plain_text
from pipeline.common.errors import Rejected, SettingsError
from pipeline.common.files import end_of_lines, try_lock, whole_file

ENDINGS = (".csv", ".jsonl")
OUTSIDE = "outside the corpus"  # as in rejected.csv
AGAIN = (*Rejected.PASSING, OUTSIDE)  # reasons that may be gone the next time
COLUMNS = (
    *(field.name for field in dataclasses.fields(Prediction)),
    *("n_bytes", "modified", "run", "run_sha256"),
)

Row = Mapping[str, Any]
Stamp = tuple[int | None, str | None]


def check_ending(path: Path) -> None:
    """Raise `SettingsError` if a file's name does not say how to write it."""
    if path.suffix.lower() not in ENDINGS:
        raise SettingsError(
            f"{path} ends in neither {' nor '.join(ENDINGS)}",
            "name the results like results.csv, or like results.jsonl for a JSON object a line",
        )


class Results:
    """The right to write one file of results, alone, and what an earlier command left in it.

    Use it as a context manager. A row has the fields of a `Prediction`; the size of the file in
    bytes and when it was modified, before it was looked at; the run's folder and its digest.

    Args:
        path: ends in ``.csv`` or ``.jsonl``; folders that are missing are made.
        run: that judges.

    Raises:
        SettingsError: another process is writing it.
    """

    def __init__(self, path: Path, run: Run) -> None:
        check_ending(path)
        self.path = Path(os.path.realpath(path))  # a link stays one when the file is replaced
        self._is_csv = path.suffix.lower() == ".csv"
        self._about = {"run": str(run.folder.resolve()), "run_sha256": digest_of(run)}
        self._stamps: dict[str, Stamp] = {}

    def __enter__(self) -> "Results":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._file.close()  # which gives up the lock; so does the end of the process

    def resume(self, paths: Iterable[Path], known: Callable[[Row], object]) -> list[Path]:
        """Cut off a torn last line, and remove rows of files that have changed.

        Rows of other videos stay. What may have been the machine's fault is judged again.

        Args:
            paths: absolute, of the videos that are asked for.
            known: called with every row that holds for one of them.

        Returns:
            the paths that have no such row, in the order given.

        Raises:
            SettingsError: the file holds something else, or what another run says.
        """
        self._stamps = {str(path): _stamp(path) for path in paths}
        done: set[str] = set()
        outdated: set[int] = set()
        end = self._end()
        for number, row in enumerate(self._rows(end)):
            self._check_run(row)
            path = row["path"]
            if path not in self._stamps:
                continue
            if path in done or not _holds(row, self._stamps[path]):
                outdated.add(number)
            else:
                done.add(path)
                known(row)
        os.truncate(self.path, end)
        if outdated:
            self._rewrite(row for n, row in enumerate(self._rows(end)) if n not in outdated)
        if self._is_csv and not end:
            self._append(csv_line(COLUMNS))
        return [Path(path) for path in self._stamps if path not in done]

    def append(self, prediction: Prediction) -> None:
        """Write one more row, of one of the paths that `resume` was given."""
        n_bytes, modified = self._stamps[prediction.path]
        facts = {"n_bytes": n_bytes, "modified": modified} | self._about
        self._append(self._line(dataclasses.asdict(prediction) | facts))

    def _open(self) -> BinaryIO:
        file = self.path.open("ab")
        if not try_lock(file):
            file.close()
            raise SettingsError(
                f"another process is writing {self.path}",
                "wait for it to end, or give another file with -o",
            )
        return file

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _line(self, row: Row) -> bytes:
        if self._is_csv:
            return csv_line(row.values())
        return (json.dumps(row, allow_nan=False) + "\n").encode()

    def _rewrite(self, rows: Iterable[Row]) -> None:
        with whole_file(self.path) as temporary, temporary.open("wb") as file:
            if self._is_csv:
                file.write(csv_line(COLUMNS))
            file.writelines(self._line(row) for row in rows)
        self._file.close()
        self._file = self._open()

    def _end(self) -> int:
        """Where the last whole row ends, in bytes: a kill may have cut off the one after it."""
        end = end_of_lines(self.path, quoted=self._is_csv)
        begin = csv_line(COLUMNS) if self._is_csv else b'{"path": "'
        with self.path.open("rb") as file:
            torn = b"" if end else file.read(len(begin))
        if not begin.startswith(torn):
            raise self._foreign("its first line is something else")
        return end

    def _rows(self, end: int) -> Iterator[Row]:
        try:
            lines = _lines(self.path, end)
            if self._is_csv:
                reader = csv.reader(lines)
                header = tuple(next(reader, COLUMNS))
                rows: Iterator[Any] = (
                    dict(zip(header, map(plain_text, cells), strict=True)) for cells in reader
                )
            else:
                header, rows = COLUMNS, map(json.loads, lines)
            if header != COLUMNS:
                raise ValueError(f"its columns are {', '.join(header)}")
            for row in rows:
                if tuple(row) != COLUMNS:
                    raise ValueError("its columns are others")
                yield row
        except (csv.Error, ValueError, TypeError) as error:
            raise self._foreign(str(error)) from error

    def _foreign(self, why: str) -> SettingsError:
        return SettingsError(
            f"{self.path} does not hold results of this command: {why}",
            "give another file with -o",
        )

    def _check_run(self, row: Row) -> None:
        if row["run_sha256"] != self._about["run_sha256"]:
            raise SettingsError(
                f"{self.path} holds results of the run {row['run']} "
                f"(sha256 {str(row['run_sha256'])[:12]}), not of {self._about['run']} "
                f"(sha256 {self._about['run_sha256'][:12]})",
                "give another file with -o",
            )


def _lines(path: Path, end: int) -> Iterator[str]:
    with path.open("rb") as file:
        while file.tell() < end:
            yield file.readline().decode("utf-8", "surrogateescape")


def _stamp(path: Path) -> Stamp:
    """A file's size in bytes and when it was modified; what changes when its content does."""
    with contextlib.suppress(OSError, ValueError):
        status = path.stat()
        modified = datetime.fromtimestamp(status.st_mtime, timezone.utc)
        return status.st_size, modified.isoformat(timespec="microseconds")
    return None, None


def _holds(row: Row, stamp: Stamp) -> bool:
    same = [csv_text(row["n_bytes"]), csv_text(row["modified"])] == list(map(csv_text, stamp))
    return same and row["reason"].split(":")[0] not in AGAIN
