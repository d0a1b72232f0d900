"""Rows of an index for caches without videos, in tests and benchmarks."""

import hashlib
from typing import Any

from pipeline.cache import Clip


def made_up_clip(n: int, label: int = 0, split: str = "train", **facts: Any) -> Clip:
    """A clip of somebody who is in no other.

    Args:
        n: decides its id, sha256 and identity.
        label: 0 real, 1 fake.
        split: as in `Clip`.
        facts: further fields that are to be otherwise.
    """
    digest = hashlib.sha256(str(n).encode()).hexdigest()
    known: dict[str, Any] = {
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
    return Clip(**known | facts)
