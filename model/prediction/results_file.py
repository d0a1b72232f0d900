"""A results file that grows by a row per video and knows which videos it lacks."""

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

SUFFIXES = (".csv", ".jsonl")
OUTSIDE = "outside the corpus"  # as in rejected.csv
RETRIED = (*Rejected.TRANSIENT_REASONS, OUTSIDE)  # reasons that may have gone
COLUMNS = (
    *(field.name for field in dataclasses.fields(Prediction)),
    *("n_bytes", "modified", "run", "run_sha256"),
)

ResultRow = Mapping[str, Any]
FileState = tuple[int | None, str | None]  # size in bytes, time of modification


def check_suffix(path: Path) -> None:
    """Raise `SettingsError` unless the file's name ends as a known format."""
    if path.suffix.lower() not in SUFFIXES:
        raise SettingsError(
            f"{path} ends in neither {' nor '.join(SUFFIXES)}",
            "name the results like results.csv, or like results.jsonl for a JSON object a line",
        )


class ResultsFile:
    """A results file, locked against other writers while used as a context manager.

    A row has the fields of a `Prediction`; the video's size in bytes and time of modification
    before it was read; the run's folder and digest.
    """

    def __init__(self, path: Path, run: Run, *, by_detector: bool = True) -> None:
        check_suffix(path)
        self.path = Path(os.path.realpath(path))  # a link stays one when the file is replaced
        self._is_csv = path.suffix.lower() == ".csv"
        self._run_columns = {"run": str(run.folder.resolve()), "run_sha256": digest_of(run)}
        self._by_detector = by_detector
        self._states: dict[str, FileState] = {}

    def __enter__(self) -> "ResultsFile":
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

    def resume(self, paths: Iterable[Path], on_valid: Callable[[ResultRow], object]) -> list[Path]:
        """Remove a torn last line and rows of changed files; return the absolute paths to predict.

        Rows of other videos stay. `on_valid` is called with each row that is still valid.
        """
        self._states = {str(path): _file_state(path) for path in paths}
        done: set[str] = set()
        outdated: set[int] = set()
        end = self._end()
        for number, row in enumerate(self._rows(end)):
            self._check_run(row)
            path = row["path"]
            if path not in self._states:
                continue
            if path in done or not _is_valid(row, self._states[path]):
                outdated.add(number)
            else:
                done.add(path)
                on_valid(row)
        os.truncate(self.path, end)
        if outdated:
            self._rewrite(row for n, row in enumerate(self._rows(end)) if n not in outdated)
        if self._is_csv and not end:
            self._append(csv_line(COLUMNS))
        return [Path(path) for path in self._states if path not in done]

    def append(self, prediction: Prediction) -> None:
        """Append the row of a path that `resume` was given."""
        n_bytes, modified = self._states[prediction.path]
        columns = {"n_bytes": n_bytes, "modified": modified} | self._run_columns
        self._append(self._line(dataclasses.asdict(prediction) | columns))

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

    def _line(self, row: ResultRow) -> bytes:
        if self._is_csv:
            return csv_line(row.values())
        return (json.dumps(row, allow_nan=False) + "\n").encode()

    def _rewrite(self, rows: Iterable[ResultRow]) -> None:
        with whole_file(self.path) as temporary, temporary.open("wb") as file:
            if self._is_csv:
                file.write(csv_line(COLUMNS))
            file.writelines(self._line(row) for row in rows)
        self._file.close()
        self._file = self._open()

    def _end(self) -> int:
        """Return the length of all whole rows in bytes; a kill may have torn the last."""
        end = end_of_lines(self.path, quoted=self._is_csv)
        start = csv_line(COLUMNS) if self._is_csv else b'{"path": "'
        with self.path.open("rb") as file:
            torn = b"" if end else file.read(len(start))
        if not start.startswith(torn):
            raise self._not_results("its first line is something else")
        return end

    def _rows(self, end: int) -> Iterator[ResultRow]:
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
            raise self._not_results(str(error)) from error

    def _not_results(self, why: str) -> SettingsError:
        return SettingsError(
            f"{self.path} does not hold results of this command: {why}",
            "give another file with -o",
        )

    def _check_run(self, row: ResultRow) -> None:
        ours = self._run_columns
        if row["run_sha256"] != ours["run_sha256"]:
            raise SettingsError(
                f"{self.path} holds results of the run {row['run']} "
                f"(sha256 {str(row['run_sha256'])[:12]}), not of {ours['run']} "
                f"(sha256 {ours['run_sha256'][:12]})",
                "give another file with -o",
            )
        if (row["threshold"] not in (None, "")) != self._by_detector:
            kind, way_out = ("without", "add") if self._by_detector else ("of", "leave out")
            raise SettingsError(
                f"{self.path} holds results {kind} the detector",
                f"give another file with -o, or {way_out} --only anomaly",
            )


def _lines(path: Path, end: int) -> Iterator[str]:
    with path.open("rb") as file:
        while file.tell() < end:
            yield file.readline().decode("utf-8", "surrogateescape")


def _file_state(path: Path) -> FileState:
    with contextlib.suppress(OSError, ValueError):
        status = path.stat()
        modified = datetime.fromtimestamp(status.st_mtime, timezone.utc)
        return status.st_size, modified.isoformat(timespec="microseconds")
    return None, None


def _is_valid(row: ResultRow, state: FileState) -> bool:
    unchanged = [csv_text(row["n_bytes"]), csv_text(row["modified"])] == list(map(csv_text, state))
    return unchanged and row["reason"].split(":")[0] not in RETRIED
