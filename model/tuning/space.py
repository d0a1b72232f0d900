"""Search space of tuning, and conversion between settings and its points."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from skopt.space import Categorical, Dimension, Integer, Real

from model.settings import FUSIONS, HEADS, POOLINGS, Scope, TrainingSettings

Point = list[Any]  # a value for each dimension

MAX_SEQUENCE_LENGTH = 128  # flow maps; the time of an epoch grows with it
LOG2 = "log2_"  # prefix of a dimension that is the logarithm of a setting
STREAM_SETS = (
    "flow", "motion", "flow+motion", "frames", "flow+frames", "flow+frames+motion",
    "trajectory", "flow+trajectory", "flow+frames+motion+trajectory",
)  # fmt: skip


def search_space(
    n_steps: int, held_streams: Sequence[str], *, scope: Scope = "architecture"
) -> list[Dimension]:
    """Return the dimensions to search, without those that have one value only."""
    space: list[Dimension] = [
        Real(1e-4, 1e-2, prior="log-uniform", name="learning_rate"),
        Integer(2, 5, name="log2_batch_size"),
        Real(1e-5, 1e-1, prior="log-uniform", name="weight_decay"),
        Real(0.0, 0.6, name="dropout"),
        Integer(4, 7, name="log2_hidden"),
    ]
    longest = min(n_steps, MAX_SEQUENCE_LENGTH)
    shortest = max(2, round(longest / 4))
    if shortest < longest:
        space.append(Integer(shortest, longest, name="sequence_length"))
    if scope == "training":
        return space
    held = set(held_streams)
    streams = [choice for choice in STREAM_SETS if set(choice.split("+")) <= held]
    space += [
        Integer(1, 2, name="layers"),
        Categorical([False, True], name="bidirectional"),
        Categorical(POOLINGS, name="pooling"),
        Categorical(HEADS, name="head"),
    ]
    if len(streams) > 1:
        space.append(Categorical(streams, name="streams"))
    if any("+" in choice for choice in streams):
        space.append(Categorical(FUSIONS, name="fusion"))
    return space


def to_point(settings: TrainingSettings, space: Sequence[Dimension]) -> Point:
    """Return the point of the space nearest to settings."""
    values = dataclasses.asdict(settings) | {
        "log2_hidden": round(math.log2(settings.hidden)),
        "log2_batch_size": round(math.log2(settings.batch_size)),
        "streams": "+".join(settings.streams),
    }
    return [_nearest(values[dimension.name], dimension) for dimension in space]


def _nearest(value: Any, dimension: Dimension) -> Any:
    if not isinstance(dimension, Categorical):
        return min(max(value, dimension.low), dimension.high)
    if value in dimension.categories:
        return value
    parts = set(str(value).split("+"))  # of streams: the choice that differs in the fewest
    return min(dimension.categories, key=lambda choice: len(parts ^ set(str(choice).split("+"))))


def to_settings(
    point: Point, space: Sequence[Dimension], start: TrainingSettings
) -> TrainingSettings:
    """Return the settings of a point; ``start`` has those that are not tuned."""
    values: dict[str, Any] = {}
    for dimension, value in zip(space, point, strict=True):
        name = dimension.name.removeprefix(LOG2)
        if name == "streams":
            values[name] = tuple(value.split("+"))
        else:
            values[name] = value if name == dimension.name else 2**value
    return dataclasses.replace(start, **values)


def to_builtin(point: Point) -> Point:
    """Convert the NumPy scalars of a point to Python's types."""
    return [value.item() if hasattr(value, "item") else value for value in point]


def parse_value(text: str, dimension: Dimension) -> Any:
    """Parse a value of a log; ValueError if it is outside the dimension."""
    if isinstance(dimension, Categorical):
        value: Any = {str(choice): choice for choice in dimension.categories}.get(text)
    else:
        value = float(text) if isinstance(dimension, Real) else int(text)
    if value is None or value not in dimension:
        raise ValueError(f"{dimension.name} {text} is outside {dimension}")
    return value


def parse_settings(row: Mapping[str, str], start: TrainingSettings) -> TrainingSettings:
    """Parse a row of a log of any search; ``start`` has the settings that it did not tune."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(TrainingSettings):
        logarithm, text = row.get(LOG2 + field.name), row.get(field.name)
        kind = type(getattr(start, field.name))
        if logarithm:
            values[field.name] = 2 ** int(logarithm)
        elif text and kind is tuple:
            values[field.name] = tuple(text.split("+"))
        elif text:
            values[field.name] = text == "True" if kind is bool else kind(text)
    return dataclasses.replace(start, **values)
