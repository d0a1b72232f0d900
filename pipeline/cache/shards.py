"""Shards: HDF5 files with the arrays of some clips."""

import contextlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.cache.deflate import write_gzip
from pipeline.cache.layout import (
    CHUNK_BYTES,
    FILTERS,
    HDF5_ERRORS,
    Compression,
    local_dataset,
    local_group,
)
from pipeline.cache.rows import Shard
from pipeline.common.files import sha256_of, whole_file

MAX_PENDING = 4  # calls that wait for the writing thread; chunks hold memory


class IncompleteDataset(ValueError):
    """A shard was closed before a dataset had all of its rows."""


class ShardWriter:
    """Writes growing arrays to a shard in a thread, in the memory of a few chunks.

    Closing it raises `IncompleteDataset` if rows are missing.

    Example:
        >>> with ShardWriter(io.BytesIO()) as shard:
        ...     shard.begin("c0ffee", "flow", (3, 48, 64), np.uint8)
        ...     shard.append("c0ffee", "flow", np.zeros((2, 48, 64), np.uint8))
        ...     shard.append("c0ffee", "flow", np.zeros((1, 48, 64), np.uint8))
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        attrs: Mapping[str, str] | None = None,
        compression: Compression = "gzip",
    ) -> None:
        self._file = h5py.File(file, "w")
        self._file.attrs.update(attrs or {})
        self._compression: Compression = compression
        self._unfinished: dict[tuple[str, str], _RowBuffer] = {}
        self._datasets: dict[tuple[str, str], h5py.Dataset] = {}
        self._thread = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait(0)
                if self._unfinished:
                    raise IncompleteDataset(f"rows are missing from {sorted(self._unfinished)}")
        finally:
            self._thread.shutdown(cancel_futures=True)
            self._file.close()

    def begin(self, clip: str, key: str, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        """Create an empty dataset; its first axis is time."""
        dtype = np.dtype(dtype)
        row_bytes = max(int(np.prod(shape[1:])) * dtype.itemsize, 1)
        chunk_rows = max(1, min(shape[0], CHUNK_BYTES // row_bytes))
        self._submit(self._create, clip, key, tuple(shape), dtype, chunk_rows)
        if shape[0]:
            self._unfinished[clip, key] = _RowBuffer(shape[0], chunk_rows)

    def append(self, clip: str, key: str, rows: npt.NDArray[Any]) -> None:
        """Write the next rows of a dataset, which must not change afterwards."""
        if not len(rows):
            return
        if (clip, key) not in self._unfinished:
            raise ValueError(f"{clip}/{key} was not begun, or has all its rows")
        buffer = self._unfinished[clip, key]
        for start, chunk in buffer.add(rows):
            self._submit(self._write, clip, key, start, chunk)
        if buffer.n_rows == buffer.n_expected:
            del self._unfinished[clip, key]

    def copy(self, shard: Path, clips: Sequence[str]) -> None:
        """Copy clips from another shard as they are stored."""
        self._submit(self._copy, shard, clips)

    # One thread makes all calls to HDF5 in order: a shard's bytes must not depend on timing.

    def _create(
        self, clip: str, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunk_rows: int
    ) -> None:
        self._datasets[clip, key] = self._file.require_group(clip).create_dataset(
            key,
            shape=shape,
            dtype=dtype,
            chunks=(chunk_rows, *shape[1:]),
            fletcher32=True,
            **FILTERS[self._compression],
        )

    def _write(self, clip: str, key: str, start: int, chunk: npt.NDArray[Any]) -> None:
        dataset = self._datasets[clip, key]
        if self._compression == "gzip":
            write_gzip(dataset, chunk, start)
        else:
            dataset[start : start + len(chunk)] = chunk

    def _copy(self, shard: Path, clips: Sequence[str]) -> None:
        with h5py.File(shard) as other:
            for clip in clips:
                other.copy(local_group(other, clip), self._file, clip)

    def _submit(self, call: Callable[..., None], *arguments: Any) -> None:
        self._wait(MAX_PENDING - 1)
        self._pending.append(self._thread.submit(call, *arguments))

    def _wait(self, n_left: int) -> None:
        """Wait until at most ``n_left`` calls are pending; raise their errors."""
        while len(self._pending) > n_left:
            self._pending.popleft().result()


class _RowBuffer:
    """Rows of a dataset, collected until they fill a chunk."""

    def __init__(self, n_expected: int, chunk_rows: int) -> None:
        self.n_expected = n_expected
        self.n_rows = 0  # received
        self._chunk_rows = chunk_rows
        self._parts: list[npt.NDArray[Any]] = []  # of the chunk that is not full yet

    def add(self, rows: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Take rows; yield the chunks that they complete, with the index of the first row."""
        if self.n_rows + len(rows) > self.n_expected:
            raise ValueError(f"{self.n_rows + len(rows)} rows given, {self.n_expected} expected")
        while len(rows):
            n_free = self._chunk_rows - self.n_rows % self._chunk_rows
            part, rows = rows[:n_free], rows[n_free:]
            self._parts.append(part)
            self.n_rows += len(part)
            if self.n_rows % self._chunk_rows == 0 or self.n_rows == self.n_expected:
                chunk = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
                self._parts = []
                yield self.n_rows - len(chunk), chunk


class _UnfailingFile(io.FileIO):
    """A file whose writes seem to succeed: HDF5 answers a full disk with a segmentation fault."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while len(rest) and self.failure is None:
            try:
                rest = rest[cast(int, super().write(rest)) :]
            except OSError as error:
                self.failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


@contextlib.contextmanager
def _unfailing_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears whole or not at all; failed writes raise OSError at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, _UnfailingFile(temporary, "r+") as file:
        try:
            yield cast(BinaryIO, file)
        except HDF5_ERRORS:
            if file.failure is None:
                raise
        if file.failure is not None:
            raise file.failure


@contextlib.contextmanager
def writing_shard(
    cache: Path, name: str, *, attrs: Mapping[str, str], compression: Compression = "gzip"
) -> Iterator[ShardWriter]:
    """Write a shard that appears whole or not at all; a ``recipe`` in attrs is for resuming."""
    with (
        _unfailing_file(cache / name) as file,
        ShardWriter(file, attrs=attrs, compression=compression) as shard,
    ):
        yield shard


@contextlib.contextmanager
def writing_hdf5(path: Path) -> Iterator[h5py.File]:
    """Write an HDF5 file that appears whole or not at all."""
    with _unfailing_file(path) as file, h5py.File(file, "w") as hdf5:
        yield hdf5


def shard_row(cache: Path, name: str) -> Shard:
    """Return the index row of a shard on disk."""
    return Shard(name, (cache / name).stat().st_size, sha256_of(cache / name))


def shard_recipe(cache: Path, name: str) -> str | None:
    """Return the recipe of a shard that can be read to its end, else None."""
    try:
        check_shard(cache, name)
        with h5py.File(cache / name) as file:
            return str(file.attrs["recipe"])
    except HDF5_ERRORS:
        return None


def check_shard(cache: Path, name: str) -> None:
    """Read a shard to its end; raise one of `HDF5_ERRORS` if anything is wrong."""
    with h5py.File(cache / name) as file:
        for clip, group in file.items():
            for key in group:
                dataset = local_dataset(file, clip, key)
                rows = dataset.chunks[0]
                for start in range(0, len(dataset), rows):
                    dataset[start : start + rows]


def read_shard(cache: Path, name: str) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Read a shard: clip id → dataset → array."""
    with h5py.File(cache / name) as file:
        return {
            str(clip): {str(key): local_dataset(file, clip, key)[:] for key in group}
            for clip, group in file.items()
        }


def read_dataset(cache: Path, shard: str, clip: str, key: str) -> npt.NDArray[Any]:
    """Read a dataset of a shard."""
    with h5py.File(cache / shard) as file:
        return local_dataset(file, clip, key)[:]
