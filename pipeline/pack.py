"""The command that packs a cache into one HDF5 file, and unpacks such a file.

It has the attributes and tables of the index, an attribute ``packed`` (the version), and the bytes
of files, readable by ``h5py.File(io.BytesIO(file["files/shards/00000.h5"][:]))``.
"""

import hashlib
import os
import time
from pathlib import Path

import click
import cloup
import h5py
import numpy as np

from pipeline.cache import CHUNK_BYTES, INDEX, SUMS, Cache, read_sums
from pipeline.cache.layout import COMPANIONS, HDF5_ERRORS, SHARD_NAME
from pipeline.cache.shards import writing_hdf5
from pipeline.common.cli import Command, log_json_option
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import fsync, readable_bytes, scratch_folder
from pipeline.common.progress import Progress

VERSION = 1
BLOCK_BYTES = 2**24  # read at once
_NEW_COPY = "copy it here again, or pack the cache again"


@cloup.command(cls=Command)
@cloup.argument(
    "source",
    type=click.Path(path_type=Path),
    help="Folder of a cache of either stage, or a file that this command packed.",
)
@cloup.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File or folder to create; it must not exist.",
)
@log_json_option
def main(source: Path, output: Path) -> None:
    """Pack a cache into one HDF5 file, or unpack such a file into the same cache.

    Checksums of all files are compared both ways.

    \b
    Examples:
      python -m pipeline.pack caches/dfd -o dfd.h5
      python -m pipeline.pack dfd.h5 -o caches/dfd
    """
    if not source.exists():
        raise SettingsError(f"{source} does not exist", "give a cache, or a file packed from one")
    begin = time.perf_counter()
    if source.is_dir():
        size = pack(Cache(source), output)
        result = f"{output}: {source} in one file"
    else:
        cache = unpack(source, output)
        size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        result = f"{output}: a cache of {len(cache.clips)} clips"
    speed = size / 1e6 / (time.perf_counter() - begin)
    click.echo(f"{result}, {readable_bytes(size)}, {speed:.0f} MB/s, every checksum is right")


def pack(cache: Cache, file: Path) -> int:
    """Pack a cache into a new file; return the number of bytes packed."""
    if file.exists():
        raise SettingsError(f"{file} is there already", "give a new name: nothing is overwritten")
    sums = _read_sums(cache.folder)
    total = 0
    with writing_hdf5(file) as packed, Progress("pack", len(sums) + 1, "file") as progress:
        with h5py.File(cache.folder / INDEX) as index:
            packed.attrs.update(index.attrs)
            packed.attrs["packed"] = VERSION
            for table in ("clips", "shards"):
                index.copy(table, packed)
        for name in (*sums, SUMS):
            size, sha256 = _store(packed, name, cache.folder / name)
            if sha256 != sums.get(name, sha256):
                raise IntegrityError(
                    f"{cache.folder / name} is damaged: its sha256 is not the one in {SUMS}",
                    f"python -m pipeline.inspect {cache.folder} --repair sets it aside",
                )
            total += size
            progress.update(name)
    return total


def unpack(file: Path, folder: Path) -> Cache:
    """Unpack a cache into a new folder, which appears whole or not at all."""
    if folder.exists():
        raise SettingsError(f"{folder} is there already", "give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(f".{folder.name}.", folder.parent) as temporary:
        new = temporary / "cache"
        (new / "shards").mkdir(parents=True)
        try:
            with h5py.File(file) as packed:
                if packed.attrs.get("packed") != VERSION:
                    raise SettingsError(
                        f"{file} is no packed cache",
                        "python -m pipeline.pack CACHE -o FILE makes one",
                    )
                extracted = _extract(packed, new)
        except HDF5_ERRORS as error:
            if isinstance(error, OSError) and error.errno:  # of this machine, as a full disk
                raise
            raise IntegrityError(f"{file} is damaged or cut short: {error}", _NEW_COPY) from error
        sums = _read_sums(new)
        for name in sorted({*sums, *extracted} - {SUMS}):
            if extracted.get(name) != sums.get(name):
                raise IntegrityError(f"{file} is damaged: {name} is not what it was", _NEW_COPY)
        for place in (new / "shards", new):
            fsync(place)
        new.rename(folder)
    fsync(folder.parent)
    return Cache(folder)


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        return read_sums(folder)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{folder / SUMS} cannot be read: {error}",
            f"python -m pipeline.inspect {folder} --repair sets it aside",
        ) from error


def _store(packed: h5py.File, name: str, path: Path) -> tuple[int, str]:
    """Store a file; return its size and sha256."""
    size = path.stat().st_size
    n_chunks = max(1, -(-size // CHUNK_BYTES))
    chunk = max(1, -(-size // n_chunks))  # HDF5 stores the last one at full size
    dataset = packed.create_dataset(
        f"files/{name}", shape=(size,), dtype=np.uint8, chunks=(chunk,), fletcher32=True
    )
    digest, start = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(max(1, BLOCK_BYTES // chunk) * chunk):
            digest.update(block)
            dataset[start : start + len(block)] = np.frombuffer(block, np.uint8)
            start += len(block)
    return size, digest.hexdigest()


def _extract(packed: h5py.File, folder: Path) -> dict[str, str]:
    """Write all files; return name → sha256."""
    datasets: dict[str, h5py.Dataset] = {}
    for name, member in packed["files"].items():
        if isinstance(member, h5py.Group):
            datasets |= {f"{name}/{key}": dataset for key, dataset in member.items()}
        else:
            datasets[name] = member
    sums = {}
    with Progress("unpack", len(datasets), "file") as progress:
        for name, dataset in datasets.items():
            if not SHARD_NAME.fullmatch(name) and name not in (INDEX, SUMS, *COMPANIONS):
                raise ValueError(f"it holds a file that is none of a cache: {name!r}")
            digest = hashlib.sha256()
            with (folder / name).open("xb") as file:
                for start in range(0, len(dataset), BLOCK_BYTES):
                    block = dataset[start : start + BLOCK_BYTES].tobytes()
                    digest.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            sums[name] = digest.hexdigest()
            progress.update(name)
    return sums


if __name__ == "__main__":
    main()
