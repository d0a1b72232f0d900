"""What these tests share: a cache of two made-up clips in two shards."""

import numpy as np
import pytest

from data.clips import made_up_clip, write_shard
from pipeline.cache import write_index

SETTINGS = {"width": 64, "crop": None, "fps": 12.5}


def clip(id, shard, **facts):
    known = {"id": id, "video": id, "identities": ("ann", "bo"), "shard": shard, "n_frames": 6}
    return made_up_clip(0, **known | facts)


def arrays(seed=0, size=(48, 64)):
    rng = np.random.default_rng(seed)
    return {
        "frames": rng.integers(0, 256, (6, *size, 3)).astype(np.uint8),
        "flow": rng.integers(0, 256, (5, *size)).astype(np.uint8),
        "flow_range": rng.random((5, 2)).astype(np.float32),
        "timestamps": np.arange(6) / 25,
    }


def make(folder, *, names=("shards/00000.h5", "shards/00001.h5"), clips=None, shards=None):
    """A cache of two clips in two shards."""
    ids = ("c0ffee0", "decaf01")
    written = [
        write_shard(folder, name, {id: arrays(n)}, attrs={"settings": "x"})
        for n, (id, name) in enumerate(zip(ids, names, strict=True))
    ]
    rows = [clip(ids[0], names[0]), clip(ids[1], names[1], label=1, split="", identities=())]
    write_index(
        folder,
        stage="extract",
        settings=SETTINGS,
        attrs={"frames": 6, "made_by": "a test"},
        clips=clips or rows,
        shards=shards or written,
    )
    return folder


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "cache")
