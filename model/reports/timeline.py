"""Curves over the moments of a video, as shapes of an inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model.explanation.explanation import Band
from model.reports.evidence_video import Evidence

HEIGHT = 100  # of each plot, in the units of its shapes; its width is the number of moments
USUAL = (0.05, 0.5, 0.95)  # nine in ten moments of real videos are between the outer two

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Usual:
    """Where nine in ten moments of real videos lie, and the median one."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Plot:
    """One curve over all moments of a video.

    Attributes:
        name: in the data of the page.
        title: what it shows.
        values: (M,), NaN where there is none.
        bottom: the value at its lower edge.
        top: the value at its upper edge.
        line: its ``d``, as of an SVG path.
        usual: of real videos, if it is known.
        mark: a value with a line across, if there is one.
        stranger_than: (M,) the share of moments of real videos below each value, if known.
    """

    name: str
    title: str
    values: Floats
    bottom: float
    top: float
    line: str
    usual: Usual | None = None
    mark: float | None = None
    stranger_than: Floats | None = None

    def y(self, value: float) -> float:
        """How far below the upper edge a value is, in the plot's units."""
        share = (value - self.bottom) / (self.top - self.bottom)
        return round(HEIGHT * (1 - min(max(share, 0.0), 1.0)), 2)

    def above(self, share: float) -> int:
        """How many moments are stranger than such a share of those of real videos."""
        return 0 if self.stranger_than is None else int((self.stranger_than > share).sum())

    @property
    def highest(self) -> int:
        """The moment of the largest value."""
        return int(np.nanargmax(self.values))


def plots(clips: Sequence[Evidence], threshold: float, band: Band | None) -> list[Plot]:
    """The curves that a page shows: probability, motion where it is known, contribution.

    Args:
        clips: of one video.
        threshold: from which probability on a video is called fake.
        band: what moments of real videos look like, if the run knows.
    """
    explanations = [clip.explanation for clip in clips]
    probability = np.concatenate([one.moments for one in explanations])
    found = [
        _plot(
            "probability",
            "Probability of fake",
            probability,
            len(clips),
            (0.0, 1.0),
            usual(band.quantiles, band.moments) if band else None,
            threshold,
        )
    ]
    known = [one.anomaly for one in explanations if one.anomaly is not None]
    if known and not np.isnan(np.concatenate(known)).all():
        anomaly = np.concatenate(known)
        of_real = usual(band.quantiles, band.anomaly) if band else None
        top = max(float(np.nanmax(anomaly)), of_real.high if of_real else 0.0, 1.0) * 1.05
        plot = _plot("anomaly", "Strangeness of motion", anomaly, len(clips), (0.0, top), of_real)
        ranks = band.stranger_than(anomaly) if band else None
        found.append(replace(plot, stranger_than=ranks))
    contribution = np.concatenate([one.contribution for one in explanations])
    most = max(float(np.nanmax(np.abs(contribution))) * 1.05, 1e-6)
    found.append(
        _plot(
            "contribution",
            "Contribution to the verdict",
            contribution,
            len(clips),
            (-most, most),
            mark=0.0,
        )
    )
    return found


def usual(quantiles: Sequence[float], values: Sequence[float]) -> Usual | None:
    """What is usual, of some quantiles of real moments; None if they are not known."""
    if not len(values) or np.isnan(values).any():
        return None
    return Usual(*(float(np.interp(q, quantiles, values)) for q in USUAL))


def _plot(
    name: str,
    title: str,
    values: Floats,
    n_clips: int,
    limits: tuple[float, float],
    usual: Usual | None = None,
    mark: float | None = None,
) -> Plot:
    empty = Plot(name, title, values, *limits, "", usual, mark)
    per_clip = len(values) // n_clips
    parts = []
    for moment, value in enumerate(values.tolist()):
        if np.isnan(value):
            continue
        begins = moment % per_clip == 0 or np.isnan(values[moment - 1])
        parts.append(f"{'M' if begins else 'L'}{moment + 0.5:g} {empty.y(value):g}")
    return Plot(name, title, values, *limits, "".join(parts), usual, mark)
