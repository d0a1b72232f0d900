"""Plots of a search: convergence and the influence of each setting, as a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from skopt.space import Categorical, Dimension, Real, Space

from model.run.plots import COLOURS, save_figure
from model.tuning.search import fitted_process
from model.tuning.space import Point
from model.tuning.trials import FAILED, OK, STOPPED, Losses, Trial, estimated_losses

N_SAMPLES = 250  # random points for the other settings
GRID_POINTS = 25  # values of a continuous dimension
COLUMNS = 4


def plot_tuning(trials: Sequence[Trial], space: Sequence[Dimension], path: Path) -> None:
    """Plot the loss of each trial, the best so far, and the loss expected over each setting."""
    rows = 1 + -(-len(space) // COLUMNS)
    figure = Figure(figsize=(11, 2.6 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, COLUMNS)
    _draw_convergence(figure.add_subplot(grid[0, :]), trials)
    curves = dependence(trials, space)
    limits = _limits([loss for _, loss in curves], estimated_losses(trials))
    by_influence = sorted(range(len(curves)), key=lambda n: -np.ptp(curves[n][1]))
    for n, which in enumerate(by_influence):
        axes = figure.add_subplot(grid[1 + n // COLUMNS, n % COLUMNS])
        _draw_dependence(axes, space[which], *curves[which])
        axes.set_ylim(limits)
        if n % COLUMNS == 0:
            axes.set_ylabel("expected loss")
        else:
            axes.tick_params(labelleft=False)
    save_figure(figure, path)


def dependence(trials: Sequence[Trial], space: Sequence[Dimension]) -> list[tuple[Point, Losses]]:
    """Return G values of each dimension and the expected losses (G,) in nats, others averaged."""
    process = fitted_process(space, trials, seed=0)
    others = Space(list(space)).rvs(N_SAMPLES, random_state=0)
    curves = []
    for n, dimension in enumerate(space):
        values = _values(dimension)
        points = [[*p[:n], value, *p[n + 1 :]] for value in values for p in others]
        loss = process.models[-1].predict(process.space.transform(points))
        curves.append((values, loss.reshape(len(values), N_SAMPLES).mean(1)))
    return curves


def _values(dimension: Dimension) -> Point:
    if isinstance(dimension, Categorical):
        return list(dimension.categories)
    if not isinstance(dimension, Real):
        count = min(GRID_POINTS, dimension.high - dimension.low + 1)
        return np.linspace(dimension.low, dimension.high, count).round().astype(int).tolist()
    spaced = np.geomspace if dimension.prior == "log-uniform" else np.linspace
    inner = spaced(dimension.low, dimension.high, GRID_POINTS)[1:-1].tolist()
    return [dimension.low, *inner, dimension.high]  # exact ends, inside the space


def _limits(curves: Sequence[Losses], trial_losses: Sequence[float]) -> tuple[float, float]:
    """Return limits for all panels, wide enough for a weak influence to look flat."""
    losses = np.concatenate(curves)
    half = max(0.55 * np.ptp(losses), 0.05 * np.ptp(trial_losses)) + 1e-6
    middle = (losses.min() + losses.max()) / 2
    return float(middle - half), float(middle + half)


def _draw_convergence(axes: Any, trials: Sequence[Trial]) -> None:
    numbers = np.array([trial.number + 1 for trial in trials])
    status = np.array([trial.result.status.split(":")[0] for trial in trials])
    losses = np.array(estimated_losses(trials))
    markers = {OK: ("o", COLOURS[0]), STOPPED: ("v", COLOURS[1]), FAILED: ("x", COLOURS[3])}
    labels = {OK: "ended", STOPPED: "stopped early (estimate)", FAILED: "failed (at the worst)"}
    for kind, (marker, colour) in markers.items():
        rows = status == kind
        if rows.any():
            axes.plot(numbers[rows], losses[rows], marker, color=colour, label=labels[kind])
    best = np.fmin.accumulate(np.where(status == OK, losses, np.nan))
    axes.step(numbers, best, where="post", color=COLOURS[0], label="best so far")
    axes.set(
        xlabel="trial",
        ylabel="validation loss",
        title="trials of tuning; below, the loss expected over each setting, others averaged",
    )
    axes.legend()


def _draw_dependence(axes: Any, dimension: Dimension, values: Point, loss: Losses) -> None:
    if isinstance(dimension, Categorical):
        axes.plot(range(len(values)), loss, "o", color=COLOURS[0])
        axes.set_xticks(
            range(len(values)),
            map(str, values),
            size=8,
            rotation=40,
            ha="right",
            rotation_mode="anchor",
        )
        axes.margins(x=0.2)
    else:
        axes.plot(values, loss, color=COLOURS[0])
        if dimension.name.startswith("log2_"):
            axes.set_xticks(values, [str(2**value) for value in values])
        elif len(values) < 6:
            axes.set_xticks(values)
        if getattr(dimension, "prior", "") == "log-uniform":
            axes.set_xscale("log")
    name = dimension.name.removeprefix("log2_").replace("_", " ")
    axes.set_title(f"{name}: {np.ptp(loss):.3f} nats", size=9)
