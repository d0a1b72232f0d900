"""Calibration of logits and choice of the operating threshold, on validation videos."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit

from model.statistics.metrics import distance, equal_error, threshold_at_fpr

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TEMPERATURE_BOUNDS = (0.05, 20.0)


@dataclass(frozen=True)
class OperatingPoint:
    """Parameters that turn logits into verdicts.

    Attributes:
        temperature: a probability is the sigmoid of logit / temperature.
        threshold: probability from which on a video is called fake.
        margin: distance from the threshold, in logits, below which a video is too close to call.
        warning: reason why the threshold cannot guarantee the false-positive rate, or empty.
    """

    temperature: float
    threshold: float
    margin: float = 0.0
    warning: str = ""


def operating_point(
    labels: Labels, logits: Floats, *, max_fpr: float | None = None, abstain: float = 0.0
) -> OperatingPoint:
    """Choose temperature, threshold and margin on validation videos.

    Args:
        labels: (V,) int64: 0 real, 1 fake.
        logits: (V,) float64 from heads that did not train on the video; NaN is ignored.
        max_fpr: highest false-positive rate; None puts the threshold at the equal error rate.
        abstain: share of the videos that should be too close to call.
    """
    valid = ~np.isnan(logits)
    labels, logits = labels[valid], logits[valid]
    temperature = fit_temperature(labels, logits)
    p = expit(logits / temperature)
    warning = ""
    if max_fpr is None:
        threshold = equal_error(labels, p)[1]
    else:
        threshold = threshold_at_fpr(labels, p, max_fpr)
        n_real = int((labels == 0).sum())
        if n_real * max_fpr < 1:
            warning = (
                f"A false-positive rate of {max_fpr:g} cannot be measured on {n_real} real "
                "validation videos: the threshold is where none of them is called fake."
            )
    return OperatingPoint(temperature, threshold, _margin(p, threshold, abstain), warning)


def fit_temperature(labels: Labels, logits: Floats) -> float:
    """Fit the temperature with the lowest class-balanced log loss; 1 with one class only.

    Targets are Platt's instead of 0 and 1. Otherwise videos that are separated without an error
    would get a temperature of 0, although n videos cannot show errors to be rarer than about 1/n.

    Args:
        labels: (V,) int64: 0 real, 1 fake.
        logits: (V,) float64.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
        Platt, Probabilistic Outputs for Support Vector Machines, 1999.
    """
    n_real, n_fake = np.bincount(labels, minlength=2)
    if not n_real or not n_fake:
        return 1.0
    target = np.where(labels == 1, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))
    weight = np.where(labels == 1, 1 / n_fake, 1 / n_real)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.sum(weight * (np.logaddexp(0, scaled) - target * scaled)))

    return float(
        np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURE_BOUNDS), method="bounded").x)
    )


def _margin(probabilities: Floats, threshold: float, share: float) -> float:
    """Return the margin below which a share of the videos lies, halfway between two of them."""
    distances = np.sort(distance(probabilities, threshold))
    n = int(share * len(distances) + 1e-9)
    return float(distances[n - 1 : n + 1].mean()) if n else 0.0
