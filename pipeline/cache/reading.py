"""A cache, open for reading."""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.cache.rows import Clip, Rows, Shard
from pipeline.cache.shards import DAMAGED, check_shard, own_dataset, own_table
from pipeline.common.csv_files import Row, read_csv
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import sha256_of

SCHEMA = 3
INDEX = "index.h5"
SUMS = "SHA256SUMS"
DAMAGED_ENDING = ".damaged"
TIMING = "timing.csv"
BESIDE = ("names.csv", "rejected.csv", "datacard.md")  # the index; an embedding cache has one
_NOT_OURS = "no command of this program writes that: copy the cache from its source again"
_SHARD_NAME = re.compile(r"shards/\d{5,}\.h5")


class Cache:
    """A cache, open for reading.

    Cheap to pickle and safe to send to another process: shards are opened when they are read and
    closed again. Reads go through the table of shards, not through the links, so that an index
    from a stranger cannot point outside its own folder.

    Args:
        folder: the cache's folder.
        stage: the stage that must have written it (``extract`` or ``embed``), or None for any.
        whole: every shard must be there; else `missing` says which are not.

    Raises:
        SettingsError: no cache is there, it is of another stage, or of a later version.
        IntegrityError: the index is damaged, or a shard is missing or has another size.

    Example::

        cache = Cache("caches/dfd")
        for clip in cache.clips:
            flow = cache.read(clip, "flow")  # (T-1, H, W) uint8
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
                self._clips = Rows(own_table(file, "clips"), Clip)
                self.clips: Sequence[Clip] = self._clips
                self.shards: Sequence[Shard] = Rows(own_table(file, "shards"), Shard)
        except DAMAGED as error:
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
        if (self.folder / "shards").is_symlink():
            raise IntegrityError(
                f"the shards of {self.folder} are somewhere else: it is a link", _NOT_OURS
            )
        for shard in self.shards:
            path = self.folder / shard.name
            if not _SHARD_NAME.fullmatch(shard.name) or path.is_symlink():
                raise IntegrityError(
                    f"{self.folder} names a shard outside itself: {shard.name!r}", _NOT_OURS
                )
        known = np.array([shard.name.encode() for shard in self.shards], "S")
        stray = ~np.isin(self._clips.column("shard"), known)
        if stray.any():
            clip = self.clips[int(stray.argmax())]
            raise IntegrityError(f"clip {clip.id} is in no shard of {self.folder}", _NOT_OURS)

    def missing(self) -> dict[str, str]:
        """Shards that are not there in full: name → what is wrong."""
        faults = {}
        for shard in self.shards:
            path = self.folder / shard.name
            size = path.stat().st_size if path.is_file() else None
            if size != shard.n_bytes:
                found = "is missing" if size is None else f"has {size} bytes"
                faults[shard.name] = f"shard {path} {found}, the index says {shard.n_bytes} bytes"
        return faults

    @property
    def sha256(self) -> str:
        """The sha256 of the index, which holds those of all shards: it names this very content."""
        return sha256_of(self.folder / INDEX)

    def clip(self, clip_id: str) -> Clip:
        """The clip of this id."""
        found = np.flatnonzero(self._clips.column("id") == clip_id.encode())
        if len(found):
            return self.clips[int(found[0])]
        raise SettingsError(
            f"{self.folder} has no clip {clip_id!r}",
            f"its ids look like {self.clips[0].id!r}" if self.clips else "it has no clips",
        )

    def datasets(self, clip: Clip) -> dict[str, tuple[tuple[int, ...], np.dtype[Any], int]]:
        """Shape, dtype and bytes on disk of each dataset of a clip.

        Raises:
            IntegrityError: the shard is damaged.
        """
        with self._shard_of(clip, "") as file:
            sets = {key: own_dataset(file, clip.id, key) for key in file[clip.id]}
            return {k: (d.shape, d.dtype, d.id.get_storage_size()) for k, d in sets.items()}

    @contextlib.contextmanager
    def _shard_of(self, clip: Clip, key: str) -> Iterator[h5py.File]:
        try:
            with h5py.File(self.folder / clip.shard) as file:
                yield file
        except DAMAGED as error:
            raise IntegrityError(
                f"cannot read {clip.id}/{key} in {self.folder / clip.shard}: {error}",
                f"python -m pipeline.inspect {self.folder} --verify finds what is damaged",
            ) from error

    def read(self, clip: Clip, key: str, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Read one dataset of a clip, or some rows of it.

        Raises:
            IntegrityError: a checksum does not match, or the dataset is not there.
        """
        with self._shard_of(clip, key) as file:
            return cast(npt.NDArray[Any], own_dataset(file, clip.id, key)[rows])

    def verify(self) -> Iterator[tuple[str, str]]:
        """Read every byte and checksum of every file.

        Yields:
            each file's name and what is wrong with it, or ``""``.
        """
        for shard in self.shards:
            fault = _fault(self.folder, shard.name, shard.sha256, "the index")
            if not fault:
                try:
                    check_shard(self.folder, shard.name)
                except DAMAGED as error:
                    fault = str(error)
            yield shard.name, fault
        try:
            sums = read_sums(self.folder)
        except DAMAGED as error:
            yield SUMS, str(error)
            return
        for name in (INDEX, *BESIDE):
            if name in sums or (self.folder / name).exists():
                yield name, _fault(self.folder, name, sums.get(name, ""), SUMS)
        listed = {name: sha256 for name, sha256 in sums.items() if name not in (INDEX, *BESIDE)}
        same = listed == {shard.name: shard.sha256 for shard in self.shards}
        yield SUMS, "" if same else "it does not list the shards that the index lists"

    def names(self) -> dict[str, str]:
        """Which file each video came from: for people, never for a model."""
        path = self.folder / "names.csv"
        if not path.is_file():
            return {}
        return {row["id"]: row["path"] for row in read_csv(path)}

    def rejected(self) -> list[Row]:
        """Every file that did not make it: path, reason, detail."""
        path = self.folder / "rejected.csv"
        return read_csv(path) if path.is_file() else []

    def timing(self) -> dict[str, tuple[int, float]]:
        """Of each video the frames, and the seconds for which a process extracted them, if known.

        Raises:
            IntegrityError: somebody else wrote that file.
        """
        path = self.folder / TIMING
        if not path.is_file():
            return {}
        try:
            rows = read_csv(path)
            return {row["id"]: (int(row["frames"]), float(row["seconds"])) for row in rows}
        except (KeyError, ValueError) as error:
            raise IntegrityError(
                f"{path} is damaged: {error}", "remove it: it only says how long extracting took"
            ) from error


def set_aside_damaged(folder: Path) -> dict[str, str]:
    """Rename what is damaged in a cache, so that the command that made it makes only that again.

    Files get the further ending ``.damaged``. The index goes with any other file that is no shard.

    Returns:
        the names of the files, and what is wrong with each.

    Raises:
        SettingsError: the folder is no cache.
    """
    try:
        faults = {name: fault for name, fault in Cache(folder, whole=False).verify() if fault}
    except IntegrityError as error:
        faults = {INDEX: str(error)}
    if any(not _SHARD_NAME.fullmatch(name) for name in faults):
        faults.setdefault(INDEX, "it is made again with the others")
    for name in faults:
        if (folder / name).exists():
            (folder / name).rename(folder / f"{name}{DAMAGED_ENDING}")
    return faults


def read_sums(folder: Path) -> dict[str, str]:
    """The file of checksums of a cache: name → sha256.

    Raises:
        OSError, ValueError: it is not there, or is something else.
    """
    lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    pairs = [line.split("  ", 1) for line in lines]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{folder / SUMS} has a line that is no checksum")
    return {name: sha256 for sha256, name in pairs}


def _fault(folder: Path, name: str, sha256: str, said_by: str) -> str:
    try:
        right = sha256_of(folder / name) == sha256
    except OSError as error:
        return error.strerror or str(error)
    return "" if right else f"its sha256 is not the one in {said_by}"


def _no_cache(folder: Path, stage: str | None) -> SettingsError:
    """What to say of something that is not a finished cache, and the way out."""
    what, hint = f"is not a cache: it has no {INDEX}", _how_to_make_a_cache(stage)
    if not folder.exists():
        what = "does not exist"
    elif not folder.is_dir():
        what = "is a file, and no cache, which is a folder"
        if h5py.is_hdf5(folder):
            hint = f"python -m pipeline.pack {folder} -o CACHE unpacks it, if it is a packed cache"
    elif (folder / "model.pt").is_file():
        what = "is a run of model.fit, not a cache"
    elif (folder / ".work").is_dir():
        what = f"is not a finished cache: it has no {INDEX} yet"
        hint = "run the command that began it again: it goes on where it stopped"
    return SettingsError(f"{folder} {what}", hint)


def _how_to_make_a_cache(stage: str | None) -> str:
    if stage == "embed":
        return "python -m features.embed CACHE -o EMBEDDINGS makes one"
    return "python -m pipeline.extract VIDEOS -o CACHE makes one"
