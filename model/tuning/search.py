"""Choosing settings by Gaussian processes (scikit-optimize), on validation folds only."""

import itertools
import math
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skopt
from skopt.sampler import Lhs
from skopt.space import Dimension, Space
from threadpoolctl import threadpool_limits

from model.settings import TrainingSettings
from model.tuning.space import Point, plain, to_point, to_settings
from model.tuning.trials import (
    FAILED,
    OK,
    FoldResult,
    Objective,
    Trial,
    append_trial,
    estimated_losses,
    finished_losses,
    outcome_of,
    read_trials,
    run_fold,
)
from pipeline.common.errors import NothingUsable, Rejected
from pipeline.workers.local import Limits, LocalPool

INITIAL = 4  # trials before the Gaussian process chooses: the start and some spread out
UNLIMITED = Limits(seconds=math.inf, n_bytes=sys.maxsize)


def tune(
    objective: Objective,
    n_trials: int,
    space: Sequence[Dimension],
    log: Path,
    *,
    n_folds: int,
    start: TrainingSettings,
    warm: Sequence[TrainingSettings] = (),
    seed: int = 0,
    jobs: int = 1,
    seconds: float | None = None,
    progress: Callable[[Trial], object] = lambda trial: None,
) -> TrainingSettings:
    """Minimise the mean over folds of an objective.

    With several jobs a trial is chosen while as many before it still run; none of what comes of
    those counts for it, even if it is there already. So what a trial tries, and when it is given
    up, follows from the seed and earlier trials: a search that was stopped goes on exactly as if it
    had not been.

    Args:
        objective: the validation loss of some settings on a fold; it must never have seen test
            videos. It can be pickled if ``jobs`` is more than 1.
        n_trials: in all, those in ``log`` included.
        space: of `model.tuning.space.search_space`.
        log: a CSV file with one row per trial, appended as each ends. If it is there, its trials
            are taken over.
        n_folds: of the objective.
        start: settings that are not tuned; the nearest point of the space is tried early.
        warm: settings whose nearest points are tried before all others.
        seed: of the search.
        jobs: processes that train folds side by side; with one it is this process.
        seconds: after which no trial starts any more, once one went well.
        progress: called with each trial that ends, and at first with those of the log.

    Returns:
        the best settings of those that ended well on all folds.

    Raises:
        SettingsError: ``log`` is not a log of this search.
        NothingUsable: every trial failed.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    first = _first_points(space, start, warm, seed)
    done = read_trials(log, space, n_folds)
    for trial in done.values():
        progress(trial)
    chosen: list[tuple[str, Point]] = []  # of each trial, in their order
    running: dict[int, dict[int, FoldResult]] = {}  # trial → fold → what came of it
    waiting: deque[_Fold] = deque()

    def known(number: int) -> list[Trial] | None:
        """The trials that one may learn from; None if one of them still runs."""
        earlier = number - jobs if jobs > 1 else number
        n = max(earlier, len(first) if number >= len(first) else 0)
        return [done[k] for k in range(n)] if all(k in done for k in range(n)) else None

    def begin() -> None:
        """Let as many trials begin as may."""
        while (number := len(chosen)) < n_trials and (before := known(number)) is not None:
            if number in done:
                chosen.append((done[number].source, done[number].point))
                continue
            if time.monotonic() > deadline and _best(done) is not None:
                return
            chosen.append(
                first[number]
                if number < len(first)
                else _ask(space, before, chosen[len(before) :], n_folds, seed)
            )
            running[number] = {}
            waiting.append(_Fold(number, 0, to_settings(chosen[number][1], space, start)))

    begin()
    with LocalPool(jobs, UNLIMITED) as pool:
        run = pool.run if jobs > 1 else _one_by_one
        for item, result in run(partial(_run_fold, objective), waiting):
            if item.number not in running:  # decided meanwhile
                continue
            if isinstance(result, Rejected):
                result = FoldResult(math.nan, 0.0, f"its process died ({result.detail})")
            results = running[item.number]
            results[item.fold] = result
            in_order = [
                results[n] for n in itertools.takewhile(results.__contains__, range(n_folds))
            ]
            finished = finished_losses(known(item.number) or [], n_folds)
            outcome = outcome_of(in_order, finished)
            if outcome is None and item.fold == 0:  # it will probably run on all
                others = [item._replace(fold=fold) for fold in range(1, n_folds)]
                _put_in_order(waiting, [*waiting, *others])
            elif outcome is not None:
                del running[item.number]
                _put_in_order(waiting, [one for one in waiting if one.number != item.number])
                trial = Trial(item.number, *chosen[item.number], outcome)
                append_trial(log, space, n_folds, trial)
                done[item.number] = trial
                progress(trial)
                begin()
    best = _best(done)
    if best is None:
        raise NothingUsable(
            f"all {len(done)} trials failed; the last: {done[max(done)].outcome.status}",
            f"{log} has the reason of each; change the settings that cause it, and give a new "
            "run folder",
        )
    return to_settings(best.point, space, start)


def _best(done: dict[int, Trial]) -> Trial | None:
    well = [done[n] for n in sorted(done) if done[n].outcome.status == OK]
    return min(well, key=lambda trial: trial.outcome.loss, default=None)


def _first_points(
    space: Sequence[Dimension],
    start: TrainingSettings,
    warm: Sequence[TrainingSettings],
    seed: int,
) -> list[tuple[str, Point]]:
    """What is tried before there is anything to learn from, each with where it comes from."""
    known = [("warm start", to_point(settings, space)) for settings in warm]
    known.append(("start", to_point(start, space)))
    points: list[tuple[str, Point]] = []
    for source, point in known:
        if all(point != other for _, other in points):
            points.append((source, point))
    spread = Lhs().generate(list(space), INITIAL - 1, random_state=seed)
    return points + [("spread", plain(point)) for point in spread]


def _ask(
    space: Sequence[Dimension],
    trials: Sequence[Trial],
    pending: Sequence[tuple[str, Point]],
    n_folds: int,
    seed: int,
) -> tuple[str, Point]:
    """A point, given all that is known, and where it comes from.

    Args:
        space: of the search.
        trials: that have ended, the first ones.
        pending: the trials that come between them and this one: taken to be as good as the best.
        n_folds: of each trial.
        seed: of the search.
    """
    number = len(trials) + len(pending)
    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if all(trial.outcome.status.startswith(FAILED) for trial in trials):
        return "spread", plain(Space(space).rvs(1, random_state=state)[0])
    optimiser = fitted_process(space, trials, n_folds, state, [point for _, point in pending])
    with _few_threads(), warnings.catch_warnings():  # of a random point in place of a repetition
        warnings.simplefilter("ignore", UserWarning)
        return "gp", plain(optimiser.ask())


def fitted_process(
    space: Sequence[Dimension],
    trials: Sequence[Trial],
    n_folds: int,
    seed: int,
    pending: Sequence[Point] = (),
) -> skopt.Optimizer:
    """An optimiser that was told of trials, at least one of which went well.

    It is made anew for every point, because what is known of a stopped trial changes as others end.
    It is told that pending points are as good as the best: the constant liar of Ginsbourger et al.,
    2010.
    """
    optimiser = skopt.Optimizer(
        list(space), "GP", n_initial_points=0, acq_func="EI", random_state=seed
    )
    losses = estimated_losses(trials, n_folds)
    points = [*(trial.point for trial in trials), *pending]
    with _few_threads():
        optimiser.tell(points, losses + [min(losses)] * len(pending))
    return optimiser


def _few_threads() -> AbstractContextManager[object]:
    """Over so few trials a Gaussian process is many tiny steps: threads wait for one another."""
    return threadpool_limits(limits=1, user_api="blas")  # type: ignore[no-any-return]


class _Fold(NamedTuple):
    """One fold of a trial, to be run."""

    number: int  # of the trial
    fold: int
    settings: TrainingSettings


def _run_fold(objective: Objective, item: _Fold) -> FoldResult:
    return run_fold(objective, item.settings, item.fold)


def _one_by_one(
    task: Callable[[_Fold], FoldResult], waiting: deque[_Fold]
) -> Iterator[tuple[_Fold, FoldResult]]:
    """As `LocalPool.run`, in this process."""
    while waiting:
        item = waiting.popleft()
        yield item, task(item)


def _put_in_order(waiting: deque[_Fold], items: Iterable[_Fold]) -> None:
    """Let these wait and no others, earlier trials first: what becomes of them is waited for."""
    ordered = sorted(items, key=lambda item: item[:2])
    waiting.clear()
    waiting.extend(ordered)
