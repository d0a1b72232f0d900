"""Numbers that say how well a detector tells fake from real, each with its interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    roc_auc_score,
    roc_curve,
)

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

RESAMPLES = 1000
FEWEST_GROUPS = 10  # below that a bootstrap gives intervals that are far too narrow
ECE_BINS = 10


@dataclass(frozen=True)
class Metric:
    """A value with its 95% interval; None where it is not defined (one class only, say)."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def equal_error(labels: Labels, scores: Scores) -> tuple[float, float]:
    """The equal error rate, and the threshold where misses and false alarms are as near as can be.

    The threshold lies half-way between two scores, so that it does not hang on one video.
    """
    false_alarms, hits, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    best = int(np.argmin(np.abs(false_alarms - (1 - hits))))
    rate = (false_alarms[best] + 1 - hits[best]) / 2
    below = scores[scores < thresholds[best]]
    above = min(float(thresholds[best]), float(scores.max()))
    return float(rate), (above + float(below.max())) / 2 if len(below) else above


def expected_calibration_error(labels: Labels, probabilities: Scores) -> float:
    """Mean distance of stated probability and observed share of fakes, over ten equal bins."""
    bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [
        abs(probabilities[bins == b].mean() - labels[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def point_metrics(labels: Labels, probabilities: Scores, threshold: float) -> dict[str, float]:
    """All metrics without intervals; NaN where one is not defined.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake.
        threshold: from it on a video is called fake.
    """
    verdicts = (probabilities >= threshold).astype(np.int64)
    (tn, fp), (fn, tp) = confusion_matrix(labels, verdicts, labels=[0, 1])
    both = 0 < labels.sum() < len(labels)
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    return {
        "accuracy": (tp + tn) / len(labels),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "auc_roc": float(roc_auc_score(labels, probabilities)) if both else float("nan"),
        "average_precision": (
            float(average_precision_score(labels, probabilities)) if both else float("nan")
        ),
        "eer": equal_error(labels, probabilities)[0] if both else float("nan"),
        "brier": float(np.mean((probabilities - labels) ** 2)),
        "ece": expected_calibration_error(labels, probabilities),
    }


def all_metrics(
    labels: Labels, probabilities: Scores, threshold: float, groups: Labels, *, seed: int = 0
) -> dict[str, Any]:
    """All metrics with percentile intervals of a bootstrap over groups of linked videos.

    There are no intervals from fewer than `FEWEST_GROUPS` groups: all resamples of three perfect
    pairs are perfect too, and an interval from 1 to 1 would be a lie.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake.
        threshold: from it on a video is called fake; chosen on other videos.
        groups: (N,) videos of one group share an identity and are drawn together.
        seed: of the resampling.

    Returns:
        metric → `Metric`; among them ``auc_p_value``, how probable an AUC at least this far from
        0.5 is by chance (Mann-Whitney U test over videos); and ``confusion`` → real as real, real
        as fake, fake as real, fake as fake.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng = np.random.default_rng(seed)

    def resampled() -> npt.NDArray[np.int64]:
        drawn = rng.integers(0, len(members), len(members))
        return np.concatenate([members[n] for n in drawn])

    values = point_metrics(labels, probabilities, threshold)
    samples: dict[str, Scores] = {}
    if len(members) >= FEWEST_GROUPS:
        samples = _bootstrap(
            lambda rows: point_metrics(labels[rows], probabilities[rows], threshold), resampled
        )
    result: dict[str, Any] = {
        name: Metric(_known(value), *_interval(samples.get(name)), n=len(labels))
        for name, value in values.items()
    }
    real, fake = probabilities[labels == 0], probabilities[labels == 1]
    p_value = mannwhitneyu(fake, real).pvalue if len(real) and len(fake) else float("nan")
    result["auc_p_value"] = Metric(_known(p_value), None, None, len(labels))
    result["threshold"] = Metric(threshold, None, None, len(labels))
    verdicts = (probabilities >= threshold).astype(np.int64)
    result["confusion"] = confusion_matrix(labels, verdicts, labels=[0, 1]).ravel().tolist()
    return result


def _bootstrap(
    metrics: Callable[[npt.NDArray[np.int64]], dict[str, float]],
    resampled: Callable[[], npt.NDArray[np.int64]],
) -> dict[str, Scores]:
    rows = [metrics(resampled()) for _ in range(RESAMPLES)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(samples: Scores | None) -> tuple[float | None, float | None]:
    if samples is None:
        return None, None
    samples = samples[~np.isnan(samples)]
    if len(samples) < RESAMPLES / 2:
        return None, None
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)
