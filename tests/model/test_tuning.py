"""The search for training settings: its log, and that it goes on where it was stopped."""

import csv
import dataclasses

import pytest

from model import tuning
from model.training import TrainingSettings
from model.tuning import search_space, tune
from pipeline.errors import SettingsError

STEPS = 20
TRIALS = 4


@pytest.fixture(autouse=True)
def _few_random_points(monkeypatch):
    monkeypatch.setattr(tuning, "INITIAL", 2)  # so that the Gaussian process has its say


def hills(settings: TrainingSettings) -> float:
    return (settings.dropout - 0.2) ** 2 + abs(settings.hidden - 64) / 100 + settings.weight_decay


def rows(log):
    with log.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    log = tmp_path_factory.mktemp("tuning") / "trials.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "INITIAL", 2)
        best = tune(hills, TRIALS, STEPS, log, start=TrainingSettings(), seed=1)
    return log, best


def test_the_log_has_one_row_per_trial_with_all_that_was_chosen(undisturbed):
    log, _ = undisturbed
    found = rows(log)
    assert [row["trial"] for row in found] == [str(n + 1) for n in range(TRIALS)]
    assert set(found[0]) == {
        "trial", "learning_rate", "batch_size", "sequence_length", "weight_decay", "dropout",
        "log2_hidden", "val_loss",
    }  # fmt: skip
    for row in found:
        settings = TrainingSettings(
            dropout=float(row["dropout"]),
            hidden=2 ** int(row["log2_hidden"]),
            weight_decay=float(row["weight_decay"]),
        )
        assert float(row["val_loss"]) == hills(settings)


def test_an_ended_search_tries_nothing_and_gives_the_best_with_the_rest_as_at_the_start(
    undisturbed,
):
    log, best = undisturbed
    least = min(rows(log), key=lambda row: float(row["val_loss"]))
    assert best.dropout == float(least["dropout"])
    assert best.learning_rate == float(least["learning_rate"])
    start = TrainingSettings(layers=2, bidirectional=True, pooling="last", max_epochs=3)

    def never(settings):
        raise AssertionError("another trial")

    taken = tune(never, TRIALS, STEPS, log, start=start, seed=1)
    tuned = ("learning_rate", "batch_size", "sequence_length", "weight_decay", "dropout", "hidden")
    expected = dataclasses.replace(start, **{name: getattr(best, name) for name in tuned})
    assert taken == expected


def test_a_trial_is_logged_as_soon_as_it_ends(tmp_path):
    log, lines = tmp_path / "trials.csv", []

    def look(settings):
        lines.append(len(log.read_text().splitlines()) if log.exists() else 0)
        return hills(settings)

    tune(look, 3, STEPS, log, start=TrainingSettings())
    assert lines == [0, 2, 3]  # with the header


def test_a_stopped_search_goes_on_as_if_it_had_not_been(undisturbed, tmp_path):
    log, tried, stopped_after = tmp_path / "trials.csv", [], 3

    def stop(settings):
        if len(tried) == stopped_after:
            raise KeyboardInterrupt
        tried.append(settings)
        return hills(settings)

    with pytest.raises(KeyboardInterrupt):
        tune(stop, TRIALS, STEPS, log, start=TrainingSettings(), seed=1)
    assert len(rows(log)) == stopped_after
    again = []

    def go_on(settings):
        again.append(settings)
        return hills(settings)

    best = tune(go_on, TRIALS, STEPS, log, start=TrainingSettings(), seed=1)
    assert len(again) == TRIALS - stopped_after, "a trial was done twice"
    assert log.read_bytes() == undisturbed[0].read_bytes()
    assert best == undisturbed[1]


def test_a_row_that_a_kill_cut_short_is_tried_again(undisturbed, tmp_path):
    log = tmp_path / "trials.csv"
    whole = undisturbed[0].read_bytes()
    lines = whole.splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:-5])
    tune(hills, TRIALS, STEPS, log, start=TrainingSettings(), seed=1)
    assert log.read_bytes() == whole


@pytest.mark.parametrize(
    "text",
    [
        "name,age\nann,3\n",
        "trial,learning_rate,batch_size,sequence_length,weight_decay,dropout,log2_hidden,val_loss\n"
        "1,0.001,7,20,0.001,0.1,5,0.7\n",  # no such batch size
        "trial,learning_rate,batch_size,sequence_length,weight_decay,dropout,log2_hidden,val_loss\n"
        "1,0.001,8,19,0.001,0.1,5,0.7\n",  # clips of another length
        "trial,learning_rate,batch_size,sequence_length,weight_decay,dropout,log2_hidden,val_loss\n"
        "1,much,8,20,0.001,0.1,5,0.7\n",
    ],
)
def test_a_foreign_log_is_refused_and_left_alone(text, tmp_path):
    log = tmp_path / "trials.csv"
    log.write_text(text)
    with pytest.raises(SettingsError, match=r"trials.csv is not a log of this search") as caught:
        tune(hills, 3, STEPS, log, start=TrainingSettings())
    assert caught.value.hint == "give another run folder"
    assert log.read_text() == text


@pytest.mark.parametrize("steps", [1, 2, 3, 300])
def test_sequence_lengths_are_shares_of_the_clip(steps):
    lengths = next(d for d in search_space(steps) if d.name == "sequence_length").categories
    assert max(lengths) == max(2, steps)
    assert min(lengths) >= 2
    assert len(set(lengths)) == len(lengths)
