"""Choosing settings by Gaussian processes (scikit-optimize), on validation folds only."""

import itertools
import math
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import skopt
from skopt.sampler import Lhs
from skopt.space import Dimension, Space
from threadpoolctl import threadpool_limits

from model.training import TrainingSettings
from model.tuning.space import Point, plain, to_point, to_settings
from model.tuning.trials import (
    FAILED,
    OK,
    FoldResult,
    Losses,
    Objective,
    Outcome,
    Trial,
    append_trial,
    estimated_losses,
    finished_losses,
    outcome_of,
    read_trials,
    run_fold,
    run_trial,
)
from pipeline.errors import NothingUsable, Rejected
from pipeline.workers import Limits, LocalPool

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

    Trials come in rounds of ``jobs``. What a round tries, and when it gives a trial up, follows
    from the seed and the trials of the rounds before it: a search that was stopped goes on exactly
    as if it had not been.

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
        jobs: trials that run side by side, in processes of their own if more than one.
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
    with LocalPool(jobs, UNLIMITED) as pool:
        while missing := [n for n in range(n_trials) if n not in done]:
            if time.monotonic() > deadline and _best(done) is not None:
                break
            begin = _round_of(missing[0], len(first), jobs)
            before = [done[n] for n in range(begin)]
            points = first[begin : begin + jobs] or _ask(space, before, n_folds, jobs, seed)
            chosen = {begin + n: point for n, point in enumerate(points) if begin + n in missing}
            tried = {n: to_settings(point, space, start) for n, (_, point) in chosen.items()}
            finished = finished_losses(before, n_folds)
            for number, outcome in _run(objective, finished, tried, pool):
                trial = Trial(number, *chosen[number], outcome)
                append_trial(log, space, n_folds, trial)
                done[number] = trial
                progress(trial)
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


def _round_of(number: int, n_first: int, jobs: int) -> int:
    """The number of the first trial in the round of a trial; no round is astride the first ones."""
    origin = 0 if number < n_first else n_first
    return number - (number - origin) % jobs


def _ask(
    space: Sequence[Dimension], trials: Sequence[Trial], n_folds: int, jobs: int, seed: int
) -> list[tuple[str, Point]]:
    """As many points as jobs, given all that is known."""
    state = int(np.random.SeedSequence([seed, len(trials)]).generate_state(1)[0])
    if all(trial.outcome.status.startswith(FAILED) for trial in trials):
        points = Space(space).rvs(jobs, random_state=state)
        return [("spread", plain(point)) for point in points]
    optimiser = fitted_process(space, trials, n_folds, state)
    lie = min(optimiser.yi)  # the constant liar of Ginsbourger et al., 2010
    asked: list[Point] = []
    with _few_threads(), warnings.catch_warnings():  # of a random point in place of a repetition
        warnings.simplefilter("ignore", UserWarning)
        while len(asked) < jobs:
            if asked:
                optimiser.tell(asked[-1], lie)
            asked.append(plain(optimiser.ask()))
    return [("gp", point) for point in asked]


def fitted_process(
    space: Sequence[Dimension], trials: Sequence[Trial], n_folds: int, seed: int
) -> skopt.Optimizer:
    """An optimiser that was told of trials, at least one of which went well.

    It is made anew for every round, because what is known of a stopped trial changes as others end.
    """
    optimiser = skopt.Optimizer(
        list(space), "GP", n_initial_points=0, acq_func="EI", random_state=seed
    )
    with _few_threads():
        optimiser.tell([trial.point for trial in trials], estimated_losses(trials, n_folds))
    return optimiser


def _few_threads() -> AbstractContextManager[object]:
    """Over so few trials a Gaussian process is many tiny steps: threads wait for one another."""
    return threadpool_limits(limits=1, user_api="blas")  # type: ignore[no-any-return]


def _run(
    objective: Objective, finished: Losses, tried: dict[int, TrainingSettings], pool: LocalPool
) -> Iterator[tuple[int, Outcome]]:
    """Run trials, one in this process or several in others, and give outcomes as they come."""
    if pool.slots == 1:
        for number, settings in tried.items():
            yield number, run_trial(objective, finished, settings)
        return
    # A trial that passed its first fold will probably run on all: the others wait side by side.
    waiting = deque((number, 0) for number in tried)
    results: dict[int, dict[int, FoldResult]] = {number: {} for number in tried}
    for (number, fold), result in pool.run(partial(_run_fold, objective, tried), waiting):
        if number not in results:  # decided meanwhile
            continue
        if isinstance(result, Rejected):
            result = FoldResult(math.nan, 0.0, f"its process died ({result.detail})")
        known = results[number]
        known[fold] = result
        first = [known[n] for n in itertools.takewhile(known.__contains__, itertools.count())]
        if outcome := outcome_of(first, finished):
            del results[number]
            for item in [item for item in waiting if item[0] == number]:
                waiting.remove(item)
            yield number, outcome
        elif fold == 0:
            waiting.extend((number, other) for other in range(1, finished.shape[1]))


def _run_fold(
    objective: Objective, tried: dict[int, TrainingSettings], item: tuple[int, int]
) -> FoldResult:
    number, fold = item
    return run_fold(objective, tried[number], fold)
