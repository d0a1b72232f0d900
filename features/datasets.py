"""Caches as PyTorch datasets and as a pandas table.

Example::

    from features import ByShard, CacheDataset
    from torch.utils.data import DataLoader

    clips = CacheDataset("caches/dfd", "flow", split="train")
    for maps, labels in DataLoader(clips, 4, sampler=ByShard(clips), num_workers=2):
        ...  # (4, T-1, H, W) uint8, (4,) int64
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from pipeline.cache import Cache
from pipeline.common.errors import NothingUsable, SettingsError

if TYPE_CHECKING:
    import pandas as pd


class CacheDataset(Dataset[tuple[torch.Tensor, int]]):
    """One array of each clip of a cache, of either stage, with the clip's label.

    Safe in the workers of a ``DataLoader``. Its ``clips`` are rows of the index, one for each item.

    Args:
        cache: the cache, or its folder.
        key: an array of `docs/cache.md`: ``flow``, ``frames``, ``motion``, ...
        split: ``train``, ``val``, ``test`` or ``holdout``.
        length: consecutive rows of each item, starting at random; default all.

    Raises:
        SettingsError: the cache has no such array, or a clip has fewer rows than ``length``.
        NothingUsable: no clip is in this split.
    """

    def __init__(
        self, cache: str | Path | Cache, key: str, *, split: str, length: int | None = None
    ) -> None:
        self.cache = cache if isinstance(cache, Cache) else Cache(cache)
        self.clips = [clip for clip in self.cache.clips if clip.split == split]
        if not self.clips:
            raise NothingUsable(f"no clip of {self.cache.folder} is in the split {split!r}")
        datasets = self.cache.datasets(self.clips[0])
        if key not in datasets:
            raise SettingsError(
                f"{self.cache.folder} has no {key!r}", f"it holds {', '.join(sorted(datasets))}"
            )
        n_rows = datasets[key][0][0]
        if length is not None and not 1 <= length <= n_rows:
            raise SettingsError(f"length {length}", f"a clip has {n_rows} rows of {key!r}")
        self.key, self._n_rows, self._length = key, n_rows, length or n_rows

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, n: int) -> tuple[torch.Tensor, int]:
        """Return the array of a clip, (length, ...), and its label, 1 if fake."""
        clip = self.clips[n]
        start = int(torch.randint(self._n_rows - self._length + 1, ()))
        array = self.cache.read(clip, self.key, slice(start, start + self._length))
        return torch.from_numpy(array), clip.label


class ByShard(Sampler[int]):
    """Sampler that shuffles shards, and clips within them, so that each file is read in one go.

    The order differs between epochs.
    """

    def __init__(self, dataset: CacheDataset, seed: int = 0) -> None:
        shards: dict[str, list[int]] = {}
        for n, clip in enumerate(dataset.clips):
            shards.setdefault(clip.shard, []).append(n)
        self._shards = list(shards.values())
        self._random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def __iter__(self) -> Iterator[int]:
        for n in self._random.permutation(len(self._shards)).tolist():
            yield from self._random.permutation(self._shards[n]).tolist()


def clip_table(cache: str | Path | Cache) -> "pd.DataFrame":
    """Return the index of a cache as a pandas table with a row for each clip.

    Raises:
        SettingsError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise SettingsError("pandas is not installed", "pip install pandas") from error
    opened = cache if isinstance(cache, Cache) else Cache(cache)
    columns: list[str] = list(type(opened.clips[0]).__dataclass_fields__)
    rows: list[list[Any]] = [[getattr(clip, name) for name in columns] for clip in opened.clips]
    return pd.DataFrame(rows, columns=columns).set_index("id")
