"""What a search may choose from."""

import dataclasses

import pytest

from model.settings import FUSIONS, HEADS, TrainingSettings
from model.tuning.space import MAX_SEQUENCE_LENGTH, STREAM_SETS, search_space, to_point, to_settings

STEPS = 20
SPACE = search_space(STEPS, ("flow", "motion"))
START = TrainingSettings(head="lstm", streams=("flow", "motion"))


@pytest.mark.parametrize("steps", [1, 2, 3, 300])
def test_sequence_lengths_are_within_the_clip(steps):
    lengths = [d for d in search_space(steps, ("flow",)) if d.name == "sequence_length"]
    assert len(lengths) == (steps > 2)
    for dimension in lengths:
        assert dimension.high == min(steps, MAX_SEQUENCE_LENGTH)
        assert dimension.low >= 2


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (("flow", "motion"), {"flow", "motion", "flow+motion"}),
        (("flow", "frames", "motion", "trajectory"), set(STREAM_SETS)),
        (("frames", "motion", "trajectory"), {"frames", "motion", "trajectory"}),
        (("frames", "motion"), {"frames", "motion"}),
        (("motion",), None),
    ],
)
def test_streams_are_chosen_among_those_that_the_cache_holds(held, expected):
    space = {dimension.name: dimension for dimension in search_space(STEPS, held)}
    choices = space["streams"].categories if "streams" in space else None
    assert (set(choices) if choices else None) == expected
    assert len(choices or ()) == len(expected or ()), "each once"


def test_fusion_is_chosen_where_there_can_be_two_streams():
    space = {dimension.name: dimension for dimension in SPACE}
    assert tuple(space["fusion"].categories) == FUSIONS
    late = dataclasses.replace(START, fusion="late")
    assert to_settings(to_point(late, SPACE), SPACE, START).fusion == "late"
    assert "fusion" not in {dimension.name for dimension in search_space(STEPS, ("flow",))}


def test_training_alone_leaves_the_architecture_as_it_is():
    start = TrainingSettings(head="gru", layers=2, pooling="last", streams=("flow",))
    space = search_space(STEPS, ("flow", "motion"), scope="training")
    settings = to_settings(to_point(START, space), space, start)
    assert settings == dataclasses.replace(
        start, sequence_length=STEPS, dropout=START.dropout, hidden=START.hidden
    )


def test_every_head_is_tried():
    space = search_space(STEPS, ("flow",))
    heads = next(dimension for dimension in space if dimension.name == "head")
    assert tuple(heads.categories) == HEADS
    point = to_point(dataclasses.replace(START, head="gru"), space)
    assert to_settings(point, space, START).head == "gru"


def test_settings_outside_the_space_become_its_nearest_point():
    settings = TrainingSettings(
        head="lstm",
        learning_rate=0.5,
        batch_size=100,
        sequence_length=999,
        hidden=12,
        streams=("frames", "flow"),
    )
    nearest = to_settings(to_point(settings, SPACE), SPACE, START)
    assert (nearest.learning_rate, nearest.batch_size) == (1e-2, 32)
    assert (nearest.sequence_length, nearest.hidden, nearest.streams) == (STEPS, 16, ("flow",))
