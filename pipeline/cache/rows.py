"""The rows of an index, as objects and as HDF5 tables."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, overload

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.corpus.labelled_video import FAKE, OWN

Row = TypeVar("Row")
BLOCK_ROWS = 4096  # read at once, and in one chunk on disk
_NUMBER_KINDS: dict[Any, str] = {int: "i", float: "f"}  # else text, "S"


@dataclass(frozen=True, slots=True)
class Clip:
    """A row of the index: a clip, and the video it was cut from.

    Metadata of the source file feed the metadata-only control, never the detector.
    """

    id: str
    video: str  # shared by the clips of one video
    label: int  # 0 real, 1 fake
    split: str  # train, test, val, holdout; "" if it would straddle two
    identities: tuple[str, ...]
    shard: str  # its path in the cache
    n_frames: int  # of this clip
    start: float  # seconds into the video
    fps: float  # from here to n_bytes: of the source file
    width: int
    height: int
    duration: float  # seconds
    bit_rate: float  # bits per second
    n_bytes: int
    source_sha256: str
    source: str = ""  # dataset, or name of the folder or CSV file
    manipulation: str = ""  # in the dataset's words
    compression: str = ""  # raw, c23 or c40
    original: str = ""  # recording it shows, in the dataset's words
    crop: str = ""  # the crop in the upright frame: x,y,width,height
    face_share: float = 0.0  # of the searched moments; 0: not searched
    n_faces: int = 0  # most faces at one moment
    camera_known: float = 1.0  # share of the maps with known camera motion
    footage: str = ""  # shared by videos of the same recording
    given: str = ""  # split that a CSV file prescribed
    official: str = ""  # split that the dataset publishes

    @property
    def group_keys(self) -> tuple[str, ...]:
        """Keys shared with the videos that must be on the same side of a split."""
        keys = (*self.identities, self.original, self.footage, f"sha256:{self.source_sha256}")
        return tuple(filter(None, keys))

    @property
    def is_own_fake(self) -> bool:
        """Whether data.fakes made it; all other fakes are called real fakes."""
        return self.label == FAKE and self.manipulation.startswith(OWN)


@dataclass(frozen=True, slots=True)
class Shard:
    """A row of the index's table of shards."""

    name: str
    n_bytes: int
    sha256: str


class Rows(Sequence[Row], Generic[Row]):
    """A table from `to_table` whose rows become objects when read, to save memory."""

    def __init__(self, table: npt.NDArray[Any], kind: type[Row]) -> None:
        kinds = {name: table.dtype[name].kind for name in table.dtype.names or ()}
        fields = dataclasses.fields(cast(Any, kind))
        if kinds != {field.name: _NUMBER_KINDS.get(field.type, "S") for field in fields}:
            raise ValueError(f"the columns {sorted(kinds)} are not those of {kind.__name__}")
        self._table = table
        self._kind = kind
        self._texts = [n for n, dtype_kind in enumerate(kinds.values()) if dtype_kind == "S"]
        self._lists = [n for n, name in enumerate(kinds) if name == "identities"]

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
        for start in range(0, len(self._table), BLOCK_ROWS):
            yield from self._objects(self._table[start : start + BLOCK_ROWS])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a column, (N,); text as bytes."""
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


def to_table(rows: Sequence[Any], kind: type) -> npt.NDArray[np.void]:
    """Return rows as a structured array, (N,), with UTF-8 text as wide as the longest value."""
    columns: dict[str, npt.NDArray[Any]] = {}
    types: dict[str, np.dtype[Any]] = {}
    for name, python_type in ((field.name, field.type) for field in dataclasses.fields(kind)):
        values = [getattr(row, name) for row in rows]
        if python_type is int or python_type is float:
            types[name] = np.dtype(np.int64 if python_type is int else np.float64)
            columns[name] = np.array(values, types[name])
        else:
            columns[name] = np.array([_encoded(value) for value in values], "S")
            types[name] = h5py.string_dtype("utf-8", max(1, columns[name].dtype.itemsize))
    table = np.zeros(len(rows), np.dtype(list(types.items())))
    for name, column in columns.items():
        table[name] = column
    return table


def _encoded(value: str | tuple[str, ...]) -> bytes:
    text = ";".join(value) if isinstance(value, tuple) else value
    return text.encode("utf-8", "surrogateescape")


def write_table(file: h5py.File, name: str, table: npt.NDArray[np.void]) -> None:
    """Write a table with a checksum on every chunk."""
    stored = file.create_dataset(
        name,
        shape=table.shape,
        dtype=table.dtype,
        chunks=(max(1, min(len(table), BLOCK_ROWS)),),
        compression="gzip",
        compression_opts=1,
        fletcher32=True,
    )
    if len(table):
        stored[:] = table
