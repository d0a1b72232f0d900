"""Embeddings of a cache as one array per corpus, and who is who in it."""

import itertools
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.settings import STREAMS
from pipeline.cache import Cache, Clip
from pipeline.common.errors import IntegrityError, NothingUsable, SettingsError
from pipeline.corpus.leaks import find_leaks, offending_pairs

SHOWN = 3  # pairs of clips in a message


@dataclass(frozen=True)
class Sequences:
    """N clips as sequences of L vectors.

    Attributes:
        x: (N, L, D) float32: all streams of a moment side by side.
        clips: N rows of the index.
        widths: stream → how many of the D are its own, in their order.
        copies: altered copies of x, to train with.
        mapped: whether they lie in a file, because memory would not hold them.
    """

    x: torch.Tensor
    clips: tuple[Clip, ...]
    widths: Mapping[str, int]
    copies: tuple[torch.Tensor, ...] = ()
    mapped: bool = False

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) int64, 0 real, 1 fake."""
        return np.array([clip.label for clip in self.clips], np.int64)

    def of(self, streams: Sequence[str]) -> "Sequences":
        """The same clips as some of their streams show them."""
        if tuple(streams) == tuple(self.widths):
            return self
        place = columns_of(self.widths)

        def chosen(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[..., place[stream]] for stream in streams], dim=-1)

        return replace(
            self,
            x=chosen(self.x),
            widths={stream: self.widths[stream] for stream in streams},
            copies=tuple(chosen(copy) for copy in self.copies)
            if set(streams) != {"motion"}
            else (),
        )

    def rows(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> "Sequences":
        """Some of the clips."""
        return replace(
            self,
            x=self.x[rows],
            clips=tuple(self.clips[n] for n in rows),
            copies=tuple(copy[rows] for copy in self.copies),
        )


def columns_of(widths: Mapping[str, int]) -> dict[str, slice]:
    """Where the numbers of each stream are in vectors that have all of them side by side.

    Args:
        widths: stream → how many numbers it has, in their order.

    Example:
        >>> columns_of({"flow": 512, "motion": 13})["motion"]
        slice(512, 525, None)
    """
    ends = itertools.accumulate(widths.values())
    return {
        stream: slice(end - width, end)
        for (stream, width), end in zip(widths.items(), ends, strict=True)
    }


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


def load_sequences(
    cache: Cache, streams: Sequence[str], splits: Sequence[str], *, limit: int | None = None
) -> Sequences:
    """Read the clips of some splits of an embedding cache.

    Args:
        cache: of the embed stage.
        streams: some of `STREAMS`.
        splits: whose clips.
        limit: bytes; what is more is laid into a temporary file, in the order of the shards, and
            read from there. By default a third of the memory that is free.

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
    names = ["", *(cache.settings["augment"] if set(streams) != {"motion"} else ())]
    suffixes = [f"-{name}" if name else "" for name in names]
    keys = {s + suffix for s in streams if s != "motion" for suffix in suffixes}

    def read(clip: Clip) -> dict[str, npt.NDArray[Any]]:
        return {key: cache.read(clip, key) for key in {*keys, "motion", "rows"}}

    first = read(clips[0])
    widths = {stream: first[stream].shape[1] for stream in streams}
    shape = len(names), len(clips), len(first["rows"]), sum(widths.values())
    n_bytes = 4 * math.prod(shape)
    mapped = n_bytes > (_available_memory() // 3 if limit is None else limit)
    everything = empty(shape, in_a_file=mapped)
    order = sorted(range(len(clips)), key=lambda n: clips[n].shard)  # a shard is read in one go
    for n in order:
        arrays = read(clips[n])
        for copy, name in enumerate(names):
            everything[copy, n] = torch.from_numpy(join_streams(arrays, streams, name))
    x, *copies = everything
    return Sequences(x, clips, widths, tuple(copies), mapped)


def _available_memory() -> int:
    """Bytes that this machine can give without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def empty(shape: Sequence[int], *, in_a_file: bool) -> torch.Tensor:
    """Room for float32, in memory or in a temporary file, which goes when the last tensor does."""
    if not in_a_file:
        return torch.empty(tuple(shape))
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process later
            os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=tuple(shape)))


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
        IntegrityError: it leaks; with some of the offending pairs of clips.
    """
    clips = [clip for clip in cache.clips if clip.split]
    ties, splits = [clip.group_keys for clip in clips], [clip.split for clip in clips]
    names = [clip.id for clip in clips]
    found = find_leaks(ties, splits, names)
    if not found:
        return ""
    if not allow:
        pairs = [str(pair) for pair in offending_pairs(ties, splits, names)]
        more = f"; and {len(pairs) - SHOWN} more pairs" if len(pairs) > SHOWN else ""
        raise IntegrityError(
            f"{len(found)} identities, originals, recordings or files are on two sides of the "
            f"splits of {cache.folder}: {'; '.join(pairs[:SHOWN])}{more}",
            f"python -m pipeline.audit {cache.folder} lists them; python -m pipeline.split makes a "
            "split that does not leak; --allow-leaks goes on, and says so over every result",
        )
    return (
        f"The split leaks: {len(found)} identities, originals, recordings or files are on two "
        "sides of it. Results are too good to be true."
    )
