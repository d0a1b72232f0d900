"""A cache, open for reading."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.cache.layout import (
    COMPANIONS,
    DAMAGED_SUFFIX,
    HDF5_ERRORS,
    INDEX,
    NAMES,
    REJECTED,
    SCHEMA,
    SHARD_NAME,
    SUMS,
    TIMING,
    local_dataset,
    read_table,
)
from pipeline.cache.rows import Clip, Rows, Shard
from pipeline.cache.shards import check_shard
from pipeline.common.csv_files import CsvRow, read_csv
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import sha256_of

_FOREIGN = "no command of this program writes that: copy the cache from its source again"


class Cache:
    """A cache, open for reading; cheap to send to another process.

    Reads use the table of shards, not the links: a stranger's index cannot lead out of its folder.

    Args:
        stage: required stage, ``extract`` or ``embed``; None accepts both.
        whole: require every shard; otherwise see `missing`.

    Raises:
        SettingsError: there is no cache, or one of another stage or layout version.
        IntegrityError: the index is damaged, or a shard is missing or has another size.
    """

    def __init__(self, folder: str | Path, stage: str | None = None, *, whole: bool = True) -> None:
        self.folder = Path(folder)
        index = self.folder / INDEX
        if not index.is_file():
            raise _no_cache(self.folder, stage)
        try:
            with h5py.File(index) as file:
                self.attrs: dict[str, Any] = dict(file.attrs)
                if self.attrs["schema"] != SCHEMA:
                    raise SettingsError(
                        f"{index} has layout version {self.attrs['schema']}, "
                        f"this program reads version {SCHEMA}",
                        "make the cache again, or install the version that made it",
                    )
                self.stage: str = self.attrs["stage"]
                self.settings: dict[str, Any] = json.loads(self.attrs["settings"])
                self._clips = Rows(read_table(file, "clips"), Clip)
                self.clips: Sequence[Clip] = self._clips
                self.shards: Sequence[Shard] = Rows(read_table(file, "shards"), Shard)
        except HDF5_ERRORS as error:
            raise IntegrityError(
                f"{index} is damaged: {error}", "run the command that made this cache again"
            ) from error
        if stage is not None and self.stage != stage:
            raise SettingsError(
                f"{self.folder} was written by the {self.stage} stage, the {stage} stage is needed",
                _how_to_make_a_cache(stage),
            )
        self._check_names()
        if whole and (missing := self.missing()):
            raise IntegrityError(
                next(iter(missing.values())),
                "run the command that made this cache again: it makes what is missing",
            )

    def _check_names(self) -> None:
        """Refuse shards outside the folder, and clips that are in no shard."""
        if (self.folder / "shards").is_symlink():
            raise IntegrityError(f"{self.folder / 'shards'} is a link to another folder", _FOREIGN)
        for shard in self.shards:
            if not SHARD_NAME.fullmatch(shard.name) or (self.folder / shard.name).is_symlink():
                raise IntegrityError(
                    f"{self.folder} names a shard outside itself: {shard.name!r}", _FOREIGN
                )
        names = np.array([shard.name.encode() for shard in self.shards], "S")
        unlisted = ~np.isin(self._clips.column("shard"), names)
        if unlisted.any():
            clip = self.clips[int(unlisted.argmax())]
            raise IntegrityError(f"clip {clip.id} is in no shard of {self.folder}", _FOREIGN)

    def missing(self) -> dict[str, str]:
        """Return missing shards, or of another size: name → what is wrong."""
        faults = {}
        for shard in self.shards:
            path = self.folder / shard.name
            size = path.stat().st_size if path.is_file() else None
            if size != shard.n_bytes:
                state = "is missing" if size is None else f"has {size} bytes"
                faults[shard.name] = f"shard {path} {state}, the index says {shard.n_bytes} bytes"
        return faults

    @property
    def sha256(self) -> str:
        """The sha256 of the index, which lists those of all shards."""
        return sha256_of(self.folder / INDEX)

    def clip(self, clip_id: str) -> Clip:
        """Return the clip of this id; raise `SettingsError` if there is none."""
        rows = np.flatnonzero(self._clips.column("id") == clip_id.encode())
        if len(rows):
            return self.clips[int(rows[0])]
        raise SettingsError(
            f"{self.folder} has no clip {clip_id!r}",
            f"its ids look like {self.clips[0].id!r}" if self.clips else "it has no clips",
        )

    def datasets(self, clip: Clip) -> dict[str, tuple[tuple[int, ...], np.dtype[Any], int]]:
        """Return shape, dtype and bytes on disk of each dataset of a clip."""
        with self._shard_of(clip, "") as file:
            datasets = {key: local_dataset(file, clip.id, key) for key in file[clip.id]}
            return {k: (d.shape, d.dtype, d.id.get_storage_size()) for k, d in datasets.items()}

    def read(self, clip: Clip, key: str, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Read a dataset of a clip, or some of its rows.

        Raises:
            IntegrityError: a checksum does not match, or there is no such dataset.
        """
        with self._shard_of(clip, key) as file:
            return cast(npt.NDArray[Any], local_dataset(file, clip.id, key)[rows])

    @contextlib.contextmanager
    def _shard_of(self, clip: Clip, key: str) -> Iterator[h5py.File]:
        try:
            with h5py.File(self.folder / clip.shard) as file:
                yield file
        except HDF5_ERRORS as error:
            raise IntegrityError(
                f"cannot read {clip.id}/{key} in {self.folder / clip.shard}: {error}",
                f"python -m pipeline.inspect {self.folder} --verify finds what is damaged",
            ) from error

    def verify(self) -> Iterator[tuple[str, str]]:
        """Read all files; yield each name, and what is wrong or ``""``."""
        for shard in self.shards:
            fault = _fault(self.folder, shard.name, shard.sha256, "the index")
            if not fault:
                try:
                    check_shard(self.folder, shard.name)
                except HDF5_ERRORS as error:
                    fault = str(error)
            yield shard.name, fault
        try:
            sums = read_sums(self.folder)
        except HDF5_ERRORS as error:
            yield SUMS, str(error)
            return
        for name in (INDEX, *COMPANIONS):
            if name in sums or (self.folder / name).exists():
                yield name, _fault(self.folder, name, sums.pop(name, ""), SUMS)
        same = sums == {shard.name: shard.sha256 for shard in self.shards}
        yield SUMS, "" if same else "it does not list the shards that the index lists"

    def names(self) -> dict[str, str]:
        """Return video → file that it came from: for people, never for a model."""
        return {row["id"]: row["path"] for row in self._csv(NAMES)}

    def rejected(self) -> list[CsvRow]:
        """Return rows of path, reason and detail."""
        return self._csv(REJECTED)

    def timing(self) -> dict[str, tuple[int, float]]:
        """Return video → frames and seconds of extraction, where recorded."""
        try:
            rows = self._csv(TIMING)
            return {row["id"]: (int(row["frames"]), float(row["seconds"])) for row in rows}
        except (KeyError, ValueError) as error:
            raise IntegrityError(
                f"{self.folder / TIMING} is damaged: {error}",
                "remove it: it only says how long extracting took",
            ) from error

    def _csv(self, name: str) -> list[CsvRow]:
        path = self.folder / name
        return read_csv(path) if path.is_file() else []


def set_aside_damaged(folder: Path) -> dict[str, str]:
    """Rename damaged files, and the index unless they are shards; return name → what is wrong."""
    try:
        faults = {name: fault for name, fault in Cache(folder, whole=False).verify() if fault}
    except IntegrityError as error:
        faults = {INDEX: str(error)}
    if any(not SHARD_NAME.fullmatch(name) for name in faults):
        faults.setdefault(INDEX, "it is made again with the others")
    for name in faults:
        if (folder / name).exists():
            (folder / name).rename(folder / f"{name}{DAMAGED_SUFFIX}")
    return faults


def read_sums(folder: Path) -> dict[str, str]:
    """Read name → sha256; raise OSError or ValueError if that fails."""
    lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    pairs = [line.split("  ", 1) for line in lines]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{folder / SUMS} has a line that is no checksum")
    return {name: sha256 for sha256, name in pairs}


def _fault(folder: Path, name: str, sha256: str, listed_in: str) -> str:
    try:
        same = sha256_of(folder / name) == sha256
    except OSError as error:
        return error.strerror or str(error)
    return "" if same else f"its sha256 is not the one in {listed_in}"


def _no_cache(folder: Path, stage: str | None) -> SettingsError:
    problem, hint = f"is not a cache: it has no {INDEX}", _how_to_make_a_cache(stage)
    if not folder.exists():
        problem = "does not exist"
    elif not folder.is_dir():
        problem = "is a file; a cache is a folder"
        if h5py.is_hdf5(folder):
            hint = f"python -m pipeline.pack {folder} -o CACHE unpacks it, if it is a packed cache"
    elif (folder / "model.pt").is_file():
        problem = "is a run of model.fit, not a cache"
    elif (folder / ".work").is_dir():
        problem = f"is not a finished cache: it has no {INDEX} yet"
        hint = "run the command that began it again: it goes on where it stopped"
    return SettingsError(f"{folder} {problem}", hint)


def _how_to_make_a_cache(stage: str | None) -> str:
    if stage == "embed":
        return "python -m features.embed CACHE -o EMBEDDINGS makes one"
    return "python -m pipeline.extract VIDEOS -o CACHE makes one"
