"""From logits to probabilities that mean what they say, and to a verdict; learned on validation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit

from model.statistics.metrics import distance, equal_error, false_alarm_threshold

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class OperatingPoint:
    """What turns logits into verdicts.

    Attributes:
        temperature: a probability is the sigmoid of logit / temperature.
        threshold: probability from which on a video is called fake.
        margin: logits of probability and threshold that are nearer than that are too close to call.
        warning: why the threshold does not keep its promise, or nothing.
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
        labels: (V,) 0 real, 1 fake.
        logits: (V,) of heads that did not see the video; NaN where there is none.
        max_fpr: the share of real videos that may be called fake; None: as many errors on real
            as on fake videos.
        abstain: the share of the videos that the margin should hold.
    """
    known = ~np.isnan(logits)
    labels, logits = labels[known], logits[known]
    temperature = fit_temperature(labels, logits)
    p = expit(logits / temperature)
    warning = ""
    if max_fpr is None:
        threshold = equal_error(labels, p)[1]
    else:
        threshold = false_alarm_threshold(labels, p, max_fpr)
        n_real = int((labels == 0).sum())
        if n_real * max_fpr < 1:
            warning = (
                f"A false positive rate of {max_fpr:g} cannot be told from {n_real} real "
                "validation videos: the threshold is where none of them is called fake."
            )
    return OperatingPoint(temperature, threshold, _margin(p, threshold, abstain), warning)


def fit_temperature(labels: Labels, logits: Floats) -> float:
    """The temperature with the least log loss, both classes counting alike; 1 from one class only.

    Targets are Platt's, not 0 and 1: videos that are told apart without an error would ask for
    a temperature of 0, and n videos cannot show that errors are much rarer than 1/n.

    Args:
        labels: (V,) 0 real, 1 fake.
        logits: (V,)

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

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def _margin(probabilities: Floats, threshold: float, share: float) -> float:
    """Halfway between the farthest video that is too close to call and the nearest other one."""
    far = np.sort(distance(probabilities, threshold))
    n = int(share * len(far) + 1e-9)
    return float(far[n - 1 : n + 1].mean()) if n else 0.0
