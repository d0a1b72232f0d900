"""Numbers that say how well a detector tells fake from real, each with its interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

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


@dataclass(frozen=True)
class _Sweep:
    """How many videos are called fake at each threshold, from the highest score downwards.

    The areas over it are those of scikit-learn, which takes a hundred times as long to check its
    arguments, too long for a bootstrap.
    """

    thresholds: Scores  # (K,) distinct scores, descending
    hits: Scores  # (K,) fakes called fake
    false_alarms: Scores  # (K,) reals called fake

    @classmethod
    def of(cls, labels: Labels, scores: Scores) -> "_Sweep":
        order = np.argsort(-scores, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        hits = labels[order].cumsum()[ends].astype(np.float64)
        return cls(scores[order][ends], hits, ends + 1 - hits)

    def auc_roc(self) -> float:
        x = np.append(0, self.false_alarms) / self.false_alarms[-1]
        y = np.append(0, self.hits) / self.hits[-1]
        return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))

    def average_precision(self) -> float:
        precision = self.hits / (self.hits + self.false_alarms)
        return float(np.sum(np.diff(np.append(0, self.hits)) / self.hits[-1] * precision))

    def equal_error(self) -> tuple[float, int]:
        """The rate, and the row where misses and false alarms are nearest; -1 is nobody fake."""
        false_alarms = np.append(0, self.false_alarms) / self.false_alarms[-1]
        misses = 1 - np.append(0, self.hits) / self.hits[-1]
        best = int(np.argmin(np.abs(false_alarms - misses)))
        return float((false_alarms[best] + misses[best]) / 2), best - 1


def equal_error(labels: Labels, scores: Scores) -> tuple[float, float]:
    """The equal error rate, and the threshold where misses and false alarms are as near as can be.

    The threshold lies half-way between two scores, so that it does not hang on one video.
    """
    sweep = _Sweep.of(labels, scores)
    rate, row = sweep.equal_error()
    if row < 0:
        return rate, float(np.nextafter(sweep.thresholds[0], np.inf))
    above = sweep.thresholds[row]
    below = sweep.thresholds[min(row + 1, len(sweep.thresholds) - 1)]
    return rate, float((above + below) / 2)


def auc_roc(labels: Labels, scores: Scores) -> float:
    """Area under the ROC curve; NaN with one class only."""
    return _Sweep.of(labels, scores).auc_roc() if 0 < labels.sum() < len(labels) else float("nan")


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
    tn, fp, fn, tp = _confusion(labels, verdicts)
    undefined = float("nan")
    sweep = _Sweep.of(labels, probabilities) if 0 < labels.sum() < len(labels) else None
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    return {
        "accuracy": (tp + tn) / len(labels),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "auc_roc": sweep.auc_roc() if sweep else undefined,
        "average_precision": sweep.average_precision() if sweep else undefined,
        "eer": sweep.equal_error()[0] if sweep else undefined,
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
    values = point_metrics(labels, probabilities, threshold)
    samples = _bootstrap(
        lambda rows: point_metrics(labels[rows], probabilities[rows], threshold), groups, seed
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
    result["confusion"] = _confusion(labels, verdicts)
    return result


def _confusion(labels: Labels, verdicts: Labels) -> list[int]:
    """Real as real, real as fake, fake as real, fake as fake."""
    return np.bincount(2 * labels + verdicts, minlength=4).tolist()


def auc_drop(
    labels: Labels, before: Scores, after: Scores, groups: Labels, *, seed: int = 0
) -> Metric:
    """How much lower the AUC of one score is than that of another on the very same videos.

    Args:
        labels: (N,) 0 real, 1 fake.
        before: (N,) scores.
        after: (N,) scores of the same videos.
        groups: (N,) videos of one group share an identity and are drawn together.
        seed: of the resampling, in which both scores of a video stay together.
    """

    def drop(rows: npt.NDArray[np.int64]) -> dict[str, float]:
        lower = auc_roc(labels[rows], after[rows])
        return {"drop": auc_roc(labels[rows], before[rows]) - lower}

    value = drop(np.arange(len(labels)))["drop"]
    samples = _bootstrap(drop, groups, seed)
    return Metric(_known(value), *_interval(samples.get("drop")), n=len(labels))


def _bootstrap(
    metrics: Callable[[npt.NDArray[np.int64]], dict[str, float]], groups: Labels, seed: int
) -> dict[str, Scores]:
    """Metrics of resamples of whole groups; nothing of too few groups."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(members) < FEWEST_GROUPS:
        return {}
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(members), len(members))
        rows.append(metrics(np.concatenate([members[n] for n in drawn])))
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
