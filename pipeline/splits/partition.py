"""Identity-disjoint splits: which video is on which side, so that no identity is on two.

Identities are partitioned, not videos: a video stays if all its identities came to one side, and is
dropped if it straddles. Videos that share identities form components. Components are placed whole,
and nothing is dropped, wherever the fractions allow that; otherwise the large ones are cut through
by local search. The small ones then fill what is short, in the order of their hashes, so that a new
video hardly moves an old one.
"""

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from scipy.sparse import csr_array

from pipeline.common.errors import SettingsError
from pipeline.corpus.labelled_video import FAKE, SPLITS
from pipeline.splits.local_search import (
    FREE,
    Bools,
    Floats,
    Ints,
    components,
    count_by_side,
    place,
    sides_of_sets,
)

HOLDOUT = SPLITS.index("holdout")
CANDIDATES = 16  # for the holdout


def partition(
    identities: Sequence[Collection[str]],
    labels: Sequence[int],
    *,
    seed: int = 0,
    test: float = 0.2,
    val: float = 0.0,
    holdout: int = 1,
    fixed: Sequence[str | None] | None = None,
    names: Sequence[str] | None = None,
) -> list[str | None]:
    """Put every video into train, val, test or holdout, so that no identity is in two of them.

    In this order: train and test get both labels; the holdout gets exactly `holdout` videos of
    each label, or stays empty where that would take a label from another split; few videos are
    dropped, and the shares of each label come near the fractions. Components are cut only where
    whole ones cannot give every label between half and twice its fraction.

    The result depends on the seed and the videos, not on their order. A new video with a new
    identity moves at most one component across each boundary (train-val, val-test), and only one
    that has its label alone; besides, the holdout may change. Components with both labels, or with
    more than about 1/32 of a label's videos, stay until that label's count passes a power of two.

    Args:
        identities: N collections: who is in each video, and what else ties it to others; if empty,
            the video itself. What only comes along with something else decides nothing.
        labels: N labels, 0 real, 1 fake.
        seed: of the hashes that order the identities.
        test: share of each label's videos for test.
        val: share of each label's videos for val; what is left is train.
        holdout: number of videos of each label to hold out.
        fixed: N splits to keep, empty or None where the choice is free; identities follow.
        names: N distinct names. They tell apart videos with the same identities or with none;
            without them, the order of such videos does.

    Returns:
        N splits, None for a dropped video.

    Raises:
        SettingsError: the fractions leave nothing to train on, or `fixed` has an unknown split or
            puts one identity into two.
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
    graph = _graph(identities, labels, names, seed)
    members, counts = graph.members, graph.counts
    fractions = np.array([1 - test - val, test, val])
    pinned = _pinned(graph, fixed)
    open_ = members @ (pinned == HOLDOUT) == 0
    sides = place(members[open_], counts[open_], fractions, pinned)
    chosen = False
    if holdout and not (pinned == HOLDOUT).any():
        sides, chosen = _hold_out(graph, fractions, pinned, sides, holdout)
    sides = _rescue(members, sides)
    split = sides_of_sets(members, sides)[graph.set_of_video]  # (N,)
    if chosen:
        for label in (0, 1):
            held = np.flatnonzero((split == HOLDOUT) & (np.asarray(labels) == label)).tolist()
            if names is not None:
                held.sort(key=lambda video: _hash(names[video], seed))
            split[held[holdout:]] = FREE
    return [None if s == FREE else SPLITS[s] for s in split]


def folds(
    identities: Sequence[Collection[str]], labels: Sequence[int], k: int, *, seed: int = 0
) -> list[tuple[Ints, Ints]]:
    """Split for cross-validation: k times training and validation videos without a common identity.

    Every fold has every label on both sides. A video is in the validation set of one fold, or of
    none if its identities had to be separated; a fold trains on all videos that share no identity
    with its own validation part. Where the identities do not allow k folds there are fewer.

    Args:
        identities: N collections, as in `partition`.
        labels: N labels, 0 real, 1 fake.
        k: number of folds, at least 2.
        seed: of the hashes that order the identities.

    Returns:
        At most k pairs (train, validation) of ascending video indices, int64.

    Raises:
        SettingsError: k is below 2, or there are not even two folds.
        ValueError: as in `partition`.

    Example:
        >>> for train, val in folds([{"ann"}, {"ann"}, {"bo"}, {"bo"}], [0, 1, 0, 1], 2):
        ...     print(train, val)
        [2 3] [0 1]
        [0 1] [2 3]
    """
    if k < 2:
        raise SettingsError(f"{k} folds cannot validate anything.", "Ask for 2 or more.")
    graph = _graph(identities, labels, None, seed)
    members, counts = graph.members, graph.counts
    M = members.shape[1]
    for n in range(min(k, M), 1, -1):
        sides = place(members, counts, np.full(n, 1 / n), np.full(M, FREE))
        inside = members @ np.eye(n)[sides]  # (E, n)
        parts = [inside == 0, inside == members.sum(1)[:, None]]  # training, validation
        if all((part.T @ counts > 0).all() for part in parts):
            train, val = (part[graph.set_of_video].T for part in parts)  # (n, N)
            return [(np.flatnonzero(t), np.flatnonzero(v)) for t, v in zip(train, val, strict=True)]
    raise SettingsError(
        f"The {M} identities of {len(labels)} videos do not allow two folds "
        "with real and fake videos on both sides.",
        "Add videos of other people, or train without cross-validation.",
    )


def groups(identities: Sequence[Collection[str]]) -> Ints:
    """Number the connected components: videos that share identities, directly or in a chain.

    Args:
        identities: N collections; an empty one is a component of its own.

    Returns:
        (N,) int64, from 0 in the order of first appearance.

    Example:
        >>> groups([{"ann"}, {"cy"}, {"bo", "di"}, {"ann", "bo"}]).tolist()
        [0, 1, 0, 0]
    """
    graph = _graph(identities, [0] * len(identities), None, 0)
    of_sets = components(graph.members)[graph.members.indices[graph.members.indptr[:-1]]]
    component = of_sets[graph.set_of_video]
    _, first, number = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


@dataclass(frozen=True)
class _Graph:
    """N videos as E distinct sets of M identities, which are in the order of their hashes."""

    identities: list[str]  # M
    members: csr_array  # (E, M) 0 or 1
    counts: Floats  # (E, 2) videos of each label with exactly this set
    set_of_video: Ints  # (N,)


def _graph(
    identities: Sequence[Collection[str]],
    labels: Sequence[int],
    names: Sequence[str] | None,
    seed: int,
) -> _Graph:
    if not set(labels) <= {0, 1}:
        raise ValueError(f"labels are 0 and 1, got {sorted(set(labels) - {0, 1})}")
    if any(isinstance(who, str) for who in identities):
        raise ValueError("identities are collections of strings, got a bare string")
    alone = range(len(labels)) if names is None else names
    videos = zip(identities, labels, alone, strict=True)
    who = _decisive([set(ids) or {f"\0{name}"} for ids, _, name in videos])
    ordered = sorted(set().union(*who), key=lambda identity: (_hash(identity, seed), identity))
    index = {identity: i for i, identity in enumerate(ordered)}
    keys = [tuple(sorted(index[identity] for identity in ids)) for ids in who]
    sets = sorted(set(keys))
    row = {key: e for e, key in enumerate(sets)}
    set_of_video = np.array([row[key] for key in keys], np.int64)
    counts = np.zeros((len(sets), 2))
    np.add.at(counts, (set_of_video, np.asarray(labels, np.int64)), 1)
    starts = np.cumsum([0, *map(len, sets)])
    flat = np.array([i for key in sets for i in key], np.int64)
    members = csr_array((np.ones(len(flat)), flat, starts), shape=(len(sets), len(ordered)))
    return _Graph(ordered, members, counts, set_of_video)


def _decisive(who: Sequence[set[str]]) -> list[set[str]]:
    """Leave out what only comes along with something else, so that it decides nothing.

    The original of a fake, say, where all that show it show the same actor too.
    """
    together: dict[str, set[str]] = {}  # what all videos with this identity have in common
    for ids in who:
        for identity in ids:
            together[identity] = together.get(identity, ids) & ids
    idle: set[str] = set()
    for identity in sorted(together, reverse=True):
        if together[identity] - idle - {identity}:
            idle.add(identity)
    return [ids - idle for ids in who]


def _hash(text: str, seed: int) -> bytes:
    return sha256(f"{seed}\0{text}".encode(errors="backslashreplace")).digest()


def _pinned(graph: _Graph, fixed: Sequence[str | None] | None) -> Ints:
    """Side of every identity that a fixed video decides, (M,), else FREE."""
    pinned = np.full(len(graph.identities), FREE)
    if fixed is None:
        return pinned
    for e, split in dict.fromkeys(zip(graph.set_of_video.tolist(), fixed, strict=True)):
        if not split:
            continue
        if split not in SPLITS:
            raise SettingsError(f"Unknown split {split!r}.", f"Use one of {', '.join(SPLITS)}.")
        side = SPLITS.index(split)
        for i in graph.members.indices[graph.members.indptr[e] : graph.members.indptr[e + 1]]:
            if pinned[i] not in (FREE, side):
                raise SettingsError(
                    f"{graph.identities[i]} is given to {SPLITS[pinned[i]]} and to {split}.",
                    "Give all videos of an identity the same split.",
                )
            pinned[i] = side
    return pinned


def _hold_out(
    graph: _Graph, fractions: Floats, pinned: Ints, sides: Ints, holdout: int
) -> tuple[Ints, bool]:
    """Move identities to the holdout without taking a label from another side.

    Returns the sides, (M,), and whether there is a holdout now.
    """
    members, counts = graph.members, graph.counts
    for taken in _holdouts(members, counts, sides, pinned, holdout):
        return np.where(taken, HOLDOUT, sides), True
    # Every candidate starves a side of this placement: set one aside first, and place the rest.
    covered = count_by_side(sides_of_sets(members, sides), counts, HOLDOUT) > 0
    for taken in _holdouts(members, counts, np.zeros_like(sides), pinned, holdout):
        rest = members @ taken == 0
        placed = place(members[rest], counts[rest], fractions, np.where(taken, HOLDOUT, pinned))
        kept = count_by_side(sides_of_sets(members, placed), counts, HOLDOUT)
        if (kept > 0)[covered].all():
            return placed, True
    return sides, False


def _holdouts(
    members: csr_array, counts: Floats, sides: Ints, pinned: Ints, holdout: int
) -> Iterator[Bools]:
    """Sets of identities, (M,), with enough videos to hold out, from the least loss upwards."""
    size = members.sum(1)  # (E,)
    side = sides_of_sets(members, sides)
    kept = count_by_side(side, counts, HOLDOUT)  # (sides, 2)
    share = counts / np.maximum(kept, 1)[side]
    worth = np.where(np.isin(side, range(HOLDOUT)), share.sum(1), 0)  # (E,) what leaving it costs
    usable = members @ (pinned != FREE) == 0

    def cheapest(taken: Bools, label: int) -> Ints:
        """Rows of sets that add videos of a label; of equal ones the last, far from boundaries."""
        outside = members @ ~taken
        cost = members @ np.where(taken, 0, members.T @ worth) - np.maximum(outside - 1, 0) * worth
        rows = np.flatnonzero(usable & (outside > 0) & (counts[:, label] > 0))
        return rows[np.lexsort((-rows, cost[rows].round(12)))][:CANDIDATES]

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
    yield from (taken for _, taken in sorted(candidates, key=operator.itemgetter(0)))


def _rescue(members: csr_array, sides: Ints) -> Ints:
    """Move identities that are in no kept set to where that keeps one."""
    kept = sides_of_sets(members, sides) != FREE
    sides, idle = sides.copy(), members.T @ kept == 0  # (M,)
    for e in np.flatnonzero(~kept & (members @ idle > 0)):
        who = members.indices[members.indptr[e] : members.indptr[e + 1]]
        possible = np.unique(sides[who[~idle[who]]])
        if len(possible) <= 1 and HOLDOUT not in possible:
            sides[who] = possible[0] if len(possible) else sides[who].min()
            idle[who] = False
    return sides
