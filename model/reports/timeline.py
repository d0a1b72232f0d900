"""Curves over the moments of a video, drawn as paths of an inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.explanation.occlusion_over_time import Band
from model.reports.evidence_video import ClipEvidence

HEIGHT = 100  # of a plot in SVG units; its width is the number of moments
USUAL_QUANTILES = (0.05, 0.5, 0.95)  # nine in ten moments of real videos are between the outer two

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class UsualRange:
    """Range of nine in ten moments of real videos, and their median."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One curve over all M moments of a video."""

    name: str
    title: str
    values: Floats  # (M,), NaN where unknown
    n_clips: int  # which have equally many moments
    bottom: float  # value at the lower edge of the plot
    top: float
    usual: UsualRange | None = None
    mark: float | None = None  # value of a horizontal line
    stranger_than: Floats | None = None  # (M,) share of moments of real videos with a lower value

    def y(self, value: float) -> float:
        """Return the SVG coordinate of a value."""
        share = (value - self.bottom) / (self.top - self.bottom)
        return round(HEIGHT * (1 - min(max(share, 0.0), 1.0)), 2)

    @property
    def path(self) -> str:
        """``d`` of an SVG path, with gaps between clips and where values are unknown."""
        per_clip = len(self.values) // self.n_clips
        parts = []
        for moment, value in enumerate(self.values.tolist()):
            if np.isnan(value):
                continue
            begins = moment % per_clip == 0 or np.isnan(self.values[moment - 1])
            parts.append(f"{'M' if begins else 'L'}{moment + 0.5:g} {self.y(value):g}")
        return "".join(parts)

    def above(self, share: float) -> int:
        """Count the moments stranger than this share of those of real videos."""
        return 0 if self.stranger_than is None else int((self.stranger_than > share).sum())

    @property
    def highest(self) -> int:
        """Moment with the largest value."""
        return int(np.nanargmax(self.values))


def curves_of(clips: Sequence[ClipEvidence], threshold: float, band: Band) -> list[Curve]:
    """Return the curves of a page: probability, motion anomaly where known, and contribution."""
    n, explanations = len(clips), [clip.explanation for clip in clips]
    values = np.concatenate([one.moments for one in explanations])
    usual = usual_range(band.quantiles, band.moments)
    curves = [Curve("probability", "Probability of fake", values, n, 0.0, 1.0, usual, threshold)]

    values = np.concatenate([one.anomaly for one in explanations])
    if not np.isnan(values).all():
        usual = usual_range(band.quantiles, band.anomaly)
        top = max(float(np.nanmax(values)), usual.high if usual else 0.0, 1.0) * 1.05
        ranks = band.stranger_than(values)
        title = "Strangeness of motion"
        curves.append(Curve("anomaly", title, values, n, 0.0, top, usual, stranger_than=ranks))

    values = np.concatenate([one.contribution for one in explanations])
    limit = max(float(np.nanmax(np.abs(values))) * 1.05, 1e-6)
    title = "Contribution to the verdict"
    curves.append(Curve("contribution", title, values, n, -limit, limit, mark=0.0))
    return curves


def usual_range(quantiles: Sequence[float], values: Sequence[float]) -> UsualRange | None:
    """Interpolate the usual range from quantiles of real moments; None if unknown."""
    if not len(values) or np.isnan(values).any():
        return None
    return UsualRange(*(float(np.interp(q, quantiles, values)) for q in USUAL_QUANTILES))
