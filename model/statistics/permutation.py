"""Whether an AUC can be chance, where videos are linked by whoever is in them."""

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PERMUTATIONS = 2000
KEYS_AT_ONCE = 2**21  # bounds the memory


def permutation_p_value(labels: Labels, scores: Floats, groups: Labels, *, seed: int = 0) -> float:
    """How probable an AUC at least as far from 0.5 is, if labels had nothing to do with scores.

    Linked videos have similar scores, so labels are not dealt out freely: those of a group with
    both classes are permuted inside it, and a group with one class only changes places with
    another one of as many videos. The answer is (1 + as far from 0.5) / (1 + permutations).

    Args:
        labels: (N,) 0 real, 1 fake.
        scores: (N,)
        groups: (N,) equal for linked videos.
        seed: of the permutations.

    Returns:
        the p-value, NaN with one class only.
    """
    from scipy.stats import rankdata  # a second, which a prediction need not wait

    if len(set(labels.tolist())) < 2:
        return float("nan")
    strata, marks, ranks = _units(labels, rankdata(scores), groups)
    chance = labels.sum() * (len(labels) + 1) / 2  # the sum of the fakes' ranks at an AUC of 0.5
    observed = abs(marks @ ranks - chance)
    rng = np.random.default_rng(seed)
    at_once = max(1, KEYS_AT_ONCE // len(strata))
    hits = 0
    for first in range(0, PERMUTATIONS, at_once):
        keys = rng.random((min(at_once, PERMUTATIONS - first), len(strata)))
        order = np.argsort(strata + keys, axis=1)  # permutes inside each stratum
        hits += int((np.abs(marks[order] @ ranks - chance) >= observed - 1e-6).sum())
    return (1 + hits) / (1 + PERMUTATIONS)


def _units(labels: Labels, ranks: Floats, groups: Labels) -> tuple[Labels, Floats, Floats]:
    """What changes places: videos of a mixed group, or whole groups of one class and size.

    Returns (U,) strata in ascending order, inside which labels are exchangeable, (U,) labels and
    (U,) sums of ranks.
    """
    _, group = np.unique(groups, return_inverse=True)
    size = np.bincount(group)
    fakes = np.bincount(group, labels)
    mixed = (fakes > 0) & (fakes < size)
    videos, pure = np.flatnonzero(mixed[group]), np.flatnonzero(~mixed)
    strata = np.concatenate([group[videos], len(size) + size[pure]])
    marks = np.concatenate([labels[videos], fakes[pure] > 0]).astype(np.float64)
    sums = np.concatenate([ranks[videos], np.bincount(group, ranks)[pure]])
    order = np.argsort(strata, kind="stable")
    return strata[order], marks[order], sums[order]
