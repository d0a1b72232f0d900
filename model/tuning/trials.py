"""Trials of a search: how one runs, when one is hopeless, what is told of it, and their log."""

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
from model.training.train import Indices, cross_fit
from model.tuning.space import Point, parse_settings, parse_value
from pipeline.cache import Cache
from pipeline.common.csv_files import csv_line, read_csv
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import end_of_lines

Objective = Callable[[TrainingSettings, int], float]  # the validation loss on one fold, in nats
Losses = npt.NDArray[np.float64]

DIVERGED = 5.0  # nats; to say 1/2 of every clip costs 0.69
FEWEST = 4  # finished trials before one may be called hopeless
SURE = 2.0  # standard deviations
BEST = 3  # settings that another search begins with
# What torch and numpy raise when settings do not work; anything else is a fault of the program.
FAILURES = (RuntimeError, ValueError, ArithmeticError, MemoryError)
OK, STOPPED, FAILED = "ok", "stopped", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of some settings.

    Attributes:
        losses: of the folds that ran, in nats.
        status: ``ok``, ``stopped``, or ``failed: why``.
        seconds: that it took.
    """

    losses: tuple[float, ...]
    status: str
    seconds: float

    @property
    def loss(self) -> float:
        """The mean over all folds; NaN if not all of them ended well."""
        return float(np.mean(self.losses)) if self.status == OK else float("nan")


@dataclass(frozen=True)
class Trial:
    """One row of the log.

    Attributes:
        number: from 0 on.
        source: what chose the point: ``warm start``, ``start``, ``spread`` or ``gp``.
        point: of the space.
        outcome: of its settings.
    """

    number: int
    source: str
    point: Point
    outcome: Outcome


@dataclass(frozen=True)
class FoldResult:
    """What came of some settings on one fold.

    Attributes:
        loss: in nats.
        seconds: that it took.
        failure: why there is no loss, or nothing.
    """

    loss: float
    seconds: float
    failure: str = ""


def run_fold(objective: Objective, settings: TrainingSettings, fold: int) -> FoldResult:
    """Try settings on one fold."""
    clock = time.monotonic()
    try:
        loss = objective(settings, fold)
    except FAILURES as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        return FoldResult(math.nan, time.monotonic() - clock, first[:200])
    failure = "" if loss < DIVERGED else f"the loss of fold {fold + 1} is {loss:.3g}"
    return FoldResult(loss, time.monotonic() - clock, failure)


def outcome_of(results: Sequence[FoldResult], finished: Losses) -> Outcome | None:
    """What becomes of settings, by the first of their folds that decide; None if none does yet.

    Args:
        results: of the first folds, in their order.
        finished: (N, K), the losses of the trials that they have to be compared with.
    """
    losses: list[float] = []
    status, seconds = "", 0.0
    for result in results:
        seconds += result.seconds
        if result.failure:
            status = f"{FAILED}: {result.failure}"
            break
        losses.append(result.loss)
        if is_hopeless(losses, finished):
            status = STOPPED
            break
    if not status and len(losses) < finished.shape[1]:
        return None
    return Outcome(tuple(losses), status or OK, seconds)


def corrected_loss(losses: Sequence[float], finished: Losses) -> float:
    """What a trial would have got on all folds, judged by the first few.

    Folds differ in difficulty: a loss counts by how it differs from the mean on the same fold.

    Args:
        losses: of the first folds.
        finished: (N, K), of trials that ran on all K folds; N > 0.
    """
    seen = finished[:, : len(losses)]
    return float(np.mean(np.asarray(losses) - seen.mean(0)) + finished.mean())


def is_hopeless(losses: Sequence[float], finished: Losses) -> bool:
    """Whether the folds that a trial has not seen could not make it the best.

    It is worse than the median, and farther from the best than the scatter between folds explains:
    that of the finished trials, once how good each is and how hard each fold is are taken off.
    """
    n, folds = finished.shape
    seen = len(losses)
    if n < FEWEST or seen >= folds:
        return False
    means = finished.mean(1)
    rest = finished - means[:, None] - finished.mean(0) + finished.mean()  # (N, K)
    variance = np.sum(rest**2) / ((n - 1) * (folds - 1))
    margin = SURE * np.sqrt(variance * (1 / seen - 1 / folds))
    estimate = corrected_loss(losses, finished)
    return bool(estimate > np.median(means) and estimate - margin > means.min())


def finished_losses(trials: Sequence[Trial], n_folds: int) -> Losses:
    """(N, K) losses of the trials that went well on all folds."""
    rows = [trial.outcome.losses for trial in trials if trial.outcome.status == OK]
    return np.array(rows, np.float64).reshape(len(rows), n_folds)


def estimated_losses(trials: Sequence[Trial], n_folds: int) -> list[float]:
    """A loss for every trial: a stopped one is corrected, a failed one is as bad as the worst.

    At least one of them went well.
    """
    finished = finished_losses(trials, n_folds)
    worst = float(finished.mean(1).max())
    return [
        worst
        if trial.outcome.status.startswith(FAILED)
        else corrected_loss(trial.outcome.losses, finished)
        for trial in trials
    ]


def read_trials(log: Path, space: Sequence[Dimension], n_folds: int) -> dict[int, Trial]:
    """The trials of an earlier run by number; a last line that a kill cut short is removed.

    Raises:
        SettingsError: it is not a log of this search.
    """
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
            outcome = Outcome(losses, status, float(row["seconds"]))
            trials[number] = Trial(number, row["from"], point, outcome)
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                f"{log} is not a log of this search: {error}", "give another run folder"
            ) from error
    os.truncate(log, end)
    return trials


def best_of_log(log: Path, start: TrainingSettings) -> list[TrainingSettings]:
    """The three best settings in the log of any search; what was not tuned is as in ``start``.

    Raises:
        OSError, KeyError, ValueError: it cannot be read, or is no log.
    """
    well = [row for row in read_csv(log) if row["status"] == OK]
    well.sort(key=lambda row: float(row["val_loss"]))
    if not well:
        raise ValueError("no trial went well")
    return [parse_settings(row, start) for row in well[:BEST]]


def append_trial(log: Path, space: Sequence[Dimension], n_folds: int, trial: Trial) -> None:
    """Write one more row; a loss is given only where all folds ended well."""
    names = [dimension.name for dimension in space]
    folds = [f"fold_{n + 1}" for n in range(n_folds)]
    outcome = trial.outcome
    losses = [*outcome.losses, *[""] * (n_folds - len(outcome.losses))]
    loss = outcome.loss if outcome.status == OK else ""
    start = [trial.number + 1, trial.source, outcome.status]
    lines = [csv_line([*start, *trial.point, loss, *losses, f"{outcome.seconds:.1f}"])]
    if not log.exists():
        header = ["trial", "from", "status", *names, "val_loss", *folds, "seconds"]
        lines.insert(0, csv_line(header))
    with log.open("ab") as file:
        file.writelines(lines)


TRAINING = ("train", "val")  # splits


@dataclass(frozen=True)
class FoldLoss:
    """The validation loss of some settings on a fold, in nats.

    It travels to other processes as a path; each reads the clips when it first needs them, and
    keeps those of one choice of streams.

    Attributes:
        cache: folder of an embedding cache.
        sha256: of its index.
        folds: pairs of rows to train on and rows to validate on.
        seed: of training.
        device: as torch names it.
        splits: whose clips the rows are of.
        checkpoints: a folder in which what was trained is kept, as of `train_fold`.
    """

    cache: Path
    sha256: str
    folds: Sequence[tuple[Indices, Indices]]
    seed: int
    device: str
    splits: tuple[str, ...] = TRAINING
    checkpoints: Path | None = None

    def __call__(self, settings: TrainingSettings, fold: int) -> float:
        """Train one head as `cross_fit` over all folds trains it.

        Raises:
            IntegrityError: a clip of the test split or of the holdout is among the clips, or the
                cache is another than it was.
        """
        data = load_training(self.cache, self.sha256, settings.streams, self.splits)
        return cross_fit(
            data,
            [self.folds[fold]],
            settings,
            seed=self.seed + fold,
            device=self.device,
            checkpoints=self.checkpoints,
        ).loss


@functools.lru_cache(maxsize=1)  # large, and read by one trial after the other
def load_training(
    folder: Path, sha256: str, streams: tuple[str, ...], splits: tuple[str, ...] = TRAINING
) -> Sequences:
    """The clips of a cache that training may see.

    Raises:
        IntegrityError: as `FoldLoss.__call__`.
    """
    cache = Cache(folder, "embed")
    if cache.sha256 != sha256:
        raise IntegrityError(f"{folder} was made anew meanwhile", "give a new run folder")
    data = load_sequences(cache, streams, splits)
    for clip in data.clips:
        if clip.split in UNSEEN:
            raise IntegrityError(
                f"clip {clip.id} of the {clip.split} split of {folder} came to training",
                "this is a bug; please report it",
            )
    return data
