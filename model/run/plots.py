"""Training, ROC, precision-recall, reliability and robustness plots as PNG."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve, roc_curve

from model.statistics.metrics import ECE_BINS, Metric
from model.training.train import Fold
from pipeline.common.files import write_whole

COLOURS = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
LINE_STYLES = ("-", "--", ":")  # so that curves on top of one another all show
TEXT_BOX = {"boxstyle": "square,pad=0.05", "color": "white"}
Curve = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]  # (V,) labels, probabilities


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all."""
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


def plot_training(folds: Sequence[Fold], path: Path, x: str = "epoch") -> None:
    """Plot losses and validation AUC over the history of each fold, and the best of it."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for n, fold in enumerate(folds):
        colour, history, best = COLOURS[n % len(COLOURS)], fold.history, fold.best_epoch
        left.plot([e.train_loss for e in history], color=colour, linestyle=":")
        left.plot([e.val_loss for e in history], color=colour, label=f"fold {n + 1}")
        left.plot(best, history[best].val_loss, "o", color=colour)
        right.plot([e.val_auc for e in history], color=colour, label=f"fold {n + 1}")
        right.plot(best, history[best].val_auc, "o", color=colour)
    left.set(xlabel=x, ylabel="loss", title="validation (line) and training (dots) loss")
    right.set(xlabel=x, ylabel="AUC", ylim=(-0.02, 1.02), title="validation AUC")
    left.legend(title="kept: •")
    save_figure(figure, path)


def plot_roc(
    curves: Mapping[str, Curve], path: Path, title: str, warnings: Sequence[str] = ()
) -> None:
    """Plot ROC curves of detectors on the same videos, below warnings."""
    figure, axes = _plot_lines(
        {name: roc_curve(*curve)[:2] for name, curve in curves.items()}, warnings
    )
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="real videos called fake", ylabel="fake videos found", title=f"ROC, {title}")
    axes.legend(loc="lower right")
    save_figure(figure, path)


def plot_precision_recall(
    curves: Mapping[str, Curve], path: Path, title: str, warnings: Sequence[str] = ()
) -> None:
    """Plot precision over recall of detectors on the same videos, below warnings."""
    lines = {name: precision_recall_curve(*curve)[1::-1] for name, curve in curves.items()}
    figure, axes = _plot_lines(lines, warnings)
    share = float(np.mean(next(iter(curves.values()))[0]))
    axes.axhline(share, color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xlabel="recall: fake videos found",
        ylabel="precision: of those called fake",
        ylim=(-0.02, 1.02),
        title=f"precision and recall, {title}",
    )
    axes.legend(loc="lower left")
    save_figure(figure, path)


def plot_reliability(curve: Curve, path: Path, title: str, warnings: Sequence[str] = ()) -> None:
    """Plot the share of fakes over the stated probability, with 95% binomial intervals."""
    labels, probabilities = curve
    bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
    figure, axes = _plot_lines({}, warnings)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    for b in np.unique(bins):
        fakes = labels[bins == b]
        low, high = binomtest(int(fakes.sum()), len(fakes)).proportion_ci(method="wilson")
        x = probabilities[bins == b].mean()
        axes.plot([x, x], [low, high], color=COLOURS[0])
        axes.plot(x, fakes.mean(), "o", color=COLOURS[0])
        axes.annotate(f"{len(fakes)}", (x, high), (0, 3), textcoords="offset points", ha="center")
    axes.set(
        xlabel="stated probability of being fake",
        ylabel="share of fakes, and how many videos",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.1),
        title=f"reliability, {title}",
    )
    save_figure(figure, path)


def plot_sweep(
    points: Mapping[str, tuple[Metric, Metric]],
    title: str,
    threshold: float,
    path: Path,
    warnings: Sequence[str] = (),
) -> None:
    """Plot AUC and accuracy with 95% intervals, one row per perturbation; no change comes first."""
    figure = Figure(figsize=(9, 1.6 + 0.3 * len(points)), layout="constrained")
    _write_warnings(figure, warnings, width=120)
    names = ("AUC", f"accuracy at the run's threshold, {threshold:.3f}")
    for column, axes in enumerate(figure.subplots(1, 2, sharey=True)):
        for row, metrics in enumerate(points.values()):
            metric = metrics[column]
            if metric.value is None:
                axes.annotate(
                    "undefined", (0.5, row), size=8, ha="center", va="center", bbox=TEXT_BOX
                )
                continue
            colour = COLOURS[column]
            if row == 0:
                axes.axvline(metric.value, color=colour, linewidth=0.8, linestyle="--")
            if metric.low is not None and metric.high is not None:
                axes.plot([metric.low, metric.high], [row, row], color=colour, linewidth=2)
            axes.plot(metric.value, row, "o", color=colour)
            axes.annotate(
                f"{metric.value:.2f}", (metric.value, row), (0, 7), size=8,
                textcoords="offset points", ha="center", bbox=TEXT_BOX,
            )  # fmt: skip
        axes.axvline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axes.grid(axis="y", alpha=0.2)
        axes.set(
            xlabel=names[column],
            title=title if column == 0 else "",
            xlim=(-0.06, 1.1),
            yticks=range(len(points)),
        )
        axes.set_yticklabels(points)
        axes.set_ylim(len(points) - 0.5, -0.8)
    save_figure(figure, path)


def _write_warnings(figure: Figure, warnings: Sequence[str], width: int) -> None:
    if warnings:
        text = "\n".join(textwrap.fill(warning, width) for warning in warnings)
        figure.suptitle(text, color="#c60", size=8)


def _plot_lines(lines: Mapping[str, Any], warnings: Sequence[str]) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    _write_warnings(figure, warnings, width=70)
    axes = figure.subplots()
    for n, (name, (x, y)) in enumerate(lines.items()):
        style = LINE_STYLES[n % len(LINE_STYLES)]
        axes.plot(x, y, color=COLOURS[n], linestyle=style, linewidth=2, label=name)
    return figure, axes
