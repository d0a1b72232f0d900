"""Placing identities on sides: small components by their hashes, large ones by local search.

A corpus is E distinct sets of M identities, ``members`` (E, M) of 0 and 1, with ``counts`` (E, 2)
videos of each label. A set is kept on a side if all its identities are there.
"""

import operator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import connected_components, dijkstra

FREE = -1  # the side of an identity that is not placed yet, and of a set of them that straddles
LARGE = 1 / 32  # share of a label's videos above which a component is placed by search
STARTS = 8  # of the local search, for every side
PATIENCE = 24  # moves without gain before the local search turns back
EFFORT = 20_000_000  # array elements that one search may touch, a few seconds

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def components(members: csr_array) -> Ints:
    """Number the component of every identity, (M,), in the order of their first identities."""
    E, M = members.shape
    pairs = members.tocoo()
    bipartite = csr_array((pairs.data, (pairs.col, M + pairs.row)), shape=(M + E, M + E))
    found = connected_components(bipartite, directed=False)[1][:M]
    _, first, number = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def sides_of_sets(members: csr_array, sides: Ints) -> Ints:
    """Side of every set, (E,): that of its identities, FREE where they are not of one mind."""
    of_members, starts = sides[members.indices], members.indptr[:-1]
    low, high = (f.reduceat(of_members, starts) for f in (np.minimum, np.maximum))
    return np.where(low == high, low, FREE)


def count_by_side(side: Ints, counts: Floats, n: int) -> Floats:
    """Sum counts (E, 2) by side: (n, 2); other sides are left out."""
    kept = np.zeros((n, 2))
    here = (side >= 0) & (side < n)
    np.add.at(kept, side[here], counts[here])
    return kept


def place(members: csr_array, counts: Floats, fractions: Floats, pinned: Ints) -> Ints:
    """Choose a side for every identity, (M,): large components by search, then small ones."""
    S = len(fractions)
    component = components(members)  # (M,)
    C = component.max(initial=-1) + 1
    of_sets = component[members.indices[members.indptr[:-1]]]  # (E,)
    size = count_by_side(of_sets, counts, C)  # (C, 2)
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
        base = count_by_side(side, size, S)
        side[large] = _search(
            _Problem(one_each, size[large], fractions, base, needed, pin[large]), []
        )
    kept, spare = count_by_side(side, size, S), size[small].sum(0)
    target = fractions[:, None] * (kept.sum(0) + spare)
    short = np.maximum(target / 2 - kept, 0).sum(0)  # (2,)
    most = np.maximum(2 * target, count_by_side(np.where(large | torn, FREE, pin), size, S))
    cut = torn if (kept <= most).all() and (short <= spare).all() else torn | large
    sides = np.where(cut[component], pinned, side[component])
    here, rows = cut[component], cut[of_sets]
    if (sides[here] == FREE).any():
        base = count_by_side(np.where(cut, FREE, side), size, S)
        sides[here] = _search(
            _Problem(members[rows][:, here], counts[rows], fractions, base, needed, pinned[here]),
            [np.maximum(side[component][here], 0)],
        )

    placed = count_by_side(sides_of_sets(members, sides), counts, S)
    for labels in ([True, True], [True, False], [False, True]):  # that a component has
        these = ((size > 0) == labels).all(1) & small
        side[these] = _fill(size[these].sum(1), placed[:, labels], fractions)
        placed += count_by_side(side[these], size[these], S)
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

    For each label, the distances of its shares from the fractions and one and a half times the
    dropped share: less, and more than half of a corpus in which everybody is linked is dropped;
    more, and hardly any fake is left to test on (`benchmarks/partition.py`). A side without a label
    that it needs weighs more than all of these.
    """
    n = kept.sum(-2)  # (..., 2)
    share = kept / np.maximum(n, 1)[..., None, :]
    off = np.abs(share - problem.fractions[:, None]).sum(-2)
    dropped = 1 - n / np.maximum(total, 1)
    missing = ((kept == 0) & problem.needed).sum((-2, -1))
    loss: Floats = (off + 1.5 * dropped).sum(-1) + 10.0 * missing
    return loss
