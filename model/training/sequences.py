"""Embeddings of a cache as one array."""

import itertools
import json
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

MAX_PAIRS_IN_MESSAGE = 3
DESCRIPTORS = ("motion", "trajectory")  # streams that are no embeddings: copies have the same


@dataclass(frozen=True)
class Sequences:
    """N clips as sequences of L vectors."""

    x: torch.Tensor  # (N, L, D) float32, joined streams
    clips: tuple[Clip, ...]
    widths: Mapping[str, int]  # stream → number of its features, in the order of the D
    copies: tuple[torch.Tensor, ...] = ()  # augmented copies of x, for training only
    mapped: bool = False  # x and copies are memory-mapped

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels, (N,) int64: 0 real, 1 fake."""
        return np.array([clip.label for clip in self.clips], np.int64)

    def rows(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> "Sequences":
        """Return the clips at these indices."""
        return replace(
            self,
            x=self.x[rows],
            clips=tuple(self.clips[n] for n in rows),
            copies=tuple(copy[rows] for copy in self.copies),
        )


def columns_of(widths: Mapping[str, int]) -> dict[str, slice]:
    """Return the columns of each stream in joined vectors, from the widths in their order."""
    ends = itertools.accumulate(widths.values())
    return {
        stream: slice(end - width, end)
        for (stream, width), end in zip(widths.items(), ends, strict=True)
    }


def join_streams(
    embedded: Mapping[str, npt.NDArray[Any]], streams: Sequence[str], copy: str = ""
) -> npt.NDArray[np.float32]:
    """Join the streams of one clip along the feature axis, (L, D) float32.

    A flow map or motion descriptor between two frames is joined with the later frame. Motion is
    averaged over the flow maps of each row, the first and last of which are in ``rows``, (L, 2).
    Motion and trajectory are the same in every augmented ``copy``.
    """
    parts = []
    for stream in streams:
        if stream == "motion":
            sums = np.cumsum(embedded["motion"], axis=0, dtype=np.float64)
            sums = np.concatenate([np.zeros_like(sums[:1]), sums])  # (T, K)
            first, last = embedded["rows"].T
            parts.append((sums[last + 1] - sums[first]) / (last + 1 - first)[:, None])
        else:
            parts.append(embedded[_key(stream, "" if stream in DESCRIPTORS else copy)])
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def _key(stream: str, copy: str) -> str:
    return f"{stream}-{copy}" if copy else stream


def load_sequences(
    cache: Cache, streams: Sequence[str], splits: Sequence[str], *, limit: int | None = None
) -> Sequences:
    """Read the clips of some splits of an embedding cache.

    Above ``limit`` bytes, by default a third of the available memory, they are mapped to a file.
    """
    held = available_streams(cache)
    if missing := [stream for stream in streams if stream not in held]:
        raise SettingsError(
            f"{cache.folder} has no {' and no '.join(missing)}",
            f"it holds {', '.join(held)}; {_how_to_add(missing)}",
        )
    clips = tuple(clip for clip in cache.clips if clip.split in splits)
    if not clips:
        raise NothingUsable(f"no clip of {cache.folder} is in the {' or '.join(splits)} split")
    embedded = [stream for stream in streams if stream not in DESCRIPTORS]
    copies = ["", *(cache.settings["augment"] if embedded else ())]
    keys = {"rows", *(stream for stream in streams if stream in DESCRIPTORS)}
    keys |= {_key(stream, copy) for stream in embedded for copy in copies}

    def read(clip: Clip) -> dict[str, npt.NDArray[Any]]:
        return {key: cache.read(clip, key) for key in keys}

    first = read(clips[0])
    widths = {stream: first[stream].shape[1] for stream in streams}
    shape = len(copies), len(clips), len(first["rows"]), sum(widths.values())
    mapped = 4 * math.prod(shape) > (_available_memory() // 3 if limit is None else limit)
    joined = empty(shape, in_a_file=mapped)
    by_shard = sorted(range(len(clips)), key=lambda n: clips[n].shard)  # each is opened once
    for n in by_shard:
        arrays = read(clips[n])
        for k, copy in enumerate(copies):
            joined[k, n] = torch.from_numpy(join_streams(arrays, streams, copy))
    return Sequences(joined[0], clips, widths, tuple(joined[1:]), mapped)


def _available_memory() -> int:
    """Return the bytes that this machine can give without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def empty(shape: Sequence[int], *, in_a_file: bool) -> torch.Tensor:
    """Allocate float32, in memory or in a temporary file that is deleted with the tensor."""
    if not in_a_file:
        return torch.empty(tuple(shape))
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # or a full disk kills the process later
            os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=tuple(shape)))


def available_streams(cache: Cache) -> tuple[str, ...]:
    """Return the streams that an embedding cache holds."""
    held = {*cache.settings["streams"], "motion"}
    if trajectory_columns(cache):
        held.add("trajectory")
    return tuple(stream for stream in STREAMS if stream in held)


def trajectory_columns(cache: Cache) -> tuple[str, ...]:
    """Return the columns of a cache's trajectories, such as ``flow 4 turn``, if it has any."""
    return tuple(json.loads(cache.attrs.get("trajectory", "[]")))


def _how_to_add(missing: Sequence[str]) -> str:
    if "trajectory" in missing:
        return "the features.embed command that made it adds trajectories"
    return "python -m features.embed --streams adds others"


def check_leaks(cache: Cache, *, allow: bool = False) -> str:
    """Raise IntegrityError if anything that links videos is on two sides of the split.

    With ``allow`` return a warning for every result instead, empty if nothing leaks.
    """
    clips = [clip for clip in cache.clips if clip.split]
    keys, splits = [clip.group_keys for clip in clips], [clip.split for clip in clips]
    ids = [clip.id for clip in clips]
    n_leaks = len(find_leaks(keys, splits, ids))
    if not n_leaks:
        return ""
    leaks = f"{n_leaks} identities, originals, recordings or files are on two sides of"
    if not allow:
        pairs = [str(pair) for pair in offending_pairs(keys, splits, ids)]
        listed = "; ".join(pairs[:MAX_PAIRS_IN_MESSAGE])
        n_more = len(pairs) - MAX_PAIRS_IN_MESSAGE
        more = f"; and {n_more} more pairs" if n_more > 0 else ""
        raise IntegrityError(
            f"{leaks} the splits of {cache.folder}: {listed}{more}",
            f"python -m pipeline.audit {cache.folder} lists them; python -m pipeline.split makes a "
            "split that does not leak; --allow-leaks continues and adds a warning to every result",
        )
    return f"The split leaks: {leaks} it. Results are too good to be true."
