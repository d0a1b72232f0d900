"""Made-up index rows, for tests and benchmarks that need no videos."""

import hashlib
from typing import Any

from pipeline.cache import Clip


def made_up_clip(n: int, label: int = 0, split: str = "train", **facts: Any) -> Clip:
    """Return a clip with an identity of its own.

    Args:
        n: number that determines id, sha256 and identity.
        label: 0 real, 1 fake.
        split: split name as in `Clip`.
        facts: other fields to set.
    """
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
