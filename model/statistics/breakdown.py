"""How a detector fares on each manipulation, and on the videos of each source."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.statistics.metrics import Metric, auc_roc, with_intervals
from pipeline.cache import Clip

Labels = npt.NDArray[np.int64]
UNSTATED = "unstated"


@dataclass(frozen=True)
class Part:
    """Some of the videos of a split.

    Attributes:
        real: how many of them are real.
        fake: how many are fake.
        auc_roc: with its interval; None with one class only.
        fakes_called_fake: the share, at the detector's threshold.
        reals_called_fake: the share, at the detector's threshold.
    """

    real: int
    fake: int
    auc_roc: Metric
    fakes_called_fake: Metric
    reals_called_fake: Metric


def by_manipulation(
    clips: Sequence[Clip],
    probabilities: npt.NDArray[np.float64],
    threshold: float,
    groups: Labels,
) -> dict[str, Part]:
    """The fakes of each manipulation against all real videos; nothing if there is only one.

    Args:
        clips: V, one of each video.
        probabilities: (V,) of being fake.
        threshold: from it on a video is called fake.
        groups: (V,) equal for linked videos.
    """
    values = [clip.manipulation or UNSTATED if clip.label else "" for clip in clips]
    real = np.array([not clip.label for clip in clips])
    return {
        name: _part(clips, probabilities, threshold, groups, rows | real)
        for name, rows in _rows(values).items()
    }


def by_source(
    clips: Sequence[Clip],
    probabilities: npt.NDArray[np.float64],
    threshold: float,
    groups: Labels,
) -> dict[str, Part]:
    """The videos of each source; nothing if there is only one. Arguments as `by_manipulation`'s."""
    values = [clip.source or UNSTATED for clip in clips]
    return {
        name: _part(clips, probabilities, threshold, groups, rows)
        for name, rows in _rows(values).items()
    }


def _rows(values: list[str]) -> dict[str, npt.NDArray[np.bool_]]:
    """Value → (V,) where it is, of two values or more that are not empty."""
    names = sorted(set(values) - {""})
    return {name: np.array(values) == name for name in names} if len(names) > 1 else {}


def _part(
    clips: Sequence[Clip],
    probabilities: npt.NDArray[np.float64],
    threshold: float,
    groups: Labels,
    rows: npt.NDArray[np.bool_],
) -> Part:
    labels = np.array([clip.label for clip in clips], np.int64)[rows]
    probabilities = probabilities[rows]
    called = probabilities >= threshold

    def measure(some: npt.NDArray[np.int64]) -> dict[str, float]:
        y, verdicts = labels[some], called[some]
        return {
            "auc_roc": auc_roc(y, probabilities[some]),
            "fakes_called_fake": _share(verdicts[y == 1]),
            "reals_called_fake": _share(verdicts[y == 0]),
        }

    found = with_intervals(measure, groups[rows])
    fake = int(labels.sum())
    real = len(labels) - fake
    return Part(
        real,
        fake,
        found["auc_roc"],
        dataclasses.replace(found["fakes_called_fake"], n=fake),
        dataclasses.replace(found["reals_called_fake"], n=real),
    )


def _share(verdicts: npt.NDArray[np.bool_]) -> float:
    return float(verdicts.mean()) if len(verdicts) else float("nan")
