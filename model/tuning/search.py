"""Search for settings by Gaussian processes (scikit-optimize), on validation folds only."""

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
from model.tuning.space import Point, to_builtin, to_point, to_settings
from model.tuning.trials import (
    FAILED,
    OK,
    FoldResult,
    Objective,
    Trial,
    append_trial,
    estimated_losses,
    finished_losses,
    read_trials,
    run_fold,
    trial_result,
)
from pipeline.common.errors import NothingUsable, Rejected
from pipeline.workers.local import Limits, LocalPool

N_INITIAL = 4  # trials before the Gaussian process chooses
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
    progress: Callable[[], object] = lambda: None,
) -> tuple[TrainingSettings, list[Trial]]:
    """Minimise the mean of an objective over folds; return the best settings and all trials.

    With several jobs a trial is chosen while the ``jobs`` trials before it may still run. It never
    learns from those, even if they have ended. So what a trial tries, and whether it is stopped
    early, follows from the seed and earlier trials: an interrupted search resumes exactly.

    ``start`` has the settings that are not tuned; its nearest point in the space is tried early,
    those of ``warm`` first. ``log`` is a CSV file, appended as each trial ends; ``n_trials`` counts
    those in it, and ``progress`` is called for each. After ``seconds`` no trial starts, once one
    has succeeded. With one job all folds run in this process, else the objective must be picklable.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    first = _first_points(space, start, warm, seed)
    ended = read_trials(log, space, n_folds)
    for _ in ended:
        progress()
    chosen: list[tuple[str, Point]] = []  # source and point of each trial
    running: dict[int, dict[int, FoldResult]] = {}  # trial → fold → result
    queue: deque[_Fold] = deque()

    def earlier_trials(number: int) -> list[Trial] | None:
        """Return the trials that a trial may learn from; None if one of them still runs."""
        n = number - jobs if jobs > 1 else number
        n = max(n, len(first) if number >= len(first) else 0)
        return [ended[k] for k in range(n)] if all(k in ended for k in range(n)) else None

    def start_trials() -> None:
        while (number := len(chosen)) < n_trials:
            earlier = earlier_trials(number)
            if earlier is None:
                return
            if number in ended:
                chosen.append((ended[number].source, ended[number].point))
                continue
            if time.monotonic() > deadline and _best(ended) is not None:
                return
            chosen.append(
                first[number]
                if number < len(first)
                else _ask(space, earlier, chosen[len(earlier) :], seed)
            )
            running[number] = {}
            queue.append(_Fold(number, 0, to_settings(chosen[number][1], space, start)))

    start_trials()
    with LocalPool(jobs, UNLIMITED) as pool:
        run = pool.run if jobs > 1 else _run_here
        for item, outcome in run(partial(_run_fold, objective), queue):
            if item.number not in running:  # its trial ended meanwhile
                continue
            if isinstance(outcome, Rejected):
                outcome = FoldResult(math.nan, 0.0, f"its process died ({outcome.detail})")
            results = running[item.number]
            results[item.fold] = outcome
            first_results = [
                results[n] for n in itertools.takewhile(results.__contains__, range(n_folds))
            ]
            finished = finished_losses(earlier_trials(item.number) or [])
            result = trial_result(first_results, finished, n_folds)
            if result is None and item.fold == 0:  # it will probably run on all folds
                others = [item._replace(fold=fold) for fold in range(1, n_folds)]
                _refill(queue, [*queue, *others])
            elif result is not None:
                del running[item.number]
                _refill(queue, [waiting for waiting in queue if waiting.number != item.number])
                trial = Trial(item.number, *chosen[item.number], result)
                append_trial(log, space, n_folds, trial)
                ended[item.number] = trial
                progress()
                start_trials()
    best = _best(ended)
    if best is None:
        raise NothingUsable(
            f"all {len(ended)} trials failed; the last: {ended[max(ended)].result.status}",
            f"{log} has the reason of each; change the settings that cause it, and give a new "
            "run folder",
        )
    return to_settings(best.point, space, start), [ended[n] for n in sorted(ended)]


def _best(ended: dict[int, Trial]) -> Trial | None:
    succeeded = [ended[n] for n in sorted(ended) if ended[n].result.status == OK]
    return min(succeeded, key=lambda trial: trial.result.loss, default=None)


def _first_points(
    space: Sequence[Dimension],
    start: TrainingSettings,
    warm: Sequence[TrainingSettings],
    seed: int,
) -> list[tuple[str, Point]]:
    """Return source and point of the trials before the Gaussian process chooses."""
    given = [("warm start", to_point(settings, space)) for settings in warm]
    given.append(("start", to_point(start, space)))
    points: list[tuple[str, Point]] = []
    for source, point in given:
        if all(point != other for _, other in points):
            points.append((source, point))
    spread = Lhs().generate(list(space), N_INITIAL - 1, random_state=seed)
    return points + [("spread", to_builtin(point)) for point in spread]


def _ask(
    space: Sequence[Dimension],
    trials: Sequence[Trial],
    pending: Sequence[tuple[str, Point]],
    seed: int,
) -> tuple[str, Point]:
    """Choose source and point of the next trial, after ended trials and pending ones."""
    number = len(trials) + len(pending)
    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if all(trial.result.status.startswith(FAILED) for trial in trials):
        return "spread", to_builtin(Space(space).rvs(1, random_state=state)[0])
    optimiser = fitted_process(space, trials, state, [point for _, point in pending])
    with _one_blas_thread(), warnings.catch_warnings():
        # It replaces a point that was tried before by a random one, and warns.
        warnings.simplefilter("ignore", UserWarning)
        return "gp", to_builtin(optimiser.ask())


def fitted_process(
    space: Sequence[Dimension], trials: Sequence[Trial], seed: int, pending: Sequence[Point] = ()
) -> skopt.Optimizer:
    """Fit an optimiser to trials, at least one of which succeeded.

    It is fitted anew for every point, because estimates for stopped trials change. Pending points
    count as good as the best trial: the constant liar of Ginsbourger et al., 2010.
    """
    optimiser = skopt.Optimizer(
        list(space), "GP", n_initial_points=0, acq_func="EI", random_state=seed
    )
    losses = estimated_losses(trials)
    points = [*(trial.point for trial in trials), *pending]
    with _one_blas_thread():
        optimiser.tell(points, losses + [min(losses)] * len(pending))
    return optimiser


def _one_blas_thread() -> AbstractContextManager[object]:
    # with so few trials, threads mostly wait for one another
    return threadpool_limits(limits=1, user_api="blas")  # type: ignore[no-any-return]


class _Fold(NamedTuple):
    number: int  # of the trial
    fold: int
    settings: TrainingSettings


def _run_fold(objective: Objective, item: _Fold) -> FoldResult:
    return run_fold(objective, item.settings, item.fold)


def _run_here(
    task: Callable[[_Fold], FoldResult], queue: deque[_Fold]
) -> Iterator[tuple[_Fold, FoldResult]]:
    """Do the same as `LocalPool.run`, in this process."""
    while queue:
        item = queue.popleft()
        yield item, task(item)


def _refill(queue: deque[_Fold], items: Iterable[_Fold]) -> None:
    """Replace the contents of a queue; others wait for earlier trials, which come first."""
    ordered = sorted(items, key=lambda item: (item.number, item.fold))
    queue.clear()
    queue.extend(ordered)
