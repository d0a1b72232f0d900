"""Permutation test of an AUC for videos that are linked by the people in them."""

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PERMUTATIONS = 2000
KEYS_AT_ONCE = 2**21  # random numbers, bounds the memory


def permutation_p_value(labels: Labels, scores: Floats, groups: Labels, *, seed: int = 0) -> float:
    """Compute the probability of an AUC at least as far from 0.5 if labels were random.

    Linked videos have similar scores, so labels are not permuted freely: those of a group with both
    classes are permuted inside it, and a group with one class is exchanged with another of the same
    size. The result is NaN with one class only.
    """
    from scipy.stats import rankdata  # takes a second to import, and prediction does not need it

    if len(set(labels.tolist())) < 2:
        return float("nan")
    strata, unit_labels, ranks = _exchangeable_units(labels, rankdata(scores), groups)
    chance = labels.sum() * (len(labels) + 1) / 2  # the sum of the fakes' ranks at an AUC of 0.5
    observed = abs(unit_labels @ ranks - chance)
    rng = np.random.default_rng(seed)
    at_once = max(1, KEYS_AT_ONCE // len(strata))
    hits = 0
    for first in range(0, PERMUTATIONS, at_once):
        keys = rng.random((min(at_once, PERMUTATIONS - first), len(strata)))
        order = np.argsort(strata + keys, axis=1)  # permutes inside each stratum
        hits += int((np.abs(unit_labels[order] @ ranks - chance) >= observed - 1e-6).sum())
    return (1 + hits) / (1 + PERMUTATIONS)


def _exchangeable_units(
    labels: Labels, ranks: Floats, groups: Labels
) -> tuple[Labels, Floats, Floats]:
    """Return what is permuted: videos of mixed groups, and whole groups with one class.

    That is ascending strata to permute inside, labels and sums of ranks.
    """
    _, group = np.unique(groups, return_inverse=True)
    size = np.bincount(group)
    fakes = np.bincount(group, labels)
    mixed = (fakes > 0) & (fakes < size)
    videos, pure = np.flatnonzero(mixed[group]), np.flatnonzero(~mixed)
    strata = np.concatenate([group[videos], len(size) + size[pure]])
    unit_labels = np.concatenate([labels[videos], fakes[pure] > 0]).astype(np.float64)
    sums = np.concatenate([ranks[videos], np.bincount(group, ranks)[pure]])
    order = np.argsort(strata, kind="stable")
    return strata[order], unit_labels[order], sums[order]
