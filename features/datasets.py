"""Caches for whoever trains something else over them: PyTorch datasets, and the clips as a table.

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
    """The clips of a cache of either stage, one array of each, with their labels.

    It can be pickled and is safe in the workers of a ``DataLoader``: a file is opened when it is
    read, and closed again.

    Args:
        cache: its folder, or the cache.
        key: which array of a clip: ``flow``, ``frames``, ``motion``, ... as `docs/cache.md` lists
            them for each stage.
        split: ``train``, ``val``, ``test`` or ``holdout``.
        length: rows of each item, from a random one on; by default all.

    Attributes:
        clips: the rows of the index, one for each item.

    Raises:
        SettingsError: the cache has no such array.
        NothingUsable: no clip is in this split.
    """

    def __init__(
        self, cache: str | Path | Cache, key: str, *, split: str, length: int | None = None
    ) -> None:
        self.cache = cache if isinstance(cache, Cache) else Cache(cache)
        self.clips = [clip for clip in self.cache.clips if clip.split == split]
        if not self.clips:
            raise NothingUsable(f"no clip of {self.cache.folder} is in the split {split!r}")
        held = self.cache.datasets(self.clips[0])
        if key not in held:
            raise SettingsError(
                f"{self.cache.folder} has no {key!r}", f"it holds {', '.join(sorted(held))}"
            )
        n_rows = held[key][0][0]
        if length is not None and not 1 <= length <= n_rows:
            raise SettingsError(f"length {length}", f"a clip has {n_rows} rows of {key!r}")
        self.key, self._n_rows, self._length = key, n_rows, length or n_rows

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, n: int) -> tuple[torch.Tensor, int]:
        """The array of a clip, (length, ...), and its label: 0 real, 1 fake."""
        clip = self.clips[n]
        start = int(torch.randint(self._n_rows - self._length + 1, ()))
        array = self.cache.read(clip, self.key, slice(start, start + self._length))
        return torch.from_numpy(array), clip.label


class ByShard(Sampler[int]):
    """Shuffles shards, and clips within them, so that a file is read in one go.

    Args:
        dataset: whose clips.
        seed: another order comes with each epoch, and the same ones with the same seed.
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
    """The clips of a cache as a table of pandas, a row a clip, with the columns of the index.

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
