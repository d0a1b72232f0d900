"""Embeddings of frames and flow maps by a frozen network, cached in HDF5.

Example::

    from pathlib import Path
    from features import Options, load_backbone
    from features.embedding import embed
    from pipeline import Cache

    backbone = load_backbone("resnet18")  # or another name in torchvision
    embeddings = embed(Cache("caches/dfd"), Path("caches/dfd-resnet18"), backbone, Options())
    vectors = embeddings.read(embeddings.clips[0], "flow")  # (T-1, 512) float16

`embed` is in `features.embedding`, because `features.embed` is the command.
"""

import importlib
from typing import TYPE_CHECKING, Any

import pipeline  # noqa: F401  # first: it reports libraries that are missing
from features.settings import Options

if TYPE_CHECKING:
    from features.backbones import Backbone, load_backbone
    from features.datasets import ByShard, CacheDataset, clip_table
    from features.embedding import checked_on, embed_clip

__all__ = [
    "Backbone",
    "ByShard",
    "CacheDataset",
    "Options",
    "checked_on",
    "clip_table",
    "embed_clip",
    "load_backbone",
]


def __getattr__(name: str) -> Any:
    """Import PyTorch for the names that need it, not for ``--help``."""
    if name in __all__:
        for module in ("backbones", "datasets", "embedding"):
            names = vars(importlib.import_module(f"features.{module}"))
            if name in names:
                return names[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
