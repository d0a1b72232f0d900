"""Two detectors on the same videos: is one better, or is it luck?"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from model.statistics.metrics import SIGNIFICANT, Metric, PValue, auc_roc, bootstrap, estimates

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What one detector says of V videos."""

    probabilities: Floats  # (V,)
    threshold: float  # from which on a video is called fake


@dataclass(frozen=True)
class Comparison:
    """Two detectors, a and b, on the same videos.

    Attributes:
        auc_roc: of a, of b, and a - b.
        accuracy: of a, of b, and a - b.
        auc_delong_p: of DeLong's test, for which every video is of somebody else; None where it
            is undefined.
        auc_p: of a bootstrap over groups of linked videos; None from too few of them.
        accuracy_p: the same of the accuracy.
    """

    auc_roc: tuple[Metric, Metric, Metric]
    accuracy: tuple[Metric, Metric, Metric]
    auc_delong_p: float | None
    auc_p: float | None
    accuracy_p: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``auc_roc`` and ``accuracy`` have ``a``, ``b`` and ``difference``."""
        plain = dataclasses.asdict(self)
        for name in ("auc_roc", "accuracy"):
            plain[name] = dict(zip(("a", "b", "difference"), plain[name], strict=True))
        return plain


def compare(labels: Labels, a: Scored, b: Scored, groups: Labels, *, seed: int = 0) -> Comparison:
    """Compare two detectors by a paired bootstrap over groups, and by DeLong's test.

    Args:
        labels: (V,) 0 real, 1 fake.
        a: of one detector.
        b: of the other one, on the same videos in the same order.
        groups: (V,) equal for linked videos, which are drawn together.
        seed: of the bootstrap.
    """

    def measure(rows: npt.NDArray[np.int64]) -> dict[str, float]:
        y = labels[rows]
        auc = [auc_roc(y, one.probabilities[rows]) for one in (a, b)]
        right = [float(((one.probabilities[rows] >= one.threshold) == y).mean()) for one in (a, b)]
        return {
            f"{name}{n}": value
            for name, (x, z) in {"auc": auc, "right": right}.items()
            for n, value in enumerate((x, z, x - z))
        }

    samples = bootstrap(measure, groups, seed=seed)
    found = estimates(measure(np.arange(len(labels))), samples, len(labels))
    _, _, delong_p = delong(labels, a.probabilities, b.probabilities)
    return Comparison(
        (found["auc0"], found["auc1"], found["auc2"]),
        (found["right0"], found["right1"], found["right2"]),
        None if np.isnan(delong_p) else delong_p,
        _two_sided(samples.get("auc2")),
        _two_sided(samples.get("right2")),
    )


def delong(labels: Labels, a: Floats, b: Floats) -> tuple[float, float, float]:
    """DeLong's test for two correlated AUCs.

    Args:
        labels: (V,) 0 real, 1 fake.
        a: (V,) scores of one detector.
        b: (V,) scores of the other one.

    Returns:
        both AUCs and the two-sided p-value; NaN where it is undefined: with fewer than two videos
        of a class, or where the difference does not vary although there is one.

    References:
        DeLong et al., Comparing the Areas under Two or More Correlated ROC Curves, 1988.
        Sun and Xu, Fast Implementation of DeLong's Algorithm, 2014.
    """
    fake, real = labels == 1, labels == 0
    n_fake, n_real = int(fake.sum()), int(real.sum())
    if not n_fake or not n_real:
        return float("nan"), float("nan"), float("nan")
    of_fakes, of_reals = [], []
    for scores in (a, b):
        ranks = rankdata(scores)
        # Of each fake the share of reals below it, of each real the share of fakes above it.
        of_fakes.append((ranks[fake] - rankdata(scores[fake])) / n_real)
        of_reals.append(1 - (ranks[real] - rankdata(scores[real])) / n_fake)
    auc_a, auc_b = (float(shares.mean()) for shares in of_fakes)
    if min(n_fake, n_real) < 2:
        return auc_a, auc_b, float("nan")
    variance = sum(np.var(x - y, ddof=1) / len(x) for x, y in (of_fakes, of_reals))
    if variance < 1e-15:  # rounding
        return auc_a, auc_b, 1.0 if abs(auc_a - auc_b) < 1e-12 else float("nan")
    return auc_a, auc_b, float(2 * norm.sf(abs(auc_a - auc_b) / np.sqrt(variance)))


def _two_sided(differences: Floats | None) -> float | None:
    """How often resampling turns the sign of a difference, both ways; None without samples."""
    if differences is None:
        return None
    known = differences[~np.isnan(differences)]
    fewest = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (1 + fewest) / (1 + len(known))))


def sentence(name: str, found: Comparison, *, meaning: str, otherwise: str) -> str:
    """Whether the AUC of the detector differs from that of a control, in plain words.

    Args:
        name: of the control.
        found: the detector as a, the control as b.
        meaning: what follows if the detector is better.
        otherwise: what follows if it is not.
    """
    difference, control = found.auc_roc[2], f"the {name} control"
    if found.auc_p is None or difference.value is None:
        return f"There are too few groups of linked videos to compare the detector with {control}."
    better, follows = "not distinguishable from", otherwise
    if found.auc_p <= SIGNIFICANT:
        better = "higher than" if difference.value > 0 else "lower than"
        follows = meaning if difference.value > 0 else otherwise
    return (
        f"The AUC of the detector is {better} that of {control} (difference {difference}, "
        f"p {PValue(found.auc_p, None, None, 0)}): {follows}."
    )
