"""Key moments: the few moments of a video that stand out, each with its reasons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.explanation.anomaly import Anomaly, percent
from model.reports.evidence_video import ClipEvidence
from model.reports.timeline import Curve

N_MOMENTS = 4  # of a video
MIN_DISTANCE = 1 / 12  # between two key moments, as a share of a clip
N_DRIVERS = 3  # motion descriptors named per moment


@dataclass(frozen=True)
class KeyMoment:
    """One moment that stands out."""

    clip: int
    row: int  # among the clip's moments
    index: int  # among the moments of all clips
    seconds: float  # into the video
    reasons: tuple[str, ...]  # sentences


def find_key_moments(
    clips: Sequence[ClipEvidence],
    curves: Sequence[Curve],
    anomaly: Anomaly,
    *,
    fake: bool,
    n: int = N_MOMENTS,
) -> list[KeyMoment]:
    """Return at most n moments that stand out, from each curve in turn and some time apart.

    Contributions searched for are those towards fake if the score is on its side (`fake`), else
    those towards real.
    """
    per_clip = len(clips[0].times)
    rankings = []
    for curve in curves:
        sign = -1 if curve.name == "contribution" and not fake else 1
        values = np.nan_to_num(sign * curve.values, nan=-np.inf)
        rankings.append(np.argsort(-values, kind="stable").tolist())
    chosen: list[int] = []
    while len(chosen) < n:
        before = len(chosen)
        for ranking in rankings:
            free = (i for i in ranking if all(_are_apart(i, other, per_clip) for other in chosen))
            if len(chosen) < n and (index := next(free, None)) is not None:
                chosen.append(index)
        if len(chosen) == before:
            break
    return [_describe(clips, curves, anomaly, index) for index in sorted(chosen)]


def _are_apart(one: int, other: int, per_clip: int) -> bool:
    same_clip = one // per_clip == other // per_clip
    return not same_clip or abs(one - other) >= max(2, per_clip * MIN_DISTANCE)


def _describe(
    clips: Sequence[ClipEvidence], curves: Sequence[Curve], anomaly: Anomaly, index: int
) -> KeyMoment:
    clip, row = divmod(index, len(clips[0].times))
    reasons = []
    for curve in curves:
        value = float(curve.values[index])
        if np.isnan(value):
            continue
        highest = ", the highest of the video" if curve.highest == index else ""
        context = highest + _compare_with_real(curve, index)
        if curve.name == "probability":
            reasons.append(f"By itself it has probability {value:.2f} of being fake{context}.")
        elif curve.name == "anomaly":
            drivers = ", ".join(
                f"{name} {sd:+.1f} sd"
                for name, _, sd in anomaly.drivers_at(clips[clip].motion, row)[:N_DRIVERS]
            )
            reasons.append(f"Its motion is {value:.1f} away from usual{context}: {drivers}.")
        else:
            side = "fake" if value > 0 else "real"
            reasons.append(f"It moves the verdict towards {side} by {abs(value):.3f} of log-odds.")
    return KeyMoment(clip, row, index, float(clips[clip].times[row]), tuple(reasons))


def _compare_with_real(curve: Curve, index: int) -> str:
    if curve.stranger_than is not None:
        return f", stranger than {percent(curve.stranger_than[index])} of moments of real videos"
    if curve.usual is None:
        return ""
    low, high = curve.usual.low, curve.usual.high
    value = curve.values[index]
    where = "above" if value > high else "below" if value < low else "within"
    return f", {where} the band of real videos ({low:.2f} to {high:.2f})"
