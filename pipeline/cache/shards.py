"""Shards: HDF5 files with the arrays of some clips, written piece by piece."""

import contextlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, cast

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.cache.deflate import write_gzip
from pipeline.cache.rows import Shard
from pipeline.common.files import sha256_of, whole_file

CHUNK_BYTES = 2**20
PIECES_WAITING = 4  # chunks to be compressed, at most: they hold memory
Compression = Literal["gzip", "none"]
COMPRESSIONS: dict[Compression, dict[str, Any]] = {
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "none": {},
}
# What h5py, and reading what it gives, raise over damaged files.
DAMAGED = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)


class Unfilled(ValueError):
    """A dataset was begun and did not get all of its rows."""


class ShardWriter:
    """Writes a shard as its arrays grow; what is not on disk yet is bounded by a few chunks.

    Chunks are compressed and written in a thread of their own while the caller goes on. Use it as
    a context manager.

    Args:
        file: a seekable binary file, open for reading and writing; it is not closed.
        attrs: attributes of the shard.
        compression: ``gzip`` or ``none``; any HDF5 reader reads both.

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
        self._open: dict[tuple[str, str], _Growing] = {}
        self._datasets: dict[tuple[str, str], h5py.Dataset] = {}
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._settle(0)
                if self._open:
                    raise Unfilled(f"rows are missing from {sorted(self._open)}")
        finally:
            self._thread.shutdown(cancel_futures=True)
            self._file.close()

    def begin(self, clip: str, key: str, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        """Make a dataset of a clip, still empty; its first axis is time."""
        dtype = np.dtype(dtype)
        row_bytes = max(int(np.prod(shape[1:])) * dtype.itemsize, 1)
        rows = max(1, min(shape[0], CHUNK_BYTES // row_bytes))
        self._submit(self._create, clip, key, tuple(shape), dtype, rows)
        if shape[0]:
            self._open[clip, key] = _Growing(shape[0], rows)

    def append(self, clip: str, key: str, rows: npt.NDArray[Any]) -> None:
        """Write the next rows of a dataset. The caller must not change them afterwards.

        Raises:
            ValueError: the dataset is full.
        """
        if not len(rows):
            return
        if (clip, key) not in self._open:
            raise ValueError(f"{clip}/{key} was not begun, or has all its rows")
        growing = self._open[clip, key]
        for start, chunk in growing.whole_chunks(rows):
            self._submit(self._write, clip, key, start, chunk)
        if growing.n_rows == growing.total:
            del self._open[clip, key]

    def copy(self, shard: Path, clips: Sequence[str]) -> None:
        """Take clips of another shard over, compressed as they are."""
        self._submit(self._copy, shard, clips)

    # All that touches the file is done in one thread, in the order in which it was asked for: the
    # bytes of a shard must not depend on how fast threads are.

    def _create(
        self, clip: str, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], rows: int
    ) -> None:
        self._datasets[clip, key] = self._file.require_group(clip).create_dataset(
            key,
            shape=shape,
            dtype=dtype,
            chunks=(rows, *shape[1:]),
            fletcher32=True,
            **COMPRESSIONS[self._compression],
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
                other.copy(_own(other, clip, h5py.Group), self._file, clip)

    def _submit(self, do: Callable[..., None], *arguments: Any) -> None:
        self._settle(PIECES_WAITING - 1)
        self._waiting.append(self._thread.submit(do, *arguments))

    def _settle(self, left: int) -> None:
        """Wait until at most so many things are undone, and raise what went wrong with them."""
        while len(self._waiting) > left:
            self._waiting.popleft().result()


class _Growing:
    """A dataset that is filled in order, chunk by chunk."""

    def __init__(self, total: int, rows: int) -> None:
        self.total = total
        self.n_rows = 0  # that were given
        self._per_chunk = rows
        self._rest: list[npt.NDArray[Any]] = []  # of them, those that do not fill a chunk yet

    def whole_chunks(self, rows: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """The chunks that these rows complete, and the row that each begins at."""
        if self.n_rows + len(rows) > self.total:
            raise ValueError(f"{self.n_rows + len(rows)} rows were given, {self.total} belong here")
        while len(rows):
            begun = self.n_rows % self._per_chunk
            taken, rows = rows[: self._per_chunk - begun], rows[self._per_chunk - begun :]
            self._rest.append(taken)
            self.n_rows += len(taken)
            if self.n_rows % self._per_chunk == 0 or self.n_rows == self.total:
                chunk = self._rest[0] if len(self._rest) == 1 else np.concatenate(self._rest)
                self._rest = []
                yield self.n_rows - len(chunk), chunk


class _Unfailing(io.FileIO):
    """A file to which every write seems to succeed, so that HDF5 never meets a full disk.

    HDF5 answers a failed write with a segmentation fault, then or when it closes the file.
    """

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
    """A file for HDF5 to write to; it is there when the block ends, whole or not at all.

    Raises:
        OSError: the disk is full, or the like.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, _Unfailing(temporary, "r+") as file:
        try:
            yield cast(BinaryIO, file)
        except DAMAGED:
            if file.failure is None:
                raise
        if file.failure is not None:
            raise file.failure


@contextlib.contextmanager
def writing_shard(
    cache: Path, name: str, *, attrs: Mapping[str, str], compression: Compression = "gzip"
) -> Iterator[ShardWriter]:
    """Write one shard piece by piece; it is there when the block ends, whole or not at all.

    Args:
        cache: the cache's folder.
        name: path of the shard, relative to it.
        attrs: attributes of the shard; ``recipe`` decides whether a resumed run may keep it.
        compression: ``gzip`` or ``none``.

    Raises:
        OSError: the disk is full, or the like.
    """
    with (
        _unfailing_file(cache / name) as file,
        ShardWriter(file, attrs=attrs, compression=compression) as shard,
    ):
        yield shard


@contextlib.contextmanager
def writing_hdf5(path: Path) -> Iterator[h5py.File]:
    """Write an HDF5 file; it is there when the block ends, whole or not at all."""
    with _unfailing_file(path) as file, h5py.File(file, "w") as hdf5:
        yield hdf5


def write_shard(
    cache: Path,
    name: str,
    clips: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    *,
    attrs: Mapping[str, str],
    compression: Compression = "gzip",
) -> Shard:
    """Write one shard at once: for each clip id its datasets, the first axis of each being time.

    The other arguments are as of `writing_shard`.
    """
    with writing_shard(cache, name, attrs=attrs, compression=compression) as shard:
        for clip, datasets in clips.items():
            for key, array in datasets.items():
                shard.begin(clip, key, array.shape, array.dtype)
                shard.append(clip, key, array)
    return shard_row(cache, name)


def shard_row(cache: Path, name: str) -> Shard:
    """Measure a shard that is on disk."""
    return Shard(name, (cache / name).stat().st_size, sha256_of(cache / name))


def shard_attrs(cache: Path, name: str) -> dict[str, str] | None:
    """The attributes of a shard, or None if it is not there or cannot be read to its end."""
    try:
        check_shard(cache, name)
        with h5py.File(cache / name) as file:
            return {str(key): str(value) for key, value in file.attrs.items()}
    except DAMAGED:
        return None


def check_shard(cache: Path, name: str) -> None:
    """Read a shard to its end, chunk by chunk.

    Raises:
        one of `DAMAGED`: it cannot be read, or a checksum is wrong.
    """
    with h5py.File(cache / name) as file:
        for clip, group in file.items():
            for key in group:
                dataset = own_dataset(file, clip, key)
                for start in range(0, len(dataset), (dataset.chunks or (len(dataset),))[0] or 1):
                    dataset[start : start + dataset.chunks[0]]


def read_shard(cache: Path, name: str) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Everything in one shard: clip id → dataset → array."""
    with h5py.File(cache / name) as file:
        return {
            str(clip): {str(key): own_dataset(file, clip, key)[:] for key in group}
            for clip, group in file.items()
        }


def read_dataset(cache: Path, shard: str, clip: str, key: str) -> npt.NDArray[Any]:
    """One dataset of a shard."""
    with h5py.File(cache / shard) as file:
        return own_dataset(file, clip, key)[:]


def own_dataset(file: h5py.File, clip: str, key: str) -> h5py.Dataset:
    """A dataset whose values are in this very file: a stranger's shard must not lead elsewhere.

    Raises:
        KeyError: it is not there.
        ValueError: it is elsewhere.
    """
    return _own(_own(file, clip, h5py.Group), key, h5py.Dataset)


def own_table(file: h5py.File, name: str) -> npt.NDArray[Any]:
    """A table that is stored in this very file; errors as of `own_dataset`."""
    return _own(file, name, h5py.Dataset)[:]


def _own(group: h5py.Group, name: str, kind: type) -> Any:
    if "/" in name or not isinstance(group.get(name, getlink=True), h5py.HardLink | None):
        raise ValueError(f"{name!r} is not stored in this file")
    found = group[name]
    if not isinstance(found, kind) or (
        isinstance(found, h5py.Dataset) and (found.is_virtual or found.external)
    ):
        raise ValueError(f"{name!r} is not stored in this file")
    return found
