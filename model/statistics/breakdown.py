"""Results of a detector by manipulation and by source."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.statistics.metrics import Labels, Metric, Scores, auc_roc, with_intervals
from pipeline.cache import Clip
from pipeline.corpus.labelled_video import OWN, own_kinds

UNSTATED = "unstated"


@dataclass(frozen=True)
class Part:
    """Results on part of the videos of a split."""

    real: int
    fake: int
    auc_roc: Metric
    fakes_called_fake: Metric  # share, at the operating threshold
    reals_called_fake: Metric


def by_manipulation(
    clips: Sequence[Clip], probabilities: Scores, threshold: float, groups: Labels
) -> dict[str, Part]:
    """Return results on the fakes of each manipulation with all real videos.

    ``clips`` has one clip of each of V videos. With one manipulation there are no results. Of own
    fakes there is one for each kind, on all fakes that contain it: ``own:blend`` has those of
    ``own:blend+drift`` too.
    """
    values = [_manipulations(clip) for clip in clips]
    real = np.array([not clip.label for clip in clips])
    return {
        name: _part(clips, probabilities, threshold, groups, rows | real)
        for name, rows in _rows(values).items()
    }


def _manipulations(clip: Clip) -> list[str]:
    if not clip.label:
        return []
    kinds = own_kinds(clip.manipulation)
    return [OWN + kind for kind in kinds] or [clip.manipulation or UNSTATED]


def by_source(
    clips: Sequence[Clip], probabilities: Scores, threshold: float, groups: Labels
) -> dict[str, Part]:
    """Return results on the videos of each source; arguments as in `by_manipulation`."""
    values = [[clip.source or UNSTATED] for clip in clips]
    return {
        name: _part(clips, probabilities, threshold, groups, rows)
        for name, rows in _rows(values).items()
    }


def _rows(values: list[list[str]]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return value → (V,) mask of the videos that have it; empty if there is only one."""
    names = sorted({value for of_video in values for value in of_video})
    if len(names) < 2:
        return {}
    return {name: np.array([name in of_video for of_video in values]) for name in names}


def _part(
    clips: Sequence[Clip],
    probabilities: Scores,
    threshold: float,
    groups: Labels,
    rows: npt.NDArray[np.bool_],
) -> Part:
    labels = np.array([clip.label for clip in clips], np.int64)[rows]
    probabilities = probabilities[rows]
    called = probabilities >= threshold

    def measure(sample: Labels) -> dict[str, float]:
        y, verdicts = labels[sample], called[sample]
        return {
            "auc_roc": auc_roc(y, probabilities[sample]),
            "fakes_called_fake": _share(verdicts[y == 1]),
            "reals_called_fake": _share(verdicts[y == 0]),
        }

    metrics = with_intervals(measure, groups[rows])
    fake = int(labels.sum())
    real = len(labels) - fake
    return Part(
        real,
        fake,
        metrics["auc_roc"],
        dataclasses.replace(metrics["fakes_called_fake"], n=fake),
        dataclasses.replace(metrics["reals_called_fake"], n=real),
    )


def _share(verdicts: npt.NDArray[np.bool_]) -> float:
    return float(verdicts.mean()) if len(verdicts) else float("nan")
