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
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import connected_components, dijkstra

from pipeline.errors import SettingsError

SPLITS = ("train", "test", "val", "holdout")
HOLDOUT = SPLITS.index("holdout")
FREE = -1  # the side of an identity that is not placed yet, and of a set of them that straddles
FAKE = 1

LARGE = 1 / 32  # share of a label's videos above which a component is placed by search
STARTS = 8  # of the local search, for every side
CANDIDATES = 16  # for the holdout
PATIENCE = 24  # moves without gain before the local search turns back
EFFORT = 20_000_000  # array elements that one search may touch, a few seconds

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Leak:
    """An identity on two sides: a video on each, and how many pairs of videos would show it."""

    identity: str
    split_a: str
    video_a: str
    split_b: str
    video_b: str
    pairs: int

    def __str__(self) -> str:
        more = f", one of {self.pairs} such pairs" if self.pairs > 1 else ""
        return (
            f"{self.identity} is in {self.split_a} ({self.video_a}) "
            f"and in {self.split_b} ({self.video_b}){more}"
        )


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
        identities: N collections, who or what is in each video; if empty, the video itself.
        labels: N labels, 0 real, 1 fake.
        seed: of the hashes that order the identities.
        test: share of each label's videos for test.
        val: share of each label's videos for val; what is left is train.
        holdout: number of videos of each label to hold out.
        fixed: N splits to keep, None where the choice is free; identities follow.
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
    sides = _place(members[open_], counts[open_], fractions, pinned)
    chosen = False
    if holdout and not (pinned == HOLDOUT).any():
        sides, chosen = _hold_out(graph, fractions, pinned, sides, holdout)
    sides = _rescue(members, sides)
    split = _sides_of_sets(members, sides)[graph.set_of_video]  # (N,)
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
    """
    if k < 2:
        raise SettingsError(f"{k} folds cannot validate anything.", "Ask for 2 or more.")
    graph = _graph(identities, labels, None, seed)
    members, counts = graph.members, graph.counts
    M = members.shape[1]
    for n in range(min(k, M), 1, -1):
        sides = _place(members, counts, np.full(n, 1 / n), np.full(M, FREE))
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
    """
    graph = _graph(identities, [0] * len(identities), None, 0)
    of_sets = _components(graph.members)[graph.members.indices[graph.members.indptr[:-1]]]
    component = of_sets[graph.set_of_video]
    _, first, number = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def leaks(
    identities: Sequence[Collection[str]],
    splits: Sequence[str | None],
    names: Sequence[str] | None = None,
) -> list[Leak]:
    """Find every identity that is on more than one side.

    Args:
        identities: N collections.
        splits: N sides, any words; None is on no side.
        names: N names for the report; without them, row numbers from 0.

    Returns:
        One leak per such identity, sorted by identity; `str(leak)` says it in a sentence.

    Raises:
        ValueError: the sequences differ in length.
    """
    seen: dict[str, dict[str, list[str]]] = {}  # identity → side → names
    shown = [f"row {i}" for i in range(len(splits))] if names is None else names
    for who, split, name in zip(identities, splits, shown, strict=True):
        if split is not None:
            for identity in set(who):
                seen.setdefault(identity, {}).setdefault(split, []).append(name)
    found = []
    for identity, sides in sorted(seen.items()):
        if len(sides) > 1:
            (a, names_a), (b, names_b) = list(sides.items())[:2]
            n = [len(on_side) for on_side in sides.values()]
            pairs = (sum(n) ** 2 - sum(m * m for m in n)) // 2
            found.append(Leak(identity, a, names_a[0], b, names_b[0], pairs))
    return found


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
    who = [set(ids) or {f"\0{name}"} for ids, _, name in videos]
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


def _hash(text: str, seed: int) -> bytes:
    return sha256(f"{seed}\0{text}".encode(errors="backslashreplace")).digest()


def _components(members: csr_array) -> Ints:
    """Number the component of every identity, (M,), in the order of their first identities."""
    E, M = members.shape
    pairs = members.tocoo()
    bipartite = csr_array((pairs.data, (pairs.col, M + pairs.row)), shape=(M + E, M + E))
    found = connected_components(bipartite, directed=False)[1][:M]
    _, first, number = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _sides_of_sets(members: csr_array, sides: Ints) -> Ints:
    """Side of every set, (E,): that of its identities, FREE where they are not of one mind."""
    of_members, starts = sides[members.indices], members.indptr[:-1]
    low, high = (f.reduceat(of_members, starts) for f in (np.minimum, np.maximum))
    return np.where(low == high, low, FREE)


def _count(side: Ints, counts: Floats, n: int) -> Floats:
    """Sum counts (E, 2) by side: (n, 2); other sides are left out."""
    kept = np.zeros((n, 2))
    here = (side >= 0) & (side < n)
    np.add.at(kept, side[here], counts[here])
    return kept


def _pinned(graph: _Graph, fixed: Sequence[str | None] | None) -> Ints:
    """Side of every identity that a fixed video decides, (M,), else FREE."""
    pinned = np.full(len(graph.identities), FREE)
    if fixed is None:
        return pinned
    for e, split in dict.fromkeys(zip(graph.set_of_video.tolist(), fixed, strict=True)):
        if split is None:
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
    covered = _count(_sides_of_sets(members, sides), counts, HOLDOUT) > 0
    for taken in _holdouts(members, counts, np.zeros_like(sides), pinned, holdout):
        rest = members @ taken == 0
        placed = _place(members[rest], counts[rest], fractions, np.where(taken, HOLDOUT, pinned))
        kept = _count(_sides_of_sets(members, placed), counts, HOLDOUT)
        if (kept > 0)[covered].all():
            return placed, True
    return sides, False


def _holdouts(
    members: csr_array, counts: Floats, sides: Ints, pinned: Ints, holdout: int
) -> Iterator[Bools]:
    """Sets of identities, (M,), with enough videos to hold out, from the least loss upwards."""
    size = members.sum(1)  # (E,)
    side = _sides_of_sets(members, sides)
    kept = _count(side, counts, HOLDOUT)  # (sides, 2)
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
        left = _count(side[~touched], counts[~touched], HOLDOUT)
        if not short.any() and (left > 0)[kept > 0].all():
            candidates.append((worth[touched].sum().round(12), taken))
    yield from (taken for _, taken in sorted(candidates, key=operator.itemgetter(0)))


def _rescue(members: csr_array, sides: Ints) -> Ints:
    """Move identities that are in no kept set to where that keeps one."""
    kept = _sides_of_sets(members, sides) != FREE
    sides, idle = sides.copy(), members.T @ kept == 0  # (M,)
    for e in np.flatnonzero(~kept & (members @ idle > 0)):
        who = members.indices[members.indptr[e] : members.indptr[e + 1]]
        possible = np.unique(sides[who[~idle[who]]])
        if len(possible) <= 1 and HOLDOUT not in possible:
            sides[who] = possible[0] if len(possible) else sides[who].min()
            idle[who] = False
    return sides


def _place(members: csr_array, counts: Floats, fractions: Floats, pinned: Ints) -> Ints:
    """Choose a side for every identity, (M,): large components by search, then small ones."""
    S = len(fractions)
    component = _components(members)  # (M,)
    C = component.max(initial=-1) + 1
    of_sets = component[members.indices[members.indptr[:-1]]]  # (E,)
    size = _count(of_sets, counts, C)  # (C, 2)
    pin = np.full(C, FREE)
    np.maximum.at(pin, component, pinned)  # a pinned identity takes its component along,
    torn = np.zeros(C, bool)  # unless another one is pinned elsewhere
    torn[component[(pinned != FREE) & (pinned != pin[component])]] = True
    # The limit goes in powers of two, so that it seldom moves when videos are added.
    limit = LARGE * 2 ** np.floor(np.log2(np.maximum(size.sum(0), 1)))  # (2,)
    large = (size > limit).any(1) & (size.sum(1) > 1) & ~torn
    small = ~large & ~torn & (pin == FREE)
    scarce = (size[small] > 0).sum(0) < (fractions > 0).sum()  # (2,) too few small ones to share
    needed = (fractions > 0)[:, None] & scarce & (size[~small].sum(0) > 0)  # (S, 2)

    side = np.where(small | large | torn, FREE, pin)  # (C,)
    if large.any():
        one_each = csr_array(eye_array(int(large.sum())))
        base = _count(side, size, S)
        side[large] = _search(
            _Problem(one_each, size[large], fractions, base, needed, pin[large]), []
        )
    kept, spare = _count(side, size, S), size[small].sum(0)
    target = fractions[:, None] * (kept.sum(0) + spare)
    short = np.maximum(target / 2 - kept, 0).sum(0)  # (2,)
    most = np.maximum(2 * target, _count(np.where(large | torn, FREE, pin), size, S))
    cut = torn if (kept <= most).all() and (short <= spare).all() else torn | large
    sides = np.where(cut[component], pinned, side[component])
    here, rows = cut[component], cut[of_sets]
    if (sides[here] == FREE).any():
        base = _count(np.where(cut, FREE, side), size, S)
        sides[here] = _search(
            _Problem(members[rows][:, here], counts[rows], fractions, base, needed, pinned[here]),
            [np.maximum(side[component][here], 0)],
        )

    placed = _count(_sides_of_sets(members, sides), counts, S)
    for labels in ([True, True], [True, False], [False, True]):  # that a component has
        these = ((size > 0) == labels).all(1) & small
        side[these] = _fill(size[these].sum(1), placed[:, labels], fractions)
        placed += _count(side[these], size[these], S)
    return np.where(small[component], side[component], sides)


def _fill(sizes: Floats, placed: Floats, fractions: Floats) -> Ints:
    """Deal components out in their order, to bring each side near its fraction.

    Every side gets one run of consecutive components, ending where its sum is nearest to what the
    side wants. One more component thus shifts each of these boundaries by at most one.

    Args:
        sizes: (n,) videos in each component.
        placed: (S, labels) videos that the sides have already.
        fractions: (S,) wanted shares; side 0 comes last.

    Returns:
        (n,) sides.
    """
    S, n = len(fractions), len(sizes)
    order = np.roll(np.arange(S), -1)
    have = placed.sum(1)
    wanted = np.maximum(fractions * (have.sum() + sizes.sum()) - have, 0)[order]
    ends = wanted.cumsum() * sizes.sum() / max(wanted.sum(), 1e-9)
    lacking = np.flatnonzero((placed == 0).any(1) & (fractions > 0))[:n]  # each gets one at least
    least = np.isin(order, lacking).astype(np.int64)
    reached = np.concatenate([[0], sizes.cumsum()])
    dealt = np.full(n, order[-1])
    begin = 0
    for j, side in enumerate(order[:-1]):
        after = np.searchsorted(reached, ends[j])
        near = after - (ends[j] - reached[max(after - 1, 0)] <= reached[min(after, n)] - ends[j])
        end = int(np.clip(near, begin + least[j], max(n - least[j + 1 :].sum(), begin)))
        dealt[begin:end] = side
        begin = end
    return dealt


@dataclass(frozen=True)
class _Problem:
    """Identities to place so that little is dropped and the kept videos are near the fractions."""

    members: csr_array  # (E, M) 0 or 1
    counts: Floats  # (E, 2) videos of each label
    fractions: Floats  # (S,)
    base: Floats  # (S, 2) videos that are placed already
    needed: Bools  # (S, 2) this side has to have this label
    pinned: Ints  # (M,) a side, or FREE


def _search(problem: _Problem, starts: list[Ints]) -> Ints:
    """Improve the given starts and some of our own; return the best sides, (M,)."""
    M, S = len(problem.pinned), len(problem.fractions)
    used = np.flatnonzero(problem.fractions)
    turns = range(len(np.unique(problem.fractions[used])))  # equal sides need no turn
    links = problem.members.T @ problem.members
    weight = problem.members.T @ problem.counts.sum(1)
    roots = np.unique(np.linspace(0, M - 1, STARTS).astype(np.int64))
    near = dijkstra(links, indices=roots, unweighted=True)
    # Each side gets identities that are close to each other, one side those by the root.
    for (root, distance), turn in product(zip(roots, near, strict=True), turns):
        order = np.lexsort(((np.arange(M) - root) % M, distance))
        middle = (weight[order].cumsum() - weight[order] / 2) / weight.sum()
        turned = np.roll(used, turn)
        start = np.empty(M, np.int64)
        start[order] = turned[np.searchsorted(problem.fractions[turned].cumsum()[:-1], middle)]
        starts = [*starts, start]
    steps = EFFORT // len(starts) // (problem.members.nnz * S + 4 * M * S * S)
    found = [_improve(problem, start, max(steps, 1)) for start in starts]
    return min(found, key=operator.itemgetter(1))[0]


def _improve(problem: _Problem, sides: Ints, steps: int) -> tuple[Ints, float]:
    """Move single identities; return the best sides, (M,), and their loss.

    A pass moves each identity once at most, always the best to move even if that is a loss, and
    goes back to the best seen (Fiduccia & Mattheyses, "A linear-time heuristic for improving
    network partitions", DAC 1982).
    """
    members, counts = problem.members, problem.counts
    M, S = len(sides), len(problem.fractions)
    size = np.diff(members.indptr)[:, None]  # (E, 1)
    total = problem.base.sum(0) + counts.sum(0)  # (2,)
    one_hot, row = np.eye(S), np.arange(M)
    now = best = np.where(problem.pinned == FREE, sides, problem.pinned)
    movable = free = (problem.pinned == FREE)[:, None] & (problem.fractions > 0)  # (M, S)
    least = least_before = np.inf
    idle = 0
    for _ in range(steps):
        inside = members @ one_hot[now]  # (E, S)
        whole, but_one = inside == size, inside == size - 1
        kept = problem.base + whole.T @ counts  # (S, 2)
        loss = float(_loss(kept, total, problem))
        if loss < least - 1e-9:
            best, least, idle = now, loss, 0
        else:
            idle += 1
        if idle > PATIENCE or not movable.any():
            if least > least_before - 1e-9:
                break
            now, movable, idle, least_before = best, free, 0, least
            continue
        leave, join = (  # (M, S, 2) videos that an identity takes along from, or brings to, a side
            (members.T @ (sets[:, :, None] * counts[:, None]).reshape(-1, S * 2)).reshape(M, S, 2)
            for sets in (whole, but_one)
        )
        after = np.broadcast_to(kept, (M, S, S, 2)).copy()  # by identity and its new side
        after[row, :, now] -= leave[row, now][:, None]
        after[:, range(S), range(S)] += join
        losses = np.where(
            movable & (now[:, None] != range(S)), _loss(after, total, problem), np.inf
        )
        i, side = np.unravel_index(losses.argmin(), losses.shape)
        now, movable = now.copy(), movable.copy()
        now[i], movable[i] = side, False
    return best, least


def _loss(kept: Floats, total: Floats, problem: _Problem) -> Floats:
    """How bad it is to keep `kept` (..., S, 2) of `total` (2,) videos: (...).

    For each label, the dropped share and the distances of its shares from the fractions; a side
    without a label that it needs weighs more than all of these.
    """
    n = kept.sum(-2)  # (..., 2)
    share = kept / np.maximum(n, 1)[..., None, :]
    off = np.abs(share - problem.fractions[:, None]).sum(-2)
    dropped = 1 - n / np.maximum(total, 1)
    missing = ((kept == 0) & problem.needed).sum((-2, -1))
    loss: Floats = (off + dropped).sum(-1) + 10.0 * missing
    return loss
