"""Calibration of logits and choice of the operating threshold, on validation videos."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from model.statistics.metrics import Labels, Scores, distance, equal_error, threshold_at_fpr

TEMPERATURE_BOUNDS = (0.05, 20.0)


@dataclass(frozen=True)
class OperatingPoint:
    """Parameters that turn logits into verdicts."""

    temperature: float
    threshold: float
    margin: float = 0.0  # logits from the threshold
    warning: str = ""


def operating_point(
    labels: Labels, logits: Scores, *, max_fpr: float | None = None, abstain: float = 0.0
) -> OperatingPoint:
    """Choose temperature, threshold and margin on validation videos; NaN logits are ignored.

    Without ``max_fpr``, the highest false-positive rate, the threshold is at the equal error rate.
    ``abstain`` is the share of videos that should be too close to call.
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


def fit_temperature(labels: Labels, logits: Scores) -> float:
    """Fit the temperature with the lowest class-balanced log loss; 1 with one class only.

    Targets are Platt's: with 0 and 1, separated videos would get a temperature of 0, although n
    videos cannot show errors to be rarer than about 1/n.

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


def _margin(probabilities: Scores, threshold: float, share: float) -> float:
    """Return the margin below which a share of the videos lies, halfway between two of them."""
    distances = np.sort(distance(probabilities, threshold))
    n = int(share * len(distances) + 1e-9)
    return float(distances[n - 1 : n + 1].mean()) if n else 0.0
