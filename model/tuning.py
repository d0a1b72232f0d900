"""Choosing training settings by Gaussian processes (scikit-optimize), on validation folds only."""

import csv
import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skopt
from skopt.space import Categorical, Dimension, Integer, Real

from model.training import TrainingSettings
from pipeline.errors import SettingsError
from pipeline.files import Row, read_csv

INITIAL = 4  # trials before the Gaussian process chooses: the start and some spread out
WORST = 10.0  # nats; told of a trial that diverged, which the process cannot digest


def search_space(n_steps: int) -> list[Dimension]:
    """What is tuned, for clips of ``n_steps`` flow maps."""
    lengths = sorted({max(2, round(n_steps * share)) for share in (0.25, 0.5, 1.0)})
    return [
        Real(1e-4, 1e-2, prior="log-uniform", name="learning_rate"),
        Categorical([4, 8, 16], name="batch_size"),
        Categorical(lengths, name="sequence_length"),
        Real(1e-5, 1e-1, prior="log-uniform", name="weight_decay"),
        Real(0.0, 0.6, name="dropout"),
        Integer(4, 7, name="log2_hidden"),
    ]


def tune(
    objective: Callable[[TrainingSettings], float],
    n_trials: int,
    n_steps: int,
    log: Path,
    *,
    start: TrainingSettings,
    seed: int = 0,
) -> TrainingSettings:
    """Minimise an objective over `search_space`.

    Args:
        objective: the validation loss of some settings; it must never have seen test videos.
        n_trials: in all, those in ``log`` included.
        n_steps: flow maps per clip.
        log: a CSV file with one row per trial, appended as each ends. If it is there, its trials
            are taken over, and the search goes on exactly as if it had not been stopped.
        start: settings that are not tuned; the nearest point of the space is tried first.
        seed: of the search.

    Returns:
        the best settings.

    Raises:
        SettingsError: ``log`` is not a log of this search.
    """
    space = search_space(n_steps)
    names = [dimension.name for dimension in space]
    optimiser = skopt.Optimizer(
        space, "GP", n_initial_points=INITIAL, initial_point_generator="lhs", random_state=seed
    )
    done: list[tuple[float, TrainingSettings]] = []

    def following() -> list[Any]:
        return optimiser.ask() if done else _nearest(start, space)

    for row in _logged(log):
        try:
            point = [_parse(row[d.name], d) for d in space]
            loss = float(row["val_loss"])
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                f"{log} is not a log of this search: {error}", "give another run folder"
            ) from error
        following()  # moves the random state on as the first run did
        optimiser.tell(point, loss if loss < WORST else WORST)
        done.append((loss, _settings(point, names, start)))
    while len(done) < n_trials:
        point = following()
        settings = _settings(point, names, start)
        loss = objective(settings)
        optimiser.tell(point, loss if loss < WORST else WORST)
        done.append((loss, settings))
        _append(log, ["trial", *names, "val_loss"], [len(done), *point, loss])
    return min(done, key=lambda trial: trial[0])[1]


def _nearest(start: TrainingSettings, space: list[Dimension]) -> list[Any]:
    """The point of the space that is nearest to the settings before tuning."""
    values = dataclasses.asdict(start) | {"log2_hidden": round(math.log2(start.hidden))}
    point: list[Any] = []
    for dimension in space:
        value = values[dimension.name]
        if isinstance(dimension, Categorical):
            point.append(min(dimension.categories, key=lambda choice: abs(choice - value)))
        else:
            point.append(min(max(value, dimension.low), dimension.high))
    return point


def _logged(log: Path) -> list[Row]:
    """The trials of an earlier run; a last line that a kill cut short is removed."""
    if not log.is_file():
        return []
    whole = log.read_bytes().rpartition(b"\n")[0]
    if not whole:
        log.unlink()
        return []
    os.truncate(log, len(whole) + 1)
    return read_csv(log)


def _settings(point: list[Any], names: list[str], start: TrainingSettings) -> TrainingSettings:
    values = dict(zip(names, point, strict=True))
    values["hidden"] = 2 ** int(values.pop("log2_hidden"))
    for name in ("batch_size", "sequence_length"):
        values[name] = int(values[name])
    return dataclasses.replace(start, **values)


def _parse(text: str, dimension: Dimension) -> float | int:
    value = float(text) if isinstance(dimension, Real) else int(text)
    if value not in dimension:
        raise ValueError(f"{dimension.name} {text} is outside {dimension}")
    return value


def _append(path: Path, header: list[str], row: list[Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(header)
        writer.writerow(row)
