"""The index of a cache, written last: a cache that has one is finished."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from pipeline.cache.layout import COMPANIONS, INDEX, SCHEMA, SUMS
from pipeline.cache.reading import Cache
from pipeline.cache.rows import Clip, Shard, to_table, write_table
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import sha256_of, write_whole


def write_index(
    cache: Path,
    *,
    stage: str,
    settings: Mapping[str, Any],
    attrs: Mapping[str, str | int | float],
    clips: Sequence[Clip],
    shards: Sequence[Shard],
) -> None:
    """Write ``SHA256SUMS`` and ``index.h5`` after all files that they list."""
    image = io.BytesIO()  # in memory, because HDF5 answers a full disk with a crash
    with h5py.File(image, "w") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["stage"] = stage
        file.attrs["settings"] = json.dumps(settings, sort_keys=True)
        file.attrs.update(sorted(attrs.items()))
        write_table(file, "clips", to_table(clips, Clip))
        write_table(file, "shards", to_table(shards, Shard))
        data = file.create_group("data").id  # kept in a variable: links hold no reference
        for clip in clips:
            data.links.create_external(clip.id.encode(), clip.shard.encode(), clip.id.encode())
    content = image.getbuffer()
    sums = {INDEX: hashlib.sha256(content).hexdigest()}
    sums |= {name: sha256_of(cache / name) for name in COMPANIONS if (cache / name).is_file()}
    sums |= {shard.name: shard.sha256 for shard in shards}
    write_sums(cache, sums)
    write_whole(cache / INDEX, lambda temporary: temporary.write_bytes(content))


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write ``SHA256SUMS`` from name → sha256, in the format of sha256sum."""
    text = "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items())
    write_whole(folder / SUMS, lambda temporary: temporary.write_text(text, encoding="ascii"))


def finished_cache(folder: Path, stage: str, settings: Mapping[str, Any]) -> Cache | None:
    """Return the cache in a folder if it is complete; refuse other settings."""
    if not (folder / INDEX).is_file():
        return None
    try:
        cache = Cache(folder, stage, whole=False)
    except IntegrityError:
        return None
    check_same_settings(folder, cache.settings, json.loads(json.dumps(settings)))
    return None if cache.missing() else cache


def readable_cache(folder: Path, stage: str) -> Cache | None:
    """Return the cache in a folder if nothing but shards is missing."""
    try:
        cache = Cache(folder, stage, whole=False)
    except (SettingsError, IntegrityError):
        return None
    return cache if all((folder / name).is_file() for name in COMPANIONS) else None


def check_same_settings(cache: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise a `SettingsError` that names each setting that differs, with both values."""
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
    """Return settings without nesting, under keys like ``splitting.test``."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat
