"""The layout of a cache: file names, HDF5 filters, and what a reader accepts.

::

    CACHE/
      index.h5               attrs: schema, stage, settings (JSON), versions (JSON), ...
        clips                one compound row per clip, in shuffled order (see `Clip`)
        shards               one compound row per shard: name, size in bytes, sha256 of the file
        data/<clip id>       external link into the shard, by relative path
      shards/00000.h5        <clip id>/<dataset>, chunked by whole rows, fletcher32 on every chunk
      names.csv              id,path: the file that each video came from; no model reads it
      rejected.csv           path,reason,detail
      datacard.md            a description for people
      SHA256SUMS             of all files above, in the format of sha256sum
      timing.csv             id,frames,seconds of extraction; differs from run to run and therefore
                             has no checksum

Both stages write this layout, with different datasets in a clip. Files are written under a
temporary name, fsynced and renamed; then the folder is fsynced.
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
DAMAGED_SUFFIX = ".damaged"  # of files set aside by `set_aside_damaged`
SHARD_NAME = re.compile(r"shards/\d{5,}\.h5")

CHUNK_BYTES = 2**20  # largest chunk, unless one row is larger
Compression = Literal["gzip", "none"]
FILTERS: dict[Compression, dict[str, Any]] = {
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "none": {},
}
# Raised by h5py, or by using what it returns, when a file is damaged.
HDF5_ERRORS = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)


def local_dataset(file: h5py.File, clip: str, key: str) -> h5py.Dataset:
    """Return a clip's dataset, whose values must be in this file: it may come from a stranger.

    Raises:
        KeyError: there is none.
        ValueError: it is stored elsewhere.
    """
    return _local(_local(file, clip, h5py.Group), key, h5py.Dataset)


def local_group(file: h5py.File, clip: str) -> h5py.Group:
    """Return a clip's group; errors as of `local_dataset`."""
    return _local(file, clip, h5py.Group)


def read_table(file: h5py.File, name: str) -> npt.NDArray[np.void]:
    """Read a table, (N,) structured; errors as of `local_dataset`."""
    return _local(file, name, h5py.Dataset)[:]


def _local(group: h5py.Group, name: str, kind: type) -> Any:
    if "/" not in name and isinstance(group.get(name, getlink=True), h5py.HardLink | None):
        member = group[name]
        elsewhere = isinstance(member, h5py.Dataset) and (member.is_virtual or member.external)
        if isinstance(member, kind) and not elsewhere:
            return member
    raise ValueError(f"{name!r} is not stored in this file")
