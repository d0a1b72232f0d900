"""The cache on disk: a folder of HDF5 shards and one index. The only code that knows the layout.

::

    CACHE/
      index.h5               attrs: schema, stage, settings (JSON), versions (JSON), ...
        clips                one compound row per clip, in shuffled order (see `Clip`)
        shards               one compound row per shard: name, size in bytes, sha256 of the file
        data/<clip id>       external link into the shard, by relative path
      shards/00000.h5        <clip id>/<dataset>, chunked by whole rows, fletcher32 on every chunk
      names.csv              id,path: which file a clip came from; nothing that learns reads this
      rejected.csv           path,reason,detail
      datacard.md            what it was made of, for people

Both stages write this layout; they differ in the datasets inside a clip. Files appear under their
name only when they are whole: written elsewhere, fsynced, renamed, and the folder fsynced.
"""

import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.deflate import write_gzip
from pipeline.errors import IntegrityError, SettingsError
from pipeline.files import Row, read_csv, sha256_of, write_whole

SCHEMA = 1
INDEX = "index.h5"
CHUNK_BYTES = 2**20
Compression = Literal["gzip", "none"]
_FILTERS: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "none": {},
}
# What h5py, and reading what it gives, raise over damaged files.
DAMAGED = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)
_SHARD_NAME = re.compile(r"shards/\d{5,}\.h5")


@dataclass(frozen=True)
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
    footage: str = ""  # the same for videos that were recognised to show the same recording
    given: str = ""  # the split that a CSV file prescribed
    official: str = ""  # the split that its dataset publishes

    @property
    def ties(self) -> tuple[str, ...]:
        """All that links its video to others, so that they must be on one side of a split."""
        known = (*self.identities, self.original, self.footage, f"sha256:{self.source_sha256}")
        return tuple(filter(None, known))


@dataclass(frozen=True)
class Shard:
    """One row of the index's table of shards."""

    name: str
    n_bytes: int
    sha256: str


_TYPES: dict[type, Any] = {str: h5py.string_dtype(), int: np.int64, float: np.float64}


# ---------------------------------------------------------------------------------------- writing


def write_shard(
    cache: Path,
    name: str,
    clips: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    *,
    attrs: Mapping[str, str],
    compression: Compression = "gzip",
) -> Shard:
    """Write one shard, whole or not at all.

    Args:
        cache: the cache's folder.
        name: ``shards/<number>.h5``.
        clips: for each clip id, its datasets; the first axis of each is time.
        attrs: attributes of the shard; ``recipe`` decides whether a resumed run may keep it.
        compression: ``gzip`` or ``none``; any HDF5 reader reads both.
    """
    (cache / name).parent.mkdir(parents=True, exist_ok=True)
    image = shard_image(clips, attrs=attrs, compression=compression)
    write_whole(cache / name, lambda temporary: temporary.write_bytes(image))
    return shard_row(cache, name)


def shard_image(
    clips: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    *,
    attrs: Mapping[str, str],
    compression: Compression,
) -> memoryview:
    """The bytes of a shard; arguments as of `write_shard`."""

    def fill(file: h5py.File) -> None:
        file.attrs.update(attrs)
        for clip, datasets in clips.items():
            group = file.create_group(clip)
            for key, array in datasets.items():
                row_bytes = max(array[:1].nbytes, 1)
                rows = max(1, min(len(array), CHUNK_BYTES // row_bytes))
                dataset = group.create_dataset(
                    key,
                    shape=array.shape,
                    dtype=array.dtype,
                    chunks=(rows, *array.shape[1:]),
                    fletcher32=True,
                    **_FILTERS[compression],
                )
                if compression == "gzip":
                    write_gzip(dataset, array)
                else:
                    dataset[...] = array

    return _image(fill)


def _image(fill: Callable[[h5py.File], None]) -> memoryview:
    """An HDF5 file in memory, because HDF5 answers a full disk with a segmentation fault."""
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        fill(file)
    return image.getbuffer()


def shard_row(cache: Path, name: str) -> Shard:
    """Measure a shard that is on disk."""
    return Shard(name, (cache / name).stat().st_size, sha256_of(cache / name))


def shard_attrs(cache: Path, name: str) -> dict[str, str] | None:
    """The attributes of a shard, or None if it is not there or cannot be read to its end."""
    try:
        read_shard(cache, name)
        with h5py.File(cache / name) as file:
            return {str(key): str(value) for key, value in file.attrs.items()}
    except DAMAGED:
        return None


def shard_clips(cache: Path, name: str) -> list[tuple[str, float, npt.NDArray[np.uint8]]]:
    """The clips of an extraction shard by time: id, the second they start at, thumbnails."""
    with h5py.File(cache / name) as file:
        found = [
            (str(key), float(group["timestamps"][0]), group["thumbnails"][:])
            for key, group in file.items()
        ]
    return sorted(found, key=lambda clip: clip[1])


def read_shard(cache: Path, name: str) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Everything in one shard: clip id → dataset → array."""
    with h5py.File(cache / name) as file:
        return {
            str(clip): {str(key): _own_dataset(file, clip, key)[:] for key in group}
            for clip, group in file.items()
        }


def _own_dataset(file: h5py.File, clip: str, key: str) -> h5py.Dataset:
    """A dataset whose values are in this very file: a stranger's shard must not lead elsewhere.

    Raises:
        KeyError: it is not there.
        ValueError: it is elsewhere.
    """
    return _own(_own(file, clip, h5py.Group), key, h5py.Dataset)


def _own(group: h5py.Group, name: str, kind: type) -> Any:
    if "/" in name or not isinstance(group.get(name, getlink=True), h5py.HardLink | None):
        raise ValueError(f"{name!r} is not stored in this file")
    found = group[name]
    if not isinstance(found, kind) or (
        isinstance(found, h5py.Dataset) and (found.is_virtual or found.external)
    ):
        raise ValueError(f"{name!r} is not stored in this file")
    return found


def write_index(
    cache: Path,
    *,
    stage: str,
    settings: Mapping[str, Any],
    attrs: Mapping[str, str | int | float],
    clips: Sequence[Clip],
    shards: Sequence[Shard],
) -> None:
    """Write ``index.h5`` over shards that are already there."""

    def fill(file: h5py.File) -> None:
        file.attrs["schema"] = SCHEMA
        file.attrs["stage"] = stage
        file.attrs["settings"] = json.dumps(settings, sort_keys=True)
        file.attrs.update(sorted(attrs.items()))
        _write_table(file, "clips", Clip, clips)
        _write_table(file, "shards", Shard, shards)
        data = file.create_group("data")
        for clip in clips:
            data[clip.id] = h5py.ExternalLink(clip.shard, clip.id)

    image = _image(fill)
    write_whole(cache / INDEX, lambda temporary: temporary.write_bytes(image))


def _write_table(file: h5py.File, name: str, row: type, rows: Sequence[Any]) -> None:
    fields = dataclasses.fields(row)
    dtype = np.dtype(
        [(f.name, _TYPES.get(cast(type, f.type), h5py.string_dtype())) for f in fields]
    )
    values = [
        tuple(";".join(v) if isinstance(v, tuple) else v for v in dataclasses.astuple(r))
        for r in rows
    ]
    table = file.create_dataset(
        name, shape=(len(values),), dtype=dtype, chunks=(max(1, len(values)),), fletcher32=True
    )
    if values:
        table[:] = np.array(values, dtype=dtype)


# ---------------------------------------------------------------------------------------- reading


class Cache:
    """A cache, open for reading.

    Cheap to pickle and safe to send to another process: shards are opened when they are read and
    closed again. Reads go through the table of shards, not through the links, so that an index
    from a stranger cannot point outside its own folder.

    Args:
        folder: the cache's folder.
        stage: the stage that must have written it (``extract`` or ``embed``), or None for any.

    Raises:
        SettingsError: no cache is there, it is of another stage, or of a later version.
        IntegrityError: the index is damaged, or a shard is missing or has another size.

    Example:
        >>> cache = Cache(Path("caches/dfd"))             # doctest: +SKIP
        >>> clip = cache.clips[0]                          # doctest: +SKIP
        >>> cache.read(clip, "flow").shape                 # doctest: +SKIP
        (304, 224, 224)
    """

    def __init__(self, folder: str | Path, stage: str | None = None) -> None:
        self.folder = Path(folder)
        index = self.folder / INDEX
        if not index.is_file():
            raise SettingsError(
                f"{self.folder} is not a cache: it has no {INDEX}",
                _how_to_make_a_cache(stage),
            )
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
                self.clips = [_clip(row) for row in _own(file, "clips", h5py.Dataset)[:]]
                self.shards = [_shard(row) for row in _own(file, "shards", h5py.Dataset)[:]]
        except DAMAGED as error:
            raise IntegrityError(
                f"{index} is damaged: {error}", "run the command that made this cache again"
            ) from error
        if stage is not None and self.stage != stage:
            raise SettingsError(
                f"{self.folder} was written by the {self.stage} stage, the {stage} stage is needed",
                _how_to_make_a_cache(stage),
            )
        self._check_shards()

    def _check_shards(self) -> None:
        if (self.folder / "shards").is_symlink():
            raise IntegrityError(f"the shards of {self.folder} are somewhere else: it is a link")
        for shard in self.shards:
            path = self.folder / shard.name
            if not _SHARD_NAME.fullmatch(shard.name) or path.is_symlink():
                raise IntegrityError(f"{self.folder} names a shard outside itself: {shard.name!r}")
            size = path.stat().st_size if path.is_file() else None
            if size != shard.n_bytes:
                found = "is missing" if size is None else f"has {size} bytes"
                raise IntegrityError(
                    f"shard {path} {found}, the index says {shard.n_bytes} bytes",
                    "run the command that made this cache again: it makes what is missing",
                )
        known = {shard.name for shard in self.shards}
        for clip in self.clips:
            if clip.shard not in known:
                raise IntegrityError(f"clip {clip.id} is in no shard of {self.folder}")

    @property
    def sha256(self) -> str:
        """The sha256 of the index, which holds those of all shards: it names this very content."""
        return sha256_of(self.folder / INDEX)

    def clip(self, clip_id: str) -> Clip:
        """The clip of this id."""
        for clip in self.clips:
            if clip.id == clip_id:
                return clip
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
            sets = {key: _own_dataset(file, clip.id, key) for key in file[clip.id]}
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
            return cast(npt.NDArray[Any], _own_dataset(file, clip.id, key)[rows])

    def verify(self) -> Iterator[tuple[Shard, str]]:
        """Read every byte and checksum; yield each shard with what is wrong, or with ``""``."""
        for shard in self.shards:
            fault = ""
            try:
                if sha256_of(self.folder / shard.name) != shard.sha256:
                    fault = "its sha256 is not the one in the index"
                else:
                    read_shard(self.folder, shard.name)
            except DAMAGED as error:
                fault = str(error)
            yield shard, fault

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


def _how_to_make_a_cache(stage: str | None) -> str:
    if stage == "embed":
        return "python -m features.embed CACHE -o EMBEDDINGS makes one"
    return "python -m pipeline.extract VIDEOS -o CACHE makes one"


def _text(row: np.void) -> dict[str, Any]:
    names = row.dtype.names or ()
    values = {name: row[name] for name in names}
    return {k: v.decode() if isinstance(v, bytes) else v.item() for k, v in values.items()}


def _clip(row: np.void) -> Clip:
    fields = _text(row)
    fields["identities"] = tuple(filter(None, fields["identities"].split(";")))
    return Clip(**fields)


def _shard(row: np.void) -> Shard:
    return Shard(**_text(row))


# ------------------------------------------------------------------------------------- resuming


def finished_cache(folder: Path, stage: str, settings: Mapping[str, Any]) -> Cache | None:
    """The cache in this folder if it is finished; None if it is not, or something is missing.

    Raises:
        SettingsError: it was made with other settings, or by another stage.
    """
    if not (folder / INDEX).is_file():
        return None
    settings = json.loads(json.dumps(settings))
    try:
        cache = Cache(folder, stage)
    except IntegrityError:
        try:
            with h5py.File(folder / INDEX) as file:
                made_with = json.loads(file.attrs["settings"])
        except DAMAGED:
            return None
        check_same_settings(folder, made_with, settings)
        return None
    check_same_settings(folder, cache.settings, settings)
    return cache


def check_same_settings(cache: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than those that a cache was begun with.

    Raises:
        SettingsError: names each setting that differs, with both values.
    """
    before, after = _flat(old), _flat(new)
    different = [
        f"{key} was {before.get(key)!r}, now {after.get(key)!r}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
    if different:
        raise SettingsError(
            f"{cache} was begun with other settings: {'; '.join(different)}",
            "use the same settings to resume, or another output folder",
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without nesting: ``splitting.test``."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = value if isinstance(value, dict) else None
        flat |= {f"{key}.{k}": v for k, v in inner.items()} if inner is not None else {key: value}
    return flat
