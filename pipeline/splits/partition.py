"""Splits in which no group key, such as an identity, is on two sides.

A video is kept if all its keys are on one side, else dropped. Components of videos that share keys
are placed whole wherever the fractions allow that; otherwise large ones are cut by local search.
Small ones then fill what the sides lack, in the order of their hashes, so that a new video hardly
moves an old one.
"""

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from scipy.sparse import csr_array

from pipeline.common.errors import SettingsError
from pipeline.corpus.labelled_video import FAKE, SPLITS
from pipeline.splits.local_search import (
    NO_SIDE,
    Bools,
    Floats,
    Ints,
    components,
    count_by_side,
    in_order_of_appearance,
    place,
    sides_of_sets,
)

HOLDOUT = SPLITS.index("holdout")
MAX_CANDIDATES = 16  # of a holdout


def partition(
    group_keys: Sequence[Collection[str]],
    labels: Sequence[int],
    *,
    seed: int = 0,
    test: float = 0.2,
    val: float = 0.0,
    holdout: int = 1,
    fixed: Sequence[str | None] | None = None,
    names: Sequence[str] | None = None,
) -> list[str | None]:
    """Put every video into train, val, test or holdout, so that no group key is in two of them.

    In order of priority: train and test get both labels; the holdout gets `holdout` videos of each
    label, or none where that would take a label from another split; few videos are dropped, and
    each label's shares come near the fractions. Components are cut only where whole ones cannot
    give every label between half and twice its fraction.

    The order of the videos has no influence. A new video with a new key moves at most one component
    across each boundary (train-val, val-test), and only one with no label but its own; besides, the
    holdout may change. Components with both labels, or with more than about 1/32 of a label's
    videos, stay until that label's count passes a power of two.

    Args:
        group_keys: N collections; a key that only comes along with another one has no influence.
        labels: N labels, 0 real, 1 fake.
        seed: of the hashes that order the keys.
        test: share of each label, as `val`; the rest is for train.
        fixed: N splits to keep, empty or None where free; keys follow their videos.
        names: N distinct names, which order videos with the same keys; by default positions do.

    Returns:
        N splits, None for a dropped video.

    Raises:
        SettingsError: nothing is left to train on, or `fixed` contradicts itself.
        ValueError: the sequences differ in length, or a label is neither 0 nor 1.

    Example:
        >>> partition([{"ann"}, {"ann", "bo"}, {"cy"}, {"cy", "di"}], [0, 1, 0, 1], test=0.5)
        ['train', 'train', 'test', 'test']
    """
    if not (test >= 0 and val >= 0 and test + val < 1 and holdout >= 0):
        raise SettingsError(
            f"test {test:g}, val {val:g} and holdout {holdout} leave nothing to train on.",
            "Give fractions from 0, together below 1.",
        )
    graph = _graph(group_keys, labels, names, seed)
    members, counts = graph.members, graph.counts
    fractions = np.array([1 - test - val, test, val])
    pinned = _pinned(graph, fixed)
    usable = members @ (pinned == HOLDOUT) == 0
    sides = place(members[usable], counts[usable], fractions, pinned)
    chooses_holdout = holdout and not (pinned == HOLDOUT).any()
    if chooses_holdout:
        sides = _hold_out(graph, fractions, pinned, sides, holdout)
    sides = _rescue(members, sides)
    split = sides_of_sets(members, sides)[graph.set_of_video]  # (N,)
    if chooses_holdout:
        for label in (0, 1):
            held = np.flatnonzero((split == HOLDOUT) & (np.asarray(labels) == label)).tolist()
            if names is not None:
                held.sort(key=lambda video: _hash(names[video], seed))
            split[held[holdout:]] = NO_SIDE
    return [None if s == NO_SIDE else SPLITS[s] for s in split]


def folds(
    group_keys: Sequence[Collection[str]], labels: Sequence[int], k: int, *, seed: int = 0
) -> list[tuple[Ints, Ints]]:
    """Return at most k pairs of indices to train and to validate, without a common key.

    Every fold has both labels on both sides, or the one that all videos have. A video validates in
    one fold, or in none if it straddles; a fold trains on all videos that share no key with those
    it validates.

    Raises:
        SettingsError: k is below 2, or the keys do not allow two folds.

    Example:
        >>> for train, val in folds([{"ann"}, {"ann"}, {"bo"}, {"bo"}], [0, 1, 0, 1], 2):
        ...     print(train, val)
        [2 3] [0 1]
        [0 1] [2 3]
    """
    if k < 2:
        raise SettingsError(f"{k} folds cannot validate anything.", "Ask for 2 or more.")
    graph = _graph(group_keys, labels, None, seed)
    members, counts = graph.members, graph.counts
    M = len(graph.keys)
    for n in range(min(k, M), 1, -1):
        sides = place(members, counts, np.full(n, 1 / n), np.full(M, NO_SIDE))
        inside = members @ np.eye(n)[sides]  # (E, n)
        parts = [inside == 0, inside == members.sum(1)[:, None]]  # training, validation
        if all((part.T @ counts > 0)[:, counts.any(0)].all() for part in parts):
            train, val = (part[graph.set_of_video].T for part in parts)  # (n, N)
            return [(np.flatnonzero(t), np.flatnonzero(v)) for t, v in zip(train, val, strict=True)]
    raise SettingsError(
        f"The {M} identities of {len(labels)} videos do not allow two folds "
        f"with {'real and fake ' * (len(set(labels)) > 1)}videos on both sides.",
        "Add videos of other people, or train without cross-validation.",
    )


def groups(group_keys: Sequence[Collection[str]]) -> Ints:
    """Number the components of N videos that share keys, (N,), in order of appearance.

    Example:
        >>> groups([{"ann"}, {"cy"}, {"bo", "di"}, {"ann", "bo"}]).tolist()
        [0, 1, 0, 0]
    """
    graph = _graph(group_keys, [0] * len(group_keys), None, 0)
    component_of_set = sides_of_sets(graph.members, components(graph.members))
    return in_order_of_appearance(component_of_set[graph.set_of_video])


@dataclass(frozen=True)
class _Graph:
    keys: list[str]  # M, in the order of their hashes
    members: csr_array  # (E, M)
    counts: Floats  # (E, 2)
    set_of_video: Ints  # (N,)


def _graph(
    group_keys: Sequence[Collection[str]],
    labels: Sequence[int],
    names: Sequence[str] | None,
    seed: int,
) -> _Graph:
    if not set(labels) <= {0, 1}:
        raise ValueError(f"labels are 0 and 1, got {sorted(set(labels) - {0, 1})}")
    if any(isinstance(keys, str) for keys in group_keys):
        raise ValueError("group keys are collections of strings, got a bare string")
    videos = zip(group_keys, labels, range(len(labels)) if names is None else names, strict=True)
    of_videos = _without_idle_keys([set(keys) or {f"\0{name}"} for keys, _, name in videos])
    ordered = sorted(set().union(*of_videos), key=lambda key: (_hash(key, seed), key))
    column = {key: i for i, key in enumerate(ordered)}
    columns = [tuple(sorted(column[key] for key in keys)) for keys in of_videos]
    sets = sorted(set(columns))
    row = {key_set: e for e, key_set in enumerate(sets)}
    set_of_video = np.array([row[key_set] for key_set in columns], np.int64)
    counts = np.zeros((len(sets), 2))
    np.add.at(counts, (set_of_video, np.asarray(labels, np.int64)), 1)
    starts = np.cumsum([0, *map(len, sets)])
    flat = np.array([i for key_set in sets for i in key_set], np.int64)
    members = csr_array((np.ones(len(flat)), flat, starts), shape=(len(sets), len(ordered)))
    return _Graph(ordered, members, counts, set_of_video)


def _keys_of_sets(members: csr_array) -> list[Ints]:
    return np.split(members.indices, members.indptr[1:-1])


def _without_idle_keys(of_videos: Sequence[set[str]]) -> list[set[str]]:
    """Leave out every key that only comes along with another one.

    For example an original, if all videos of it show the same actor.
    """
    common: dict[str, set[str]] = {}  # key → keys of every video that has it
    for keys in of_videos:
        for key in keys:
            common[key] = common.get(key, keys) & keys
    idle: set[str] = set()
    for key in sorted(common, reverse=True):
        if common[key] - idle - {key}:
            idle.add(key)
    return [keys - idle for keys in of_videos]


def _hash(text: str, seed: int) -> bytes:
    return sha256(f"{seed}\0{text}".encode(errors="backslashreplace")).digest()


def _pinned(graph: _Graph, fixed: Sequence[str | None] | None) -> Ints:
    """Return the side of every key of a fixed video, (M,)."""
    pinned = np.full(len(graph.keys), NO_SIDE)
    if fixed is None:
        return pinned
    keys_of_set = _keys_of_sets(graph.members)
    for e, split in dict.fromkeys(zip(graph.set_of_video.tolist(), fixed, strict=True)):
        if not split:
            continue
        if split not in SPLITS:
            raise SettingsError(f"Unknown split {split!r}.", f"Use one of {', '.join(SPLITS)}.")
        side = SPLITS.index(split)
        for i in keys_of_set[e]:
            if pinned[i] not in (NO_SIDE, side):
                raise SettingsError(
                    f"{graph.keys[i]} is given to {SPLITS[pinned[i]]} and to {split}.",
                    "Give all videos of an identity the same split.",
                )
            pinned[i] = side
    return pinned


def _hold_out(graph: _Graph, fractions: Floats, pinned: Ints, sides: Ints, holdout: int) -> Ints:
    """Move keys to the holdout unless another side would lose a label; return sides, (M,)."""
    members, counts = graph.members, graph.counts
    if candidates := _holdouts(members, counts, sides, pinned, holdout):
        return np.where(candidates[0], HOLDOUT, sides)
    # Every candidate takes a label from a side: hold one out first, and place the rest.
    covered = count_by_side(sides_of_sets(members, sides), counts, HOLDOUT) > 0
    for taken in _holdouts(members, counts, np.zeros_like(sides), pinned, holdout):
        rest = members @ taken == 0
        placed = place(members[rest], counts[rest], fractions, np.where(taken, HOLDOUT, pinned))
        kept = count_by_side(sides_of_sets(members, placed), counts, HOLDOUT)
        if (kept > 0)[covered].all():
            return placed
    return sides


def _holdouts(
    members: csr_array, counts: Floats, sides: Ints, pinned: Ints, holdout: int
) -> list[Bools]:
    """Return keys, (M,), with enough videos to hold out, from the least loss upwards."""
    size = members.sum(1)  # (E,)
    side = sides_of_sets(members, sides)
    kept = count_by_side(side, counts, HOLDOUT)  # (sides, 2)
    share = counts / np.maximum(kept, 1)[side]
    worth = np.where(np.isin(side, range(HOLDOUT)), share.sum(1), 0)  # (E,) loss if it leaves
    usable = members @ (pinned != NO_SIDE) == 0

    def cheapest(taken: Bools, label: int) -> Ints:
        """Return rows of sets that add videos of a label."""
        outside = members @ ~taken
        cost = members @ np.where(taken, 0, members.T @ worth) - np.maximum(outside - 1, 0) * worth
        rows = np.flatnonzero(usable & (outside > 0) & (counts[:, label] > 0))
        # Of equal ones the last come first: they are far from the boundaries between sides.
        return rows[np.lexsort((-rows, cost[rows].round(12)))][:MAX_CANDIDATES]

    candidates = []
    for first in cheapest(np.zeros(len(sides), bool), FAKE):
        taken = members[[first]].sum(0) > 0
        while (short := counts[members @ taken == size].sum(0) < holdout).any():
            more = cheapest(taken, int(short.argmax()))
            if not len(more):
                break
            taken |= members[[more[0]]].sum(0) > 0
        touched = members @ taken > 0
        left = count_by_side(side[~touched], counts[~touched], HOLDOUT)
        if not short.any() and (left > 0)[kept > 0].all():
            candidates.append((worth[touched].sum().round(12), taken))
    return [taken for _, taken in sorted(candidates, key=operator.itemgetter(0))]


def _rescue(members: csr_array, sides: Ints) -> Ints:
    """Move idle keys to where that keeps a set."""
    kept = sides_of_sets(members, sides) != NO_SIDE
    sides, idle = sides.copy(), members.T @ kept == 0  # (M,)
    keys_of_set = _keys_of_sets(members)
    for e in np.flatnonzero(~kept & (members @ idle > 0)):
        keys = keys_of_set[e]
        possible = np.unique(sides[keys[~idle[keys]]])
        if len(possible) <= 1 and HOLDOUT not in possible:
            sides[keys] = possible[0] if len(possible) else sides[keys].min()
            idle[keys] = False
    return sides
