"""Trials of a search: what a trial is, how it runs, when it is stopped early, and their log."""

import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from skopt.space import Dimension

from model.run.per_video_scores import UNSEEN
from model.settings import TrainingSettings
from model.training.sequences import Sequences, load_sequences
from model.training.train import Indices, fit_linear, train_fold
from model.tuning.space import Point, parse_settings, parse_value
from pipeline.cache import Cache
from pipeline.common.csv_files import csv_line, read_csv
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import end_of_lines

Objective = Callable[[TrainingSettings, int], float]  # settings, fold → validation loss in nats
Losses = npt.NDArray[np.float64]

MAX_LOSS = 5.0  # nats; a constant probability of 1/2 costs 0.69
MIN_FINISHED = 4  # trials to compare with before one is stopped early
STOP_MARGIN = 2.0  # standard deviations from the best trial
MAX_WARM_STARTS = 3  # settings taken from another search
# What torch and numpy raise when settings do not work; anything else is a bug.
FAILURES = (RuntimeError, ValueError, ArithmeticError, MemoryError)
OK, STOPPED, FAILED = "ok", "stopped", "failed"  # status, or how it starts


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial."""

    losses: tuple[float, ...]  # nats, of the folds that ran
    status: str  # ok, stopped, or failed: REASON
    seconds: float

    @property
    def loss(self) -> float:
        """The mean over all folds; NaN unless the status is ``ok``."""
        return float(np.mean(self.losses)) if self.status == OK else float("nan")


@dataclass(frozen=True)
class Trial:
    """One row of the log."""

    number: int
    source: str  # what chose the point: warm start, start, spread or gp
    point: Point
    result: TrialResult


def finished_losses(trials: Sequence[Trial]) -> Losses:
    """Return the losses of trials that succeeded on all K folds, (N, K)."""
    return np.array([t.result.losses for t in trials if t.result.status == OK], np.float64)


def estimated_losses(trials: Sequence[Trial]) -> list[float]:
    """Return a loss for every trial: estimated if it was stopped, the worst if it failed."""
    finished = finished_losses(trials)
    worst = float(finished.mean(1).max())
    return [
        worst
        if trial.result.status.startswith(FAILED)
        else corrected_loss(trial.result.losses, finished)
        for trial in trials
    ]


@dataclass(frozen=True)
class FoldLoss:
    """The objective of tuning: the validation loss of some settings on one fold, in nats.

    It goes to worker processes as a path; each reads the clips when it first needs them.
    """

    cache: Path
    sha256: str
    folds: Sequence[tuple[Indices, Indices]]
    seed: int
    device: str
    checkpoints: Path | None = None

    def __call__(self, settings: TrainingSettings, fold: int) -> float:
        """Train one head as `cross_fit` does."""
        data = load_training(self.cache, self.sha256, settings.streams)
        if settings.head == "statistics":  # all folds choose its regularisation
            return fit_linear(data, self.folds, settings)[fold].best.val_loss
        train, val = self.folds[fold]
        fitted = train_fold(
            data,
            train,
            val,
            settings,
            seed=self.seed + fold,
            device=self.device,
            checkpoints=self.checkpoints,
        )
        return fitted.best.val_loss


@functools.lru_cache(maxsize=1)  # large, and most trials read the same
def load_training(folder: Path, sha256: str, streams: tuple[str, ...]) -> Sequences:
    """Read the clips that training may use; IntegrityError if others come or the cache changed."""
    cache = Cache(folder, "embed")
    if cache.sha256 != sha256:
        raise IntegrityError(f"{folder} was made anew meanwhile", "give a new run folder")
    data = load_sequences(cache, streams, ("train", "val"))
    for clip in data.clips:
        if clip.split in UNSEEN:
            raise IntegrityError(
                f"clip {clip.id} of the {clip.split} split of {folder} came to training",
                "this is a bug; please report it",
            )
    return data


@dataclass(frozen=True)
class FoldResult:
    """Result of some settings on one fold."""

    loss: float
    seconds: float
    failure: str = ""  # why there is no loss


def run_fold(objective: Objective, settings: TrainingSettings, fold: int) -> FoldResult:
    """Compute the loss of settings on one fold."""
    begin = time.monotonic()
    try:
        loss = objective(settings, fold)
    except FAILURES as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        return FoldResult(math.nan, time.monotonic() - begin, first_line[:200])
    failure = "" if loss < MAX_LOSS else f"the loss of fold {fold + 1} is {loss:.3g}"
    return FoldResult(loss, time.monotonic() - begin, failure)


def trial_result(
    results: Sequence[FoldResult], finished: Losses, n_folds: int
) -> TrialResult | None:
    """Return the result of a trial as soon as its first folds determine it, else None."""
    losses: list[float] = []
    seconds = 0.0
    for result in results:
        seconds += result.seconds
        if result.failure:
            return TrialResult(tuple(losses), f"{FAILED}: {result.failure}", seconds)
        losses.append(result.loss)
        if is_hopeless(losses, finished):
            return TrialResult(tuple(losses), STOPPED, seconds)
    return TrialResult(tuple(losses), OK, seconds) if len(losses) == n_folds else None


def is_hopeless(losses: Sequence[float], finished: Losses) -> bool:
    """Check whether the remaining folds of a trial could not make it the best.

    It is worse than the median, and farther from the best than folds scatter. That scatter is what
    remains of the finished losses (N, K) without the mean of each trial and of each fold.
    """
    if len(finished) < MIN_FINISHED:
        return False
    n, n_folds = finished.shape
    if len(losses) >= n_folds:
        return False
    means = finished.mean(1)
    residuals = finished - means[:, None] - finished.mean(0) + finished.mean()  # (N, K)
    variance = np.sum(residuals**2) / ((n - 1) * (n_folds - 1))
    margin = STOP_MARGIN * np.sqrt(variance * (1 / len(losses) - 1 / n_folds))
    estimate = corrected_loss(losses, finished)
    return bool(estimate > np.median(means) and estimate - margin > means.min())


def corrected_loss(losses: Sequence[float], finished: Losses) -> float:
    """Estimate the loss of a trial on all folds from its first folds.

    Folds differ in difficulty, so each loss counts by its difference from the mean on that fold.
    """
    fold_means = finished[:, : len(losses)].mean(0)
    return float(np.mean(np.asarray(losses) - fold_means) + finished.mean())


def append_trial(log: Path, space: Sequence[Dimension], n_folds: int, trial: Trial) -> None:
    """Append a row to a log; ``val_loss`` is empty unless all folds succeeded."""
    result = trial.result
    losses = [*result.losses, *[""] * (n_folds - len(result.losses))]
    loss = result.loss if result.status == OK else ""
    start = [trial.number + 1, trial.source, result.status]
    lines = [csv_line([*start, *trial.point, loss, *losses, f"{result.seconds:.1f}"])]
    if not log.exists():
        names = [dimension.name for dimension in space]
        folds = [f"fold_{n + 1}" for n in range(n_folds)]
        header = ["trial", "from", "status", *names, "val_loss", *folds, "seconds"]
        lines.insert(0, csv_line(header))
    with log.open("ab") as file:
        file.writelines(lines)


def read_trials(log: Path, space: Sequence[Dimension], n_folds: int) -> dict[int, Trial]:
    """Read the log of a search, and remove a last line that was not written completely."""
    if not log.is_file():
        return {}
    end = end_of_lines(log, quoted=True)
    if not end:
        log.unlink()
        return {}
    trials = {}
    for row in read_csv(log)[: None if end == log.stat().st_size else -1]:
        try:
            folds = [row[f"fold_{n + 1}"] for n in range(n_folds)]
            losses = tuple(float(text) for text in folds if text)
            status = row["status"]
            if status not in (OK, STOPPED) and not status.startswith(FAILED):
                raise ValueError(f"status {status}")
            if status == OK and len(losses) < n_folds:
                raise ValueError("a fold is missing")
            number = int(row["trial"]) - 1
            point = [parse_value(row[dimension.name], dimension) for dimension in space]
            result = TrialResult(losses, status, float(row["seconds"]))
            trials[number] = Trial(number, row["from"], point, result)
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                f"{log} is not a log of this search: {error}", "give another run folder"
            ) from error
    os.truncate(log, end)
    return trials


def best_of_log(log: Path, start: TrainingSettings) -> list[TrainingSettings]:
    """Return the best settings of a search, which may have had another space.

    OSError, KeyError or ValueError if the file is not a log.
    """
    succeeded = [row for row in read_csv(log) if row["status"] == OK]
    succeeded.sort(key=lambda row: float(row["val_loss"]))
    if not succeeded:
        raise ValueError("no trial went well")
    return [parse_settings(row, start) for row in succeeded[:MAX_WARM_STARTS]]
