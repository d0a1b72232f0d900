"""Sides for group keys: large components by local search, small ones in the order of their hashes.

A corpus is a hypergraph: ``members``, (E, M) of 0 and 1, are its E distinct sets of M group keys,
each with ``counts`` videos of each label, (E, 2).
"""

import operator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import connected_components, dijkstra

NO_SIDE = -1  # of a key that is free, and of a set that straddles
LARGE_SHARE = 1 / 32  # of a label's videos; a larger component is placed by search
STARTS_PER_SIDE = 8
MAX_IDLE_MOVES = 24  # without gain
MAX_WORK = 20_000_000  # array elements that one search touches, a few seconds
# In the loss, against the distance from the fractions. With a smaller weight more than half of a
# fully linked corpus is dropped, with a larger one hardly any fake is left to test on.
DROPPING_WEIGHT = 1.5
MISSING_WEIGHT = 10.0  # of a side without a label that it needs

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def in_order_of_appearance(numbers: npt.NDArray[np.integer]) -> Ints:
    """Renumber values from 0, in the order in which they first appear."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def components(members: csr_array) -> Ints:
    """Number the component of every key, (M,), in the order of their first keys."""
    E, M = members.shape
    pairs = members.tocoo()
    bipartite = csr_array((pairs.data, (pairs.col, M + pairs.row)), shape=(M + E, M + E))
    return in_order_of_appearance(connected_components(bipartite, directed=False)[1][:M])


def sides_of_sets(members: csr_array, sides: Ints) -> Ints:
    """Return the side of all keys of every set, (E,), or NO_SIDE."""
    side_of_member, starts = sides[members.indices], members.indptr[:-1]
    low, high = (f.reduceat(side_of_member, starts) for f in (np.minimum, np.maximum))
    return np.where(low == high, low, NO_SIDE)


def count_by_side(sides: Ints, counts: Floats, n: int) -> Floats:
    """Sum counts (E, 2) over the first n sides, (n, 2)."""
    sums = np.zeros((n, 2))
    counted = (sides >= 0) & (sides < n)
    np.add.at(sums, sides[counted], counts[counted])
    return sums


def place(members: csr_array, counts: Floats, fractions: Floats, pinned: Ints) -> Ints:
    """Choose one of S sides for every key, (M,), where it is not ``pinned``, (M,)."""
    S = len(fractions)
    component = components(members)  # (M,)
    C = component.max(initial=-1) + 1
    component_of_set = sides_of_sets(members, component)  # (E,)
    size = count_by_side(component_of_set, counts, C)  # (C, 2)
    pin = np.full(C, NO_SIDE)
    np.maximum.at(pin, component, pinned)
    torn = np.zeros(C, bool)  # pinned to several sides
    torn[component[(pinned != NO_SIDE) & (pinned != pin[component])]] = True
    # Powers of two seldom change when videos are added.
    limit = LARGE_SHARE * 2 ** np.floor(np.log2(np.maximum(size.sum(0), 1)))  # (2,)
    large = (size > limit).any(1) & (size.sum(1) > 1) & ~torn
    small = ~large & ~torn & (pin == NO_SIDE)
    scarce = (size[small] > 0).sum(0) < (fractions > 0).sum()  # (2,) too few small ones to share
    needed = (fractions > 0)[:, None] & scarce & (size[~small].sum(0) > 0)  # (S, 2)

    # Whole components are tried first.
    side = np.where(small | large | torn, NO_SIDE, pin)  # (C,)
    pinned_size = count_by_side(side, size, S)
    if large.any():
        one_each = csr_array(eye_array(int(large.sum())))
        side[large] = _search(
            _Problem(one_each, size[large], fractions, pinned_size, needed, pin[large]), []
        )
    kept, spare = count_by_side(side, size, S), size[small].sum(0)
    target = fractions[:, None] * (kept.sum(0) + spare)
    lacking = np.maximum(target / 2 - kept, 0).sum(0)  # (2,)
    most = np.maximum(2 * target, pinned_size)
    cut = torn if (kept <= most).all() and (lacking <= spare).all() else torn | large
    sides = np.where(cut[component], pinned, side[component])  # (M,)
    keys, sets = cut[component], cut[component_of_set]
    if (sides[keys] == NO_SIDE).any():
        base = count_by_side(np.where(cut, NO_SIDE, side), size, S)
        sides[keys] = _search(
            _Problem(members[sets][:, keys], counts[sets], fractions, base, needed, pinned[keys]),
            [np.maximum(side[component][keys], 0)],
        )

    placed = count_by_side(sides_of_sets(members, sides), counts, S)
    for labels in ([True, True], [True, False], [False, True]):  # that a component has
        chosen = ((size > 0) == labels).all(1) & small
        side[chosen] = _fill(size[chosen].sum(1), placed[:, labels], fractions)
        placed += count_by_side(side[chosen], size[chosen], S)
    return np.where(small[component], side[component], sides)


def _fill(sizes: Floats, placed: Floats, fractions: Floats) -> Ints:
    """Deal components of ``sizes``, (n,), out in their order; return their sides, (n,).

    Every side gets one run, up to where its sum is nearest to what the side wants besides what is
    ``placed``, (S, labels); so one more component shifts each boundary by at most one.
    """
    S, n = len(fractions), len(sizes)
    order = np.roll(np.arange(S), -1)  # side 0 takes the rest
    n_placed = placed.sum(1)
    wanted = np.maximum(fractions * (n_placed.sum() + sizes.sum()) - n_placed, 0)[order]
    ends = wanted.cumsum() * sizes.sum() / max(wanted.sum(), 1e-9)
    lacking = np.flatnonzero((placed == 0).any(1) & (fractions > 0))[:n]  # each gets one at least
    least = np.isin(order, lacking).astype(np.int64)
    reached = np.concatenate([[0], sizes.cumsum()])
    sides = np.full(n, order[-1])
    begin = 0
    for j, side in enumerate(order[:-1]):
        nearest = np.abs(reached - ends[j]).argmin()
        end = int(np.clip(nearest, begin + least[j], max(n - least[j + 1 :].sum(), begin)))
        sides[begin:end] = side
        begin = end
    return sides


@dataclass(frozen=True)
class _Problem:
    members: csr_array  # (E, M)
    counts: Floats  # (E, 2)
    fractions: Floats  # (S,)
    base: Floats  # (S, 2) videos that are on the sides already
    needed: Bools  # (S, 2) labels that a side has to have
    pinned: Ints  # (M,)


def _search(problem: _Problem, starts: list[Ints]) -> Ints:
    """Improve these starts and some others; return the best sides, (M,)."""
    M, S = len(problem.pinned), len(problem.fractions)
    used = np.flatnonzero(problem.fractions)
    turns = range(len(np.unique(problem.fractions[used])))  # equal sides need no turn
    links = problem.members.T @ problem.members
    weight = problem.members.T @ problem.counts.sum(1)
    roots = np.unique(np.linspace(0, M - 1, STARTS_PER_SIDE).astype(np.int64))
    distances = dijkstra(links, indices=roots, unweighted=True)
    # Each side gets keys that are close to each other.
    for (root, distance), turn in product(zip(roots, distances, strict=True), turns):
        order = np.lexsort(((np.arange(M) - root) % M, distance))
        middle = (weight[order].cumsum() - weight[order] / 2) / weight.sum()
        turned = np.roll(used, turn)
        start = np.empty(M, np.int64)
        start[order] = turned[np.searchsorted(problem.fractions[turned].cumsum()[:-1], middle)]
        starts = [*starts, start]
    steps = MAX_WORK // len(starts) // (problem.members.nnz * S + 4 * M * S * S)
    results = [_improve(problem, start, max(steps, 1)) for start in starts]
    return min(results, key=operator.itemgetter(1))[0]


def _improve(problem: _Problem, sides: Ints, steps: int) -> tuple[Ints, float]:
    """Move single keys; return the best sides, (M,), and their loss.

    A pass moves each key at most once, the best first, be it a loss, then goes back to the best
    sides (Fiduccia & Mattheyses, "A linear-time heuristic for improving network partitions", 1982).
    """
    members, counts = problem.members, problem.counts
    M, S = len(sides), len(problem.fractions)
    size = np.diff(members.indptr)[:, None]  # (E, 1)
    total = problem.base.sum(0) + counts.sum(0)  # (2,)
    one_hot, row = np.eye(S), np.arange(M)
    now = best = np.where(problem.pinned == NO_SIDE, sides, problem.pinned)
    movable = free = (problem.pinned == NO_SIDE)[:, None] & (problem.fractions > 0)  # (M, S)
    least = least_before = np.inf
    idle = 0
    for _ in range(steps):
        inside = members @ one_hot[now]  # (E, S)
        whole, all_but_one = inside == size, inside == size - 1
        kept = problem.base + whole.T @ counts  # (S, 2)
        loss = float(_loss(kept, total, problem))
        if loss < least - 1e-9:
            best, least, idle = now, loss, 0
        else:
            idle += 1
        moves = movable & (now[:, None] != range(S))
        if idle > MAX_IDLE_MOVES or not moves.any():
            if least > least_before - 1e-9:
                break
            now, movable, idle, least_before = best, free, 0, least
            continue
        leave, join = (  # (M, S, 2) videos that a key takes from, or brings to, a side
            (members.T @ (sets[:, :, None] * counts[:, None]).reshape(-1, S * 2)).reshape(M, S, 2)
            for sets in (whole, all_but_one)
        )
        after = np.broadcast_to(kept, (M, S, S, 2)).copy()  # by key and its new side
        after[row, :, now] -= leave[row, now][:, None]
        after[:, range(S), range(S)] += join
        losses = np.where(moves, _loss(after, total, problem), np.inf)
        key, side = np.unravel_index(losses.argmin(), losses.shape)
        now, movable = now.copy(), movable.copy()
        now[key], movable[key] = side, False
    return best, least


def _loss(kept: Floats, total: Floats, problem: _Problem) -> Floats:
    """Return the loss, (...), of keeping some videos, (..., S, 2), of all, (2,)."""
    n = kept.sum(-2)  # (..., 2)
    share = kept / np.maximum(n, 1)[..., None, :]
    distance = np.abs(share - problem.fractions[:, None]).sum(-2)
    dropped = 1 - n / np.maximum(total, 1)
    missing = ((kept == 0) & problem.needed).sum((-2, -1))
    loss: Floats = (distance + DROPPING_WEIGHT * dropped).sum(-1) + MISSING_WEIGHT * missing
    return loss
