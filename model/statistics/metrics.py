"""Numbers that say how well a detector tells fake from real, each with its interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from model.statistics.permutation import permutation_p_value

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

RESAMPLES = 1000
FEWEST_GROUPS = 10  # below that a bootstrap gives intervals that are far too narrow
ECE_BINS = 10
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Metric:
    """A value with its 95% interval; None where it is not defined (one class only, say)."""

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
    """A probability that something comes about by chance; it is never shown as 0."""

    def __str__(self) -> str:
        small = self.value is not None and self.value < 0.001
        return "<0.001" if small else super().__str__()


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

    Args:
        labels: (N,) 0 real, 1 fake; both are there.
        scores: (N,) the higher, the likelier fake.

    Example:
        >>> equal_error(np.array([0, 0, 1, 1]), np.array([0.125, 0.5, 0.375, 0.875]))
        (0.5, 0.4375)
    """
    sweep = _Sweep.of(labels, scores)
    rate, row = sweep.equal_error()
    if row < 0:
        return rate, float(np.nextafter(sweep.thresholds[0], np.inf))
    above = sweep.thresholds[row]
    below = sweep.thresholds[min(row + 1, len(sweep.thresholds) - 1)]
    return rate, float((above + below) / 2)


def false_alarm_threshold(labels: Labels, scores: Scores, max_fpr: float) -> float:
    """The lowest threshold at which at most a share ``max_fpr`` of the real videos is called fake.

    It lies half-way between two scores. There must be a real video.

    Example:
        >>> labels, scores = np.array([0, 0, 0, 0, 1]), np.array([0.125, 0.25, 0.5, 0.75, 0.875])
        >>> false_alarm_threshold(labels, scores, 0.25)
        0.625
    """
    real = np.sort(scores[labels == 0])[::-1]
    allowed = int(max_fpr * len(real) + 1e-9)
    if allowed >= len(real):
        return float(scores.min())
    below = real[allowed]  # the highest score that must not be called fake
    above = scores[scores > below]
    return float((below + above.min()) / 2 if len(above) else np.nextafter(below, np.inf))


def distance(probabilities: Scores, threshold: float) -> Scores:
    """How far probabilities are from the threshold, in logits."""
    least = np.finfo(np.float64).eps  # of 0 and 1 there is no logit
    return np.abs(
        logit(np.clip(probabilities, least, 1 - least))
        - logit(np.clip(threshold, least, 1 - least))
    )


def auc_roc(labels: Labels, scores: Scores) -> float:
    """Area under the ROC curve; NaN with one class only.

    Example:
        >>> auc_roc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
        0.75
    """
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


def point_metrics(
    labels: Labels, probabilities: Scores, threshold: float, margin: float = 0.0
) -> dict[str, float]:
    """All metrics without intervals; NaN where one is not defined.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake.
        threshold: from it on a video is called fake.
        margin: in logits; a video that is nearer to the threshold is too close to call. Only
            ``decided`` and ``accuracy_decided`` leave such videos out.
    """
    verdicts = (probabilities >= threshold).astype(np.int64)
    tn, fp, fn, tp = _confusion(labels, verdicts)
    undefined = float("nan")
    sweep = _Sweep.of(labels, probabilities) if 0 < labels.sum() < len(labels) else None
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    decided = distance(probabilities, threshold) >= margin
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
    """All metrics with percentile intervals of a bootstrap over groups of linked videos.

    There are no intervals from fewer than `FEWEST_GROUPS` groups: all resamples of three perfect
    pairs are perfect too, and an interval from 1 to 1 would be a lie.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake.
        threshold: from it on a video is called fake; chosen on other videos.
        groups: (N,) videos of one group share an identity and are drawn together.
        margin: in logits; see `point_metrics`.
        seed: of the resampling.

    Returns:
        metric → `Metric`; among them ``auc_p_value``, how probable an AUC at least this far from
        0.5 is by chance (see `permutation_p_value`); and ``confusion`` → real as real, real
        as fake, fake as real, fake as fake.
    """
    result: dict[str, Any] = with_intervals(
        lambda rows: point_metrics(labels[rows], probabilities[rows], threshold, margin),
        groups,
        seed=seed,
    )
    p_value = permutation_p_value(labels, probabilities, groups, seed=seed)
    result["auc_p_value"] = PValue(_known(p_value), None, None, len(labels))
    result["threshold"] = Metric(threshold, None, None, len(labels))
    verdicts = (probabilities >= threshold).astype(np.int64)
    result["confusion"] = _confusion(labels, verdicts)
    return result


def _confusion(labels: Labels, verdicts: Labels) -> list[int]:
    """Real as real, real as fake, fake as real, fake as fake."""
    return np.bincount(2 * labels + verdicts, minlength=4).tolist()


def auc_drop(labels: Labels, before: Scores, after: Scores, groups: Labels) -> Metric:
    """How much lower the AUC of one score is than that of another on the very same videos.

    Args:
        labels: (N,) 0 real, 1 fake.
        before: (N,) scores.
        after: (N,) scores of the same videos.
        groups: (N,) videos of one group share an identity and are drawn together.
    """

    def drop(rows: Indices) -> dict[str, float]:
        lower = auc_roc(labels[rows], after[rows])
        return {"drop": auc_roc(labels[rows], before[rows]) - lower}

    return with_intervals(drop, groups)["drop"]


def bootstrap(
    measure: Callable[[Indices], dict[str, float]], groups: Labels, *, seed: int = 0
) -> dict[str, Scores]:
    """Measure again and again on as many groups, drawn with replacement.

    Args:
        measure: from rows to numbers by name.
        groups: (N,) rows of one group are drawn together.
        seed: of the drawing.

    Returns:
        name → (`RESAMPLES`,), nothing if there are fewer than `FEWEST_GROUPS` groups.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(members) < FEWEST_GROUPS:
        return {}
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(members), len(members)) for _ in range(RESAMPLES)]
    rows = [measure(np.concatenate([members[n] for n in of_one])) for of_one in drawn]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def with_intervals(
    measure: Callable[[Indices], dict[str, float]], groups: Labels, *, seed: int = 0
) -> dict[str, Metric]:
    """What is measured on all rows, with percentile intervals; arguments as of `bootstrap`."""
    samples = bootstrap(measure, groups, seed=seed)
    return estimates(measure(np.arange(len(groups))), samples, len(groups))


def estimates(values: dict[str, float], samples: dict[str, Scores], n: int) -> dict[str, Metric]:
    """Values with the intervals of their samples, as `bootstrap` gives them, of n videos."""
    return {
        name: Metric(_known(value), *interval(samples.get(name)), n=n)
        for name, value in values.items()
    }


def interval(samples: Scores | None) -> tuple[float | None, float | None]:
    """The 95% percentile interval.

    None where most samples are undefined, and where all are the same: they do not show how much
    other videos would change, so that 1 to 1 would be a lie.
    """
    if samples is None:
        return None, None
    samples = samples[~np.isnan(samples)]
    if len(samples) < RESAMPLES / 2 or np.ptp(samples) == 0:
        return None, None
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
