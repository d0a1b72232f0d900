"""Comparison of two detectors on the same videos: paired bootstrap and DeLong's test."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from model.statistics.metrics import (
    SIGNIFICANT,
    Labels,
    Metric,
    PValue,
    Scores,
    auc_roc,
    bootstrap,
    estimates,
)


@dataclass(frozen=True)
class Scored:
    """Scores of one detector for V videos."""

    probabilities: Scores
    threshold: float


@dataclass(frozen=True)
class Comparison:
    """Comparison of two detectors, a and b, on the same videos."""

    auc_roc: tuple[Metric, Metric, Metric]  # of a, of b, and the difference a - b
    accuracy: tuple[Metric, Metric, Metric]
    auc_delong_p: float | None  # assumes unlinked videos
    auc_p: float | None  # of a bootstrap over groups; None with too few
    accuracy_p: float | None

    def as_json(self) -> dict[str, Any]:
        """Return plain values; ``auc_roc`` and ``accuracy`` have ``a``, ``b``, ``difference``."""
        values = dataclasses.asdict(self)
        for name in ("auc_roc", "accuracy"):
            values[name] = dict(zip(("a", "b", "difference"), values[name], strict=True))
        return values


def compare(labels: Labels, a: Scored, b: Scored, groups: Labels, *, seed: int = 0) -> Comparison:
    """Compare two detectors by a paired bootstrap over groups, and by DeLong's test."""

    def measure(rows: Labels) -> dict[str, float]:
        y = labels[rows]
        auc_a, auc_b = (auc_roc(y, d.probabilities[rows]) for d in (a, b))
        accuracy_a, accuracy_b = (
            float(((d.probabilities[rows] >= d.threshold) == y).mean()) for d in (a, b)
        )
        return {
            "auc_a": auc_a,
            "auc_b": auc_b,
            "auc_difference": auc_a - auc_b,
            "accuracy_a": accuracy_a,
            "accuracy_b": accuracy_b,
            "accuracy_difference": accuracy_a - accuracy_b,
        }

    samples = bootstrap(measure, groups, seed=seed)
    metrics = estimates(measure(np.arange(len(labels))), samples, len(labels))
    _, _, delong_p = delong(labels, a.probabilities, b.probabilities)
    return Comparison(
        (metrics["auc_a"], metrics["auc_b"], metrics["auc_difference"]),
        (metrics["accuracy_a"], metrics["accuracy_b"], metrics["accuracy_difference"]),
        None if np.isnan(delong_p) else delong_p,
        _two_sided(samples.get("auc_difference")),
        _two_sided(samples.get("accuracy_difference")),
    )


def delong(labels: Labels, a: Scores, b: Scores) -> tuple[float, float, float]:
    """Perform DeLong's test for two correlated AUCs: both AUCs and the two-sided p-value.

    The p-value is NaN with fewer than two videos of a class, or for a difference with zero
    variance.

    References:
        DeLong et al., Comparing the Areas under Two or More Correlated ROC Curves, 1988.
        Sun and Xu, Fast Implementation of DeLong's Algorithm, 2014.
    """
    fake, real = labels == 1, labels == 0
    n_fake, n_real = int(fake.sum()), int(real.sum())
    if not n_fake or not n_real:
        return float("nan"), float("nan"), float("nan")
    fake_shares, real_shares = [], []
    for scores in (a, b):
        ranks = rankdata(scores)
        # For each fake the share of reals below it, for each real the share of fakes above it.
        fake_shares.append((ranks[fake] - rankdata(scores[fake])) / n_real)
        real_shares.append(1 - (ranks[real] - rankdata(scores[real])) / n_fake)
    auc_a, auc_b = (float(shares.mean()) for shares in fake_shares)
    if min(n_fake, n_real) < 2:
        return auc_a, auc_b, float("nan")
    variance = sum(np.var(x - y, ddof=1) / len(x) for x, y in (fake_shares, real_shares))
    if variance < 1e-15:  # rounding
        return auc_a, auc_b, 1.0 if abs(auc_a - auc_b) < 1e-12 else float("nan")
    return auc_a, auc_b, float(2 * norm.sf(abs(auc_a - auc_b) / np.sqrt(variance)))


def _two_sided(differences: Scores | None) -> float | None:
    """Return the two-sided p-value of bootstrapped differences; None without samples."""
    if differences is None:
        return None
    valid = differences[~np.isnan(differences)]
    n_opposite = min((valid <= 0).sum(), (valid >= 0).sum())
    return float(min(1.0, 2 * (1 + n_opposite) / (1 + len(valid))))


def sentence(name: str, comparison: Comparison, *, meaning: str, otherwise: str) -> str:
    """Say whether the AUC of the detector, a, differs from that of a control, b.

    The sentence ends with ``meaning`` if the detector is better, else with ``otherwise``.
    """
    difference, control = comparison.auc_roc[2], f"the {name} control"
    if comparison.auc_p is None or difference.value is None:
        return f"There are too few groups of linked videos to compare the detector with {control}."
    better, follows = "not distinguishable from", otherwise
    if comparison.auc_p <= SIGNIFICANT:
        better = "higher than" if difference.value > 0 else "lower than"
        follows = meaning if difference.value > 0 else otherwise
    return (
        f"The AUC of the detector is {better} that of {control} (difference {difference}, "
        f"p {PValue(comparison.auc_p, None, None, 0)}): {follows}."
    )
