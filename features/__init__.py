"""From a cache of frames and flow maps to a cache of CNN embeddings in HDF5.

Example::

    from pathlib import Path
    from features import Options, load_backbone
    from features.embedding import embed
    from pipeline import Cache

    backbone = load_backbone("resnet18")  # or of any other name in torchvision
    embeddings = embed(Cache("caches/dfd"), Path("caches/dfd-resnet18"), backbone, Options())
    vectors = embeddings.read(embeddings.clips[0], "flow")  # (T-1, 512) float16

`embed` is in `features.embedding`, as `features.embed` is the command. `CacheDataset`, `ByShard`
and `clip_table` are for whoever trains something else over a cache.
"""

from typing import TYPE_CHECKING

from pipeline.common.lazy import lazily

if TYPE_CHECKING:
    from features.backbones import Backbone as Backbone
    from features.backbones import load_backbone as load_backbone
    from features.datasets import ByShard as ByShard
    from features.datasets import CacheDataset as CacheDataset
    from features.datasets import clip_table as clip_table
    from features.embedding import checked_on as checked_on
    from features.embedding import embed_clip as embed_clip
    from features.settings import Options as Options

_HOMES = {
    "Backbone": "features.backbones",
    "ByShard": "features.datasets",
    "CacheDataset": "features.datasets",
    "Options": "features.settings",
    "checked_on": "features.embedding",
    "clip_table": "features.datasets",
    "embed_clip": "features.embedding",
    "load_backbone": "features.backbones",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
