"""The moments of a video that are worth a look, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.explanation.anomaly import Anomaly, percent
from model.reports.evidence_video import Evidence
from model.reports.timeline import Plot

SHOWN = 4  # moments of a video
APART = 1 / 12  # of a clip, at least
DRIVERS = 3


@dataclass(frozen=True)
class Moment:
    """One moment.

    Attributes:
        clip: which, from 0.
        row: of the moments of the clip.
        place: of the moments of all clips.
        seconds: into the video.
        reasons: what is special about it, as sentences.
    """

    clip: int
    row: int
    place: int
    seconds: float
    reasons: tuple[str, ...]


def strangest(
    clips: Sequence[Evidence],
    plots: Sequence[Plot],
    anomaly: Anomaly | None,
    *,
    fake: bool,
    n: int = SHOWN,
) -> list[Moment]:
    """The moments that stand out most: in turn by each curve, some time apart.

    Args:
        clips: of one video.
        plots: curves over all its moments.
        anomaly: what motion is usual, if the run knows.
        fake: whether the verdict leans to fake; else what contributes most to real is looked for.
        n: at most so many.

    Returns:
        them in the order of time.
    """
    per_clip = len(clips[0].times)
    orders = []
    for plot in plots:
        sign = -1 if plot.name == "contribution" and not fake else 1
        values = np.nan_to_num(sign * plot.values, nan=-np.inf)
        orders.append(np.argsort(-values, kind="stable").tolist())
    chosen: list[int] = []
    while len(chosen) < n:
        before = len(chosen)
        for order in orders:
            free = (p for p in order if all(_apart(p, other, per_clip) for other in chosen))
            if len(chosen) < n and (place := next(free, None)) is not None:
                chosen.append(place)
        if len(chosen) == before:
            break
    return [_moment(clips, plots, anomaly, place) for place in sorted(chosen)]


def _apart(one: int, other: int, per_clip: int) -> bool:
    same_clip = one // per_clip == other // per_clip
    return not same_clip or abs(one - other) >= max(2, per_clip * APART)


def _moment(
    clips: Sequence[Evidence], plots: Sequence[Plot], anomaly: Anomaly | None, place: int
) -> Moment:
    clip, row = divmod(place, len(clips[0].times))
    evidence = clips[clip]
    reasons = []
    for plot in plots:
        value = float(plot.values[place])
        if np.isnan(value):
            continue
        highest = ", the highest of the video" if plot.highest == place else ""
        beside = highest + _beside(plot, place)
        if plot.name == "probability":
            reasons.append(f"By itself it has probability {value:.2f} of being fake{beside}.")
        elif plot.name == "anomaly":
            driven = _driven(anomaly, evidence, row) if anomaly else ""
            reasons.append(f"Its motion is {value:.1f} away from usual{beside}{driven}.")
        else:
            side = "fake" if value > 0 else "real"
            reasons.append(f"It moves the verdict towards {side} by {abs(value):.2f} of log-odds.")
    return Moment(clip, row, place, float(evidence.times[row]), tuple(reasons))


def _beside(plot: Plot, place: int) -> str:
    if plot.stranger_than is not None:
        return f", stranger than {percent(plot.stranger_than[place])} of moments of real videos"
    if plot.usual is None:
        return ""
    value = plot.values[place]
    where = "above" if value > plot.usual.high else "below" if value < plot.usual.low else "within"
    return f", {where} the band of real videos ({plot.usual.low:.2f} to {plot.usual.high:.2f})"


def _driven(anomaly: Anomaly, evidence: Evidence, row: int) -> str:
    first = anomaly.drivers_at(evidence.motion, row)[:DRIVERS]
    return ": " + ", ".join(f"{name} {sd:+.1f} sd" for name, _, sd in first)
