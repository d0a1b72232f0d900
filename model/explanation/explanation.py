"""Explanation of a verdict on a clip, and the band of real videos to compare it with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Faithfulness:
    """Fall of a clip's log-odds when its hottest cells are covered, and when random cells are.

    Attributes:
        share: share of the cells of each map that are covered, 0..1.
        hottest: fall of the verdict's log-odds when the hottest cells are covered.
        random: the same when as many random cells are covered, mean of several draws.
    """

    share: float
    hottest: float
    random: float


@dataclass(frozen=True)
class Explanation:
    """Explanation of the verdict on one clip, of M = T-1 moments: one for each flow map.

    Attributes:
        log_odds: calibrated log-odds of being fake.
        moments: probability of being fake of the span around each moment by itself, (M,) float64.
        contribution: fall of the log-odds of being fake if that span is left out, (M,) float64.
        heat: stream → first-order contribution of each cell of the backbone's own grid to the
            log-odds of being fake, (M, h, w) float32.
        anomaly: distance of each moment from usual motion, (M,) float64; 1 is usual.
        faithfulness: stream → faithfulness of its heatmaps; empty unless asked for.
    """

    log_odds: float
    moments: npt.NDArray[np.float64]
    contribution: npt.NDArray[np.float64]
    heat: Mapping[str, npt.NDArray[np.float32]]
    anomaly: npt.NDArray[np.float64]
    faithfulness: Mapping[str, Faithfulness]


@dataclass(frozen=True)
class Band:
    """Quantiles over moments of real videos, by heads and densities that did not see them.

    Attributes:
        quantiles: ascending, from 0 to 1.
        moments: `Explanation.moments` at these quantiles.
        anomaly: `Explanation.anomaly` at these quantiles.
    """

    quantiles: tuple[float, ...]
    moments: tuple[float, ...]
    anomaly: tuple[float, ...]

    def stranger_than(self, anomaly: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """Return the share of moments of real videos that are less unusual, to half a percent.

        Args:
            anomaly: `Explanation.anomaly`, (M,).

        Returns:
            (M,), NaN where the motion is unknown; None if that of all real videos is.
        """
        if np.isnan(self.anomaly).any():
            return None
        return np.interp(anomaly, self.anomaly, self.quantiles)
