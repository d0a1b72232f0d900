"""Embeddings of a cache as one array per corpus, and who is who in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.cache import Cache, Clip
from pipeline.errors import IntegrityError, NothingUsable, SettingsError
from pipeline.leaks import find_leaks, offending_pairs

STREAMS = ("flow", "frames", "motion")


@dataclass(frozen=True)
class Sequences:
    """N clips as sequences of L vectors.

    Attributes:
        x: (N, L, D) float32: all streams of a moment side by side.
        clips: N rows of the index.
        copies: altered copies of x, to train with.
    """

    x: torch.Tensor
    clips: tuple[Clip, ...]
    copies: tuple[torch.Tensor, ...] = ()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) int64, 0 real, 1 fake."""
        return np.array([clip.label for clip in self.clips], np.int64)


def join_streams(
    embedded: Mapping[str, npt.NDArray[Any]], streams: Sequence[str], copy: str = ""
) -> npt.NDArray[np.float32]:
    """Lay the streams of one clip side by side.

    A flow map or motion descriptor between two frames stands beside the later of them. Where a row
    is about several of them, its motion is their mean.

    Args:
        embedded: ``flow`` (L, D), ``frames`` (L, D), ``motion`` (T-1, K), and ``rows`` (L, 2), the
            first and the last of the T-1 that each of the L is about.
        streams: which of them.
        copy: which copy of what is embedded, as ``flip``; motion has none.

    Returns:
        (L, sum of their lengths) float32.
    """
    suffix = f"-{copy}" if copy else ""
    parts = []
    for stream in streams:
        if stream == "motion":
            sums = np.cumsum(embedded["motion"], axis=0, dtype=np.float64)
            sums = np.concatenate([np.zeros_like(sums[:1]), sums])  # (T, K)
            first, last = embedded["rows"].T
            parts.append((sums[last + 1] - sums[first]) / (last + 1 - first)[:, None])
        else:
            parts.append(embedded[stream + suffix])
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def load_sequences(cache: Cache, streams: Sequence[str], splits: Sequence[str]) -> Sequences:
    """Read the clips of some splits of an embedding cache.

    Raises:
        SettingsError: the cache does not hold one of the streams.
        NothingUsable: no clip is in these splits.
    """
    held = available_streams(cache)
    if missing := [stream for stream in streams if stream not in held]:
        raise SettingsError(
            f"{cache.folder} has no {' and no '.join(missing)}",
            f"it holds {', '.join(held)}; python -m features.embed --streams adds others",
        )
    clips = tuple(clip for clip in cache.clips if clip.split in splits)
    if not clips:
        raise NothingUsable(f"no clip of {cache.folder} is in the {' or '.join(splits)} split")
    of_clip: dict[str, list[npt.NDArray[np.float32]]] = {"": []}
    of_clip |= {copy: [] for copy in cache.settings["augment"] if set(streams) != {"motion"}}
    for clip in clips:
        suffixes = [f"-{copy}" if copy else "" for copy in of_clip]
        keys = {s + suffix for s in streams if s != "motion" for suffix in suffixes}
        arrays = {key: cache.read(clip, key) for key in {*keys, "motion", "rows"}}
        for copy, rows in of_clip.items():
            rows.append(join_streams(arrays, streams, copy))
    x, *copies = (torch.from_numpy(np.stack(rows)) for rows in of_clip.values())
    return Sequences(x, clips, tuple(copies))


def available_streams(cache: Cache) -> tuple[str, ...]:
    """The streams that an embedding cache holds."""
    embedded = (*cache.settings["streams"], "motion")
    return tuple(stream for stream in STREAMS if stream in embedded)


def check_leaks(cache: Cache, *, allow: bool = False) -> str:
    """Refuse a cache in which anything that ties videos together is on two sides of the split.

    Args:
        cache: of the embed stage.
        allow: do not refuse it.

    Returns:
        what to say over every result on a cache that leaks, or nothing.

    Raises:
        IntegrityError: it leaks; with every offending pair of clips.
    """
    clips = [clip for clip in cache.clips if clip.split]
    ties, splits = [clip.ties for clip in clips], [clip.split for clip in clips]
    names = [clip.id for clip in clips]
    found = find_leaks(ties, splits, names)
    if not found:
        return ""
    if not allow:
        pairs = "\n  ".join(map(str, offending_pairs(ties, splits, names)))
        raise IntegrityError(
            f"{len(found)} identities, originals, recordings or files are on two sides of the "
            f"splits of {cache.folder}:\n  {pairs}",
            "python -m pipeline.split makes a split that does not leak; --allow-leaks goes on, and "
            "says so over every result",
        )
    return (
        f"The split leaks: {len(found)} identities, originals, recordings or files are on two "
        "sides of it. Results are too good to be true."
    )
