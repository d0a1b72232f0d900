"""A cache as one file to carry, and back: every byte of it, checked on both ways.

::

    PACK.h5
      attrs: packed (version), stage, settings (JSON), ... as in the index
      clips, shards          the tables of the index
      files/<name>           uint8, the bytes of a file of the cache, fletcher32 on every chunk

An array can be read without unpacking: ``h5py.File(io.BytesIO(pack["files/shards/00000.h5"][:]))``.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.cache import (
    BESIDE,
    CHUNK_BYTES,
    DAMAGED,
    INDEX,
    SUMS,
    Cache,
    read_sums,
    writing_hdf5,
)
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import fsync, scratch_folder
from pipeline.common.progress import Progress

VERSION = 1
FILES = "files"
BLOCK_BYTES = 2**24
_HOW = "python -m pipeline.pack CACHE -o FILE makes one"
_AGAIN = "copy it here again, or pack the cache again"
_NAME = re.compile(rf"shards/\d{{5,}}\.h5|{'|'.join(map(re.escape, (INDEX, SUMS, *BESIDE)))}")


def pack(cache: Cache, file: Path) -> int:
    """Put all files of a cache into one, whole or not at all.

    Args:
        cache: of either stage.
        file: to be made; it must not be there yet.

    Returns:
        the bytes that were packed.

    Raises:
        SettingsError: the file is there already.
        IntegrityError: the cache is damaged; no file is left behind.
    """
    if file.exists():
        raise SettingsError(f"{file} is there already", "give a new name: nothing is overwritten")
    sums = _sums(cache.folder)
    total = 0
    with writing_hdf5(file) as packed, Progress("pack", len(sums) + 1, "file") as progress:
        with h5py.File(cache.folder / INDEX) as index:
            packed.attrs.update(index.attrs)
            packed.attrs["packed"] = VERSION
            for table in ("clips", "shards"):
                index.copy(table, packed)
        for name in (*sums, SUMS):
            size, sha256 = _put(packed, name, cache.folder / name)
            if sha256 != sums.get(name, sha256):
                raise IntegrityError(
                    f"{cache.folder / name} is damaged: its sha256 is not the one in {SUMS}",
                    f"python -m pipeline.inspect {cache.folder} --repair sets it aside",
                )
            total += size
            progress.update(name)
    return total


def unpack(file: Path, folder: Path) -> Cache:
    """Make the cache again that a file was packed from.

    Args:
        file: that `pack` made.
        folder: to be made; it must not be there yet.

    Raises:
        SettingsError: the folder is there already, or the file is something else.
        IntegrityError: the file is damaged or cut short; no folder is left behind.
    """
    if folder.exists():
        raise SettingsError(f"{folder} is there already", "give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(f".{folder.name}.", folder.parent) as temporary:
        new = temporary / "cache"  # renamed at the end, so that it is whole or not there
        (new / "shards").mkdir(parents=True)
        try:
            with h5py.File(file) as packed:
                if packed.attrs.get("packed") != VERSION:
                    raise SettingsError(f"{file} is no packed cache", _HOW)
                found = _take(packed, new)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno:  # of this machine: its disk is full
                raise
            raise IntegrityError(f"{file} is damaged or cut short: {error}", _AGAIN) from error
        sums = _sums(new)
        for name in sorted({*sums, *found} - {SUMS}):
            if found.get(name) != sums.get(name):
                raise IntegrityError(f"{file} is damaged: {name} is not what it was", _AGAIN)
        for place in (new / "shards", new):
            fsync(place)
        new.rename(folder)
    fsync(folder.parent)
    return Cache(folder)


def _sums(folder: Path) -> dict[str, str]:
    try:
        return read_sums(folder)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{folder / SUMS} cannot be read: {error}",
            f"python -m pipeline.inspect {folder} --repair sets it aside",
        ) from error


def _put(packed: h5py.File, name: str, path: Path) -> tuple[int, str]:
    """Store a file; its size and sha256."""
    size = path.stat().st_size
    n_chunks = max(1, -(-size // CHUNK_BYTES))
    chunk = max(1, -(-size // n_chunks))  # all alike: the last one takes as much as any other
    dataset = packed.create_dataset(
        f"{FILES}/{name}",
        shape=(size,),
        dtype=np.uint8,
        chunks=(chunk,),
        fletcher32=True,
    )
    digest, start = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(max(1, BLOCK_BYTES // chunk) * chunk):
            digest.update(block)
            dataset[start : start + len(block)] = np.frombuffer(block, np.uint8)
            start += len(block)
    return size, digest.hexdigest()


def _take(packed: h5py.File, folder: Path) -> dict[str, str]:
    """Write all files into a folder; name → sha256."""
    found = {}
    datasets = dict(_datasets(packed[FILES]))
    with Progress("unpack", len(datasets), "file") as progress:
        for name, dataset in datasets.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"it holds a file that is none of a cache: {name!r}")
            digest = hashlib.sha256()
            with (folder / name).open("xb") as file:
                for start in range(0, len(dataset), BLOCK_BYTES):
                    block = dataset[start : start + BLOCK_BYTES].tobytes()
                    digest.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            found[name] = digest.hexdigest()
            progress.update(name)
    return found


def _datasets(files: h5py.Group) -> Iterator[tuple[str, Any]]:
    for name in files:
        inner = files[name]
        if isinstance(inner, h5py.Group):
            yield from ((f"{name}/{key}", inner[key]) for key in inner)
        else:
            yield name, inner
