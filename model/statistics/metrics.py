"""Metrics of a detector, with bootstrap intervals over groups of linked videos."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from model.statistics.permutation import permutation_p_value

# All (N,). Labels are 0 for real and 1 for fake, scores are higher for fakes, and group numbers are
# equal for linked videos, which are drawn together.
Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

RESAMPLES = 1000
MIN_GROUPS = 10  # with fewer, bootstrap intervals are far too narrow
ECE_BINS = 10
SIGNIFICANT = 0.05  # p-value from which on a difference counts as chance


@dataclass(frozen=True)
class Metric:
    """A value on n videos with its 95% interval; None if undefined, as with one class only."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"


class PValue(Metric):
    """A p-value; never printed as 0."""

    def __str__(self) -> str:
        small = self.value is not None and self.value < 0.001
        return "<0.001" if small else super().__str__()


@dataclass(frozen=True)
class _RocCounts:
    """Counts of videos called fake at each threshold, from the highest score down.

    Areas equal those of scikit-learn, whose argument checks are too slow for a bootstrap.
    """

    thresholds: Scores  # (K,) distinct scores, descending
    true_positives: Scores  # (K + 1,) from 0
    false_positives: Scores  # (K + 1,) from 0

    @classmethod
    def of(cls, labels: Labels, scores: Scores) -> "_RocCounts":
        order = np.argsort(-scores, kind="stable")
        thresholds = scores[order]
        ends = np.append(np.flatnonzero(thresholds[1:] != thresholds[:-1]), len(scores) - 1)
        true_positives, false_positives = np.zeros((2, len(ends) + 1))
        true_positives[1:] = labels[order].cumsum()[ends]
        false_positives[1:] = ends + 1 - true_positives[1:]
        return cls(thresholds[ends], true_positives, false_positives)

    def auc_roc(self) -> float:
        x = self.false_positives / self.false_positives[-1]
        y = self.true_positives / self.true_positives[-1]
        return float(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2))

    def average_precision(self) -> float:
        hits = self.true_positives
        precision = hits[1:] / (hits[1:] + self.false_positives[1:])
        return float(np.sum((hits[1:] - hits[:-1]) / hits[-1] * precision))

    def equal_error(self) -> tuple[float, int]:
        """Return the equal error rate and its row; row -1 calls no video fake."""
        false_positive_rate = self.false_positives / self.false_positives[-1]
        false_negative_rate = 1 - self.true_positives / self.true_positives[-1]
        best = int(np.argmin(np.abs(false_positive_rate - false_negative_rate)))
        return float((false_positive_rate[best] + false_negative_rate[best]) / 2), best - 1


def equal_error(labels: Labels, scores: Scores) -> tuple[float, float]:
    """Return the equal error rate and its threshold, halfway between two scores."""
    counts = _RocCounts.of(labels, scores)
    rate, row = counts.equal_error()
    if row < 0:
        return rate, float(np.nextafter(counts.thresholds[0], np.inf))
    above = counts.thresholds[row]
    below = counts.thresholds[min(row + 1, len(counts.thresholds) - 1)]
    return rate, float((above + below) / 2)


def threshold_at_fpr(labels: Labels, scores: Scores, max_fpr: float) -> float:
    """Return the lowest threshold, between two scores, with at most this false-positive rate."""
    real = np.sort(scores[labels == 0])[::-1]
    allowed = int(max_fpr * len(real) + 1e-9)
    if allowed >= len(real):
        return float(scores.min())
    below = real[allowed]  # the highest score that must not be called fake
    above = scores[scores > below]
    return float((below + above.min()) / 2 if len(above) else np.nextafter(below, np.inf))


def distance(probabilities: Scores, threshold: float) -> Scores:
    """Return the distance of probabilities from the threshold, in logits."""
    eps = np.finfo(np.float64).eps  # logits of 0 and 1 are infinite
    return np.abs(
        logit(np.clip(probabilities, eps, 1 - eps)) - logit(np.clip(threshold, eps, 1 - eps))
    )


def auc_roc(labels: Labels, scores: Scores) -> float:
    """Return the area under the ROC curve; NaN with one class only."""
    return _RocCounts.of(labels, scores).auc_roc() if _has_both_classes(labels) else float("nan")


def expected_calibration_error(labels: Labels, probabilities: Scores) -> float:
    """Return the mean gap between stated probability and share of fakes, over equal bins."""
    bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [
        abs(probabilities[bins == b].mean() - labels[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps))


def _has_both_classes(labels: Labels) -> bool:
    return bool(0 < labels.sum() < len(labels))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def point_metrics(
    labels: Labels, probabilities: Scores, threshold: float, margin: float = 0.0
) -> dict[str, float]:
    """Compute all metrics without intervals; undefined ones are NaN.

    ``margin``, in logits, leaves videos out of ``decided`` and ``accuracy_decided`` only.
    """
    verdicts = (probabilities >= threshold).astype(np.int64)
    tn, fp, fn, tp = _confusion(labels, verdicts)
    undefined = float("nan")
    counts = _RocCounts.of(labels, probabilities) if _has_both_classes(labels) else None
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    decided = distance(probabilities, threshold) >= margin
    return {
        "accuracy": (tp + tn) / len(labels),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "auc_roc": counts.auc_roc() if counts else undefined,
        "average_precision": counts.average_precision() if counts else undefined,
        "eer": counts.equal_error()[0] if counts else undefined,
        "brier": float(np.mean((probabilities - labels) ** 2)),
        "ece": expected_calibration_error(labels, probabilities),
        "decided": float(decided.mean()),
        "accuracy_decided": _ratio(int((verdicts == labels)[decided].sum()), int(decided.sum())),
    }


def all_metrics(
    labels: Labels,
    probabilities: Scores,
    threshold: float,
    groups: Labels,
    *,
    margin: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute all metrics with percentile intervals of a bootstrap over groups of linked videos.

    With fewer than `MIN_GROUPS` groups there are no intervals: all resamples of three perfect pairs
    are perfect, and an interval from 1 to 1 would be wrong.
    """
    result: dict[str, Any] = with_intervals(
        lambda rows: point_metrics(labels[rows], probabilities[rows], threshold, margin),
        groups,
        seed=seed,
    )
    p_value = permutation_p_value(labels, probabilities, groups, seed=seed)
    result["auc_p_value"] = PValue(_none_if_nan(p_value), None, None, len(labels))
    result["threshold"] = Metric(threshold, None, None, len(labels))
    verdicts = (probabilities >= threshold).astype(np.int64)
    result["confusion"] = _confusion(labels, verdicts)
    return result


def _confusion(labels: Labels, verdicts: Labels) -> list[int]:
    """Count reals called real, reals called fake, fakes called real, fakes called fake."""
    return np.bincount(2 * labels + verdicts, minlength=4).tolist()


def auc_drop(labels: Labels, before: Scores, after: Scores, groups: Labels) -> Metric:
    """Compute the AUC of ``before`` minus that of ``after`` on the same videos."""

    def drop(rows: Labels) -> dict[str, float]:
        y = labels[rows]
        return {"drop": auc_roc(y, before[rows]) - auc_roc(y, after[rows])}

    return with_intervals(drop, groups)["drop"]


def bootstrap(
    measure: Callable[[Labels], dict[str, float]], groups: Labels, *, seed: int = 0
) -> dict[str, Scores]:
    """Compute metrics on `RESAMPLES` samples of groups, drawn with replacement.

    ``measure`` maps row indices to metrics. Each becomes (`RESAMPLES`,); with fewer than
    `MIN_GROUPS` groups there are none.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(members) < MIN_GROUPS:
        return {}
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(members), len(members)) for _ in range(RESAMPLES)]
    samples = [measure(np.concatenate([members[n] for n in sample])) for sample in drawn]
    return {name: np.array([sample[name] for sample in samples]) for name in samples[0]}


def with_intervals(
    measure: Callable[[Labels], dict[str, float]], groups: Labels, *, seed: int = 0
) -> dict[str, Metric]:
    """Compute metrics on all rows, with percentile intervals; arguments as in `bootstrap`."""
    samples = bootstrap(measure, groups, seed=seed)
    return estimates(measure(np.arange(len(groups))), samples, len(groups))


def estimates(values: dict[str, float], samples: dict[str, Scores], n: int) -> dict[str, Metric]:
    """Combine values on n videos with intervals from the samples of `bootstrap`."""
    return {
        name: Metric(_none_if_nan(value), *_interval(samples.get(name)), n=n)
        for name, value in values.items()
    }


def _interval(samples: Scores | None) -> tuple[float | None, float | None]:
    """Return the 95% percentile interval; None if most samples are undefined.

    None too if all are the same: they do not show how other videos differ.
    """
    if samples is None:
        return None, None
    samples = samples[~np.isnan(samples)]
    if len(samples) < RESAMPLES / 2 or np.ptp(samples) == 0:
        return None, None
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
