"""Why a run says what it says of a clip: where, and when."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Faithfulness:
    """What covering the hottest cells of a clip does to its log-odds, beside what chance does.

    Attributes:
        share: of the cells of each map that are covered, 0..1.
        hottest: the fall of the log-odds of the verdict that covering the hottest cells causes.
        random: the same of as many random cells, the mean of several draws.
    """

    share: float
    hottest: float
    random: float


@dataclass(frozen=True)
class Explanation:
    """Why a run says what it says of one clip, of M = T-1 moments: one for each flow map.

    Attributes:
        log_odds: calibrated, of being fake.
        moments: (M,) float64, the probability of being fake that a stretch of the clip around each
            moment has by itself.
        contribution: (M,) float64, by how much the log-odds of being fake fall if a stretch around
            the moment is left out.
        heat: stream → (M, h, w) float32 on the backbone's own grid, what each cell of the picture
            adds to the log-odds of being fake; to first order.
        anomaly: (M,) float64, how far each moment is from usual motion, about 1 for a usual one;
            None if the run has no density of motion.
        faithfulness: stream → how far its heat can be believed; empty if it was not asked for.
    """

    log_odds: float
    moments: npt.NDArray[np.float64]
    contribution: npt.NDArray[np.float64]
    heat: Mapping[str, npt.NDArray[np.float32]]
    anomaly: npt.NDArray[np.float64] | None
    faithfulness: Mapping[str, Faithfulness]


@dataclass(frozen=True)
class Band:
    """What moments of real videos look like, by heads and densities that did not see them.

    Attributes:
        quantiles: of moments, ascending.
        moments: the `Explanation.moments` at these quantiles.
        anomaly: the `Explanation.anomaly` at these quantiles.
    """

    quantiles: tuple[float, ...]
    moments: tuple[float, ...]
    anomaly: tuple[float, ...]

    def stranger_than(self, anomaly: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """The share of moments of real videos that move less strangely, 0..1, to half a percent.

        Args:
            anomaly: (M,) as `Explanation.anomaly` has it.

        Returns:
            (M,), NaN where the motion is unknown; None if that of all real videos is, or if the
            band is of an earlier version, which kept no extremes.
        """
        if (self.quantiles[0], self.quantiles[-1]) != (0, 1) or np.isnan(self.anomaly).any():
            return None
        return np.interp(anomaly, self.anomaly, self.quantiles)
