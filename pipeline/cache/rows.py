"""The rows of an index: clips and shards as objects, and as the tables that HDF5 stores."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, overload

import h5py
import numpy as np
import numpy.typing as npt

Row = TypeVar("Row")
BLOCK = 4096  # rows turned into objects at once, and of one chunk on disk


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the index: what is known of a clip and of the video it was cut from.

    ``width``, ``height``, ``fps``, ``duration``, ``bit_rate`` and ``n_bytes`` describe the source
    file, not the clip. They feed the metadata-only baseline, never the detector.
    """

    id: str
    video: str  # clips of one video share it
    label: int  # 0 real, 1 fake
    split: str  # train, test, val, holdout, or "" for one that would straddle
    identities: tuple[str, ...]
    shard: str  # path of the shard, relative to the cache
    n_frames: int  # frames in this clip
    start: float  # seconds into the video
    fps: float  # the video's frames per second
    width: int
    height: int
    duration: float  # seconds
    bit_rate: float  # bits per second, of the whole file
    n_bytes: int
    source_sha256: str
    source: str = ""  # the dataset, or the folder or CSV file that the video was found by
    manipulation: str = ""  # as its dataset calls it; "" for real videos and where nobody said
    compression: str = ""  # raw, c23, c40, or "" where nobody said
    original: str = ""  # the recording it shows, as its dataset names it
    crop: str = ""  # the part of the upright picture that is kept: x,y,width,height
    face_share: float = 0.0  # of the moments looked at, those with its face; 0: nobody looked
    n_faces: int = 0  # the most faces that were seen at one moment
    camera_known: float = 1.0  # the share of its maps for which the camera's motion is known
    footage: str = ""  # the same for videos that were recognised to show the same recording
    given: str = ""  # the split that a CSV file prescribed
    official: str = ""  # the split that its dataset publishes

    @property
    def group_keys(self) -> tuple[str, ...]:
        """All that links its video to others, so that they must be on one side of a split."""
        known = (*self.identities, self.original, self.footage, f"sha256:{self.source_sha256}")
        return tuple(filter(None, known))


@dataclass(frozen=True, slots=True)
class Shard:
    """One row of the index's table of shards."""

    name: str
    n_bytes: int
    sha256: str


class Rows(Sequence[Row], Generic[Row]):
    """A table whose rows become objects when they are looked at: a million of them stay small.

    Args:
        table: as `to_table` makes it.
        kind: `Clip` or `Shard`.
    """

    def __init__(self, table: npt.NDArray[Any], kind: type[Row]) -> None:
        fields = dataclasses.fields(cast(Any, kind))
        columns = set(table.dtype.names or ())
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        if not needed <= columns <= {field.name for field in fields}:
            raise ValueError(f"the columns {sorted(columns)} are not those of {kind.__name__}")
        self._table = table
        self._kind = kind
        # An older or a foreign table may hold text as objects; its rows are read all the same.
        order = table.dtype.names or ()
        self._texts = [n for n, name in enumerate(order) if table.dtype[name].kind in "SO"]
        self._lists = [n for n, name in enumerate(order) if name == "identities"]

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> list[Row]: ...
    def __getitem__(self, key: int | slice) -> Row | list[Row]:
        if isinstance(key, slice):
            return list(self._objects(self._table[key]))
        return next(self._objects(self._table[[key]]))

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self._table), BLOCK):
            yield from self._objects(self._table[start : start + BLOCK])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def column(self, name: str) -> npt.NDArray[Any]:
        """All values of one column, (N,); text as bytes."""
        return self._table[name]

    def _objects(self, part: npt.NDArray[Any]) -> Iterator[Row]:
        names = part.dtype.names or ()
        for values in part.tolist():
            row = list(values)
            for n in self._texts:
                row[n] = row[n].decode("utf-8", "surrogateescape")
            for n in self._lists:
                row[n] = tuple(filter(None, row[n].split(";")))
            yield self._kind(**dict(zip(names, row, strict=True)))


def to_table(rows: Sequence[Any], kind: type) -> npt.NDArray[Any]:
    """Rows as a structured array (N,): text in UTF-8, as wide as the longest in its column."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for field in dataclasses.fields(kind):
        if field.type is int or field.type is float:
            dtype: Any = np.int64 if field.type is int else np.float64
            columns[field.name] = np.array([getattr(row, field.name) for row in rows], dtype)
        else:
            columns[field.name] = np.array([_bytes(getattr(row, field.name)) for row in rows], "S")
    types = {
        name: column.dtype
        if column.dtype.kind != "S"
        else h5py.string_dtype("utf-8", max(1, column.dtype.itemsize))
        for name, column in columns.items()
    }
    table = np.zeros(len(rows), np.dtype(list(types.items())))
    for name, column in columns.items():
        table[name] = column
    return table


def _bytes(value: str | tuple[str, ...]) -> bytes:
    text = ";".join(value) if isinstance(value, tuple) else value
    return text.encode("utf-8", "surrogateescape")


def write_table(file: h5py.File, name: str, table: npt.NDArray[Any]) -> None:
    """Store a table with a checksum on every chunk."""
    rows = max(1, min(len(table), BLOCK))
    stored = file.create_dataset(
        name,
        shape=table.shape,
        dtype=table.dtype,
        chunks=(rows,),
        compression="gzip",
        compression_opts=1,
        fletcher32=True,
    )
    if len(table):
        stored[:] = table
