"""Made-up index rows and shards, for tests and benchmarks."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pipeline.cache import Clip, Compression, Shard, shard_row, writing_shard


def made_up_clip(n: int, label: int = 0, split: str = "train", **facts: Any) -> Clip:
    """Return a clip whose id, sha256 and identity depend on n; `facts` are its other fields."""
    digest = hashlib.sha256(str(n).encode()).hexdigest()
    fields: dict[str, Any] = {
        "id": digest[:16],
        "video": digest[:16],
        "label": label,
        "split": split,
        "identities": (f"person:{n}",),
        "shard": "shards/00000.h5",
        "n_frames": 20,
        "start": 0.0,
        "fps": 25.0,
        "width": 640,
        "height": 480,
        "duration": 4.0,
        "bit_rate": 1e6,
        "n_bytes": 500_000,
        "source_sha256": digest,
    }
    return Clip(**fields | facts)


def write_shard(
    cache: Path,
    name: str,
    clips: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    *,
    attrs: Mapping[str, str],
    compression: Compression = "gzip",
) -> Shard:
    """Write a shard from clip id → dataset → array."""
    with writing_shard(cache, name, attrs=attrs, compression=compression) as shard:
        for clip, datasets in clips.items():
            for key, array in datasets.items():
                shard.begin(clip, key, array.shape, array.dtype)
                shard.append(clip, key, array)
    return shard_row(cache, name)
