"""The layout of a cache: file names, HDF5 filters, and what a reader accepts.

``docs/cache.md`` describes the files. Both stages write them, with different datasets in a clip.
"""

import re
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

SCHEMA = 3
INDEX = "index.h5"
SUMS = "SHA256SUMS"
NAMES = "names.csv"
REJECTED = "rejected.csv"
DATACARD = "datacard.md"
TIMING = "timing.csv"
COMPANIONS = (NAMES, REJECTED, DATACARD)  # in SUMS; a cache of embeddings has only the data card
DAMAGED_SUFFIX = ".damaged"  # of files that `set_aside_damaged` renamed
SHARD_NAME = re.compile(r"shards/\d{5,}\.h5")

CHUNK_BYTES = 2**20  # largest chunk, unless one row is larger
Compression = Literal["gzip", "none"]
FILTERS: dict[Compression, dict[str, Any]] = {
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "none": {},
}
# Raised for a damaged file by h5py, or by using what it returns.
HDF5_ERRORS = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)


def local_dataset(file: h5py.File, clip: str, key: str) -> h5py.Dataset:
    """Return a clip's dataset; raise ValueError for one stored elsewhere, as strangers' may be."""
    return _local(_local(file, clip, h5py.Group), key, h5py.Dataset)


def local_group(file: h5py.File, clip: str) -> h5py.Group:
    """Return a clip's group, as `local_dataset`."""
    return _local(file, clip, h5py.Group)


def read_table(file: h5py.File, name: str) -> npt.NDArray[np.void]:
    """Read a table, (N,) structured, as `local_dataset`."""
    table = _local(file, name, h5py.Dataset)
    # Damage can make h5py widen a column over the next one: reading it would corrupt memory.
    if table.dtype != np.dtype([(column, table.dtype[column]) for column in table.dtype.names]):
        raise ValueError(f"the columns of {name!r} overlap or have gaps")
    return table[:]


def _local(group: h5py.Group, name: str, kind: type) -> Any:
    if "/" not in name and isinstance(group.get(name, getlink=True), h5py.HardLink | None):
        member = group[name]
        elsewhere = isinstance(member, h5py.Dataset) and (member.is_virtual or member.external)
        if isinstance(member, kind) and not elsewhere:
            return member
    raise ValueError(f"{name!r} is not stored in this file")
