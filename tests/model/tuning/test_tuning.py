"""The search for training settings: what it tries, tells, gives up, logs, and goes on with."""

import csv
import dataclasses
import importlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from skopt.space import Categorical, Real

from model.fit import main as fit_command
from model.fitting import best_settings, fit, training_folds
from model.training import TrainingSettings, cross_fit
from model.tuning import search as search_module
from model.tuning import trials
from model.tuning.objective import FoldLoss, load_training
from model.tuning.plots import dependence, plot_tuning
from model.tuning.search import tune
from model.tuning.space import STREAM_SETS, search_space, to_point, to_settings
from model.tuning.trials import corrected_loss, is_hopeless, read_trials, run_trial
from pipeline.errors import IntegrityError, NothingUsable, SettingsError

STEPS = 20
SPACE = search_space(STEPS, ("flow", "motion"))
NARROW = [
    Real(0.0, 0.6, name="dropout"),
    Real(1e-5, 1e-1, prior="log-uniform", name="weight_decay"),
]
FOLDS = 3
TRIALS = 6
START = TrainingSettings()
NONE = np.zeros((0, FOLDS))


@pytest.fixture(autouse=True)
def _few_random_points(monkeypatch):
    monkeypatch.setattr(search_module, "INITIAL", 2)  # so that the Gaussian process has its say


def hills(settings, fold):
    slope = abs(settings.hidden - 64) / 100 + settings.weight_decay
    return 0.3 + (settings.dropout - 0.2) ** 2 + slope + 0.05 * fold


def narrow_hills(settings, fold):
    """Folds differ in difficulty, and each scatters besides, always alike."""
    scatter = math.sin(1e4 * settings.dropout + 1e5 * settings.weight_decay + fold)
    height = 2 * (settings.dropout - 0.2) ** 2 + 0.02 * (math.log10(settings.weight_decay) + 3) ** 2
    return 0.3 + height + (0.3, 0.0, 0.1)[fold] + 0.005 * scatter


# In a module of its own, which a process reads faster than this one.
DEADLY = """
import os, signal

def deadly(settings, fold):
    if settings.sequence_length < 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.3 + abs(settings.hidden - 64) / 100 + 0.05 * fold
"""


def search(objective, log, n_trials=TRIALS, **options):
    return tune(
        objective, n_trials, SPACE, log, **{"n_folds": FOLDS, "start": START, "seed": 1} | options
    )


def narrow_search(log, n_trials, seed=0):
    return tune(narrow_hills, n_trials, NARROW, log, n_folds=FOLDS, start=START, seed=seed)


def rows(log):
    with log.open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: int(row["trial"]))


def untimed(log):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows(log)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    log = tmp_path_factory.mktemp("tuning") / "trials.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "INITIAL", 2)
        best = search(hills, log)
    return log, best


# -------------------------------------------------------------------------------------- the space


@pytest.mark.parametrize("steps", [1, 2, 3, 300])
def test_sequence_lengths_are_within_the_clip(steps):
    lengths = [d for d in search_space(steps, ("flow",)) if d.name == "sequence_length"]
    assert len(lengths) == (steps > 2)
    for dimension in lengths:
        assert dimension.high == steps
        assert dimension.low >= 2


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (("flow", "motion"), {"flow", "motion", "flow+motion"}),
        (("flow", "frames", "motion"), set(STREAM_SETS)),
        (("frames", "motion"), {"frames", "motion"}),
        (("motion",), None),
    ],
)
def test_streams_are_chosen_among_those_that_the_cache_holds(held, expected):
    space = {dimension.name: dimension for dimension in search_space(STEPS, held)}
    assert (set(space["streams"].categories) if "streams" in space else None) == expected


def test_training_alone_leaves_the_architecture_as_it_is():
    start = TrainingSettings(head="gru", layers=2, pooling="last", streams=("flow",))
    space = search_space(STEPS, ("flow", "motion"), heads=("lstm", "gru"), scope="training")
    settings = to_settings(to_point(START, space), space, start)
    assert settings == dataclasses.replace(
        start, sequence_length=STEPS, dropout=START.dropout, hidden=START.hidden
    )


def test_heads_are_tried_as_asked():
    space = search_space(STEPS, ("flow",), heads=("lstm", "gru", "mean"))
    heads = next(dimension for dimension in space if dimension.name == "head")
    assert tuple(heads.categories) == ("lstm", "gru", "mean")
    point = to_point(dataclasses.replace(START, head="gru"), space)
    assert to_settings(point, space, START).head == "gru"


def test_settings_outside_the_space_become_its_nearest_point():
    settings = TrainingSettings(
        learning_rate=0.5,
        batch_size=100,
        sequence_length=999,
        hidden=12,
        streams=("frames", "flow"),
    )
    nearest = to_settings(to_point(settings, SPACE), SPACE, START)
    assert (nearest.learning_rate, nearest.batch_size) == (1e-2, 32)
    assert (nearest.sequence_length, nearest.hidden, nearest.streams) == (STEPS, 16, ("flow",))


# ---------------------------------------------------------------------------------------- the log


def test_the_log_has_one_row_per_trial_with_all_that_was_chosen(undisturbed):
    found = rows(undisturbed[0])
    assert [row["trial"] for row in found] == [str(n + 1) for n in range(TRIALS)]
    assert [row["from"] for row in found] == ["start", "spread"] + ["gp"] * (TRIALS - 2)
    assert set(found[0]) == {
        "trial", "from", "status", "learning_rate", "log2_batch_size", "sequence_length",
        "weight_decay", "dropout", "log2_hidden", "layers", "bidirectional", "pooling", "head",
        "streams",
        "val_loss", "fold_1", "fold_2", "fold_3", "seconds",
    }  # fmt: skip
    for row in found:
        settings = TrainingSettings(
            dropout=float(row["dropout"]),
            hidden=2 ** int(row["log2_hidden"]),
            weight_decay=float(row["weight_decay"]),
        )
        losses = [row[f"fold_{n + 1}"] for n in range(FOLDS)]
        expected = [str(hills(settings, fold)) for fold in range(FOLDS)]
        seen = FOLDS - losses.count("")
        assert losses[:seen] == expected[:seen]
        assert (row["status"] == "ok") == (seen == FOLDS) == (row["val_loss"] != "")
        if row["val_loss"]:
            assert float(row["val_loss"]) == pytest.approx(np.mean([*map(float, losses)]))


def test_an_ended_search_tries_nothing_and_gives_the_best_with_the_rest_as_at_the_start(
    undisturbed,
):
    log, best = undisturbed
    least = min(rows(log), key=lambda row: float(row["val_loss"] or "inf"))
    assert best.dropout == float(least["dropout"])
    assert best.learning_rate == float(least["learning_rate"])

    def never(settings, fold):
        raise AssertionError("another trial")

    taken = search(never, log, start=dataclasses.replace(START, max_epochs=3))
    assert taken == dataclasses.replace(best, max_epochs=3)


def test_a_trial_is_logged_as_soon_as_it_ends(tmp_path):
    log, lines = tmp_path / "trials.csv", []

    def look(settings, fold):
        if fold == 0:
            lines.append(len(log.read_text().splitlines()) if log.exists() else 0)
        return hills(settings, fold)

    search(look, log, 3)
    assert lines == [0, 2, 3]  # with the header


def test_a_stopped_search_goes_on_as_if_it_had_not_been(undisturbed, tmp_path):
    log, tried, stopped_after = tmp_path / "trials.csv", [], 4

    def stop(settings, fold):
        if len(tried) == stopped_after and fold == 1:
            raise KeyboardInterrupt
        if fold == 0 and settings not in tried:
            tried.append(settings)
        return hills(settings, fold)

    with pytest.raises(KeyboardInterrupt):
        search(stop, log)
    n_logged = len(rows(log))
    assert n_logged == stopped_after - 1
    again = []

    def go_on(settings, fold):
        again.append(fold)
        return hills(settings, fold)

    best = search(go_on, log)
    assert again.count(0) == TRIALS - n_logged, "a trial was done twice"
    assert untimed(log) == untimed(undisturbed[0])
    assert best == undisturbed[1]


def test_a_row_that_a_kill_cut_short_is_tried_again(undisturbed, tmp_path):
    log = tmp_path / "trials.csv"
    lines = undisturbed[0].read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:-5])
    search(hills, log)
    assert untimed(log) == untimed(undisturbed[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (",0.3,", ",0.7,"),  # no such dropout
        (",20,1,", ",21,1,"),  # clips of another length
        (",0.001,3", ",much,3"),
        ("lstm,flow+motion", "mean,frames"),
        (",ok,", ",fine,"),
        ("fold_3", "seconds"),  # fewer folds
        ("trial,", "name,"),
    ],
)
def test_a_foreign_log_is_refused_and_left_alone(old, new, undisturbed, tmp_path):
    log = tmp_path / "trials.csv"
    text = undisturbed[0].read_text()
    assert old in text
    text = text.replace(old, new, 1)
    log.write_text(text)
    with pytest.raises(SettingsError, match=r"trials.csv is not a log of this search") as caught:
        search(hills, log)
    assert caught.value.hint == "give another run folder"
    assert log.read_text() == text


# --------------------------------------------------------------------------------------- failures


def test_a_failed_trial_is_logged_counts_as_the_worst_and_is_never_the_best(tmp_path):
    log, tried = tmp_path / "trials.csv", []
    faults = {1: float("nan"), 2: torch.OutOfMemoryError("out of memory\nof the GPU"), 3: 1e4}

    def fragile(settings, fold):
        if fold == 0:
            tried.append(settings)
        fault = faults.get(len(tried))
        if fold == 1 and isinstance(fault, Exception):
            raise fault
        return fault if fold == 1 and fault is not None else hills(settings, fold)

    best = search(fragile, log, 6)
    status = [row["status"] for row in rows(log)]
    assert status[:3] == [
        "failed: the loss of fold 2 is nan",
        "failed: out of memory",
        "failed: the loss of fold 2 is 1e+04",
    ]
    assert [row["val_loss"] for row in rows(log)[:3]] == [""] * 3
    assert best in tried[3:]
    found = read_trials(log, SPACE, FOLDS)
    told = trials.estimated_losses([found[n] for n in range(6)], FOLDS)
    assert told[:3] == [max(told[3:])] * 3


def test_a_fault_of_the_program_is_no_failed_trial(tmp_path):
    def faulty(settings, fold):
        return settings.no_such_setting

    with pytest.raises(AttributeError):
        search(faulty, tmp_path / "trials.csv")


def test_a_search_in_which_everything_fails_says_so(tmp_path):
    def broken(settings, fold):
        raise RuntimeError("no kernel image is available")

    message = "all 4 trials failed; the last: failed: no kernel image is available"
    with pytest.raises(NothingUsable, match=message):
        search(broken, tmp_path / "trials.csv", 4)


# ----------------------------------------------------------------------------------- early stopping


def test_the_loss_of_a_stopped_trial_is_estimated_without_bias():
    rng = np.random.default_rng(0)
    hard = np.array([0.5, -0.1, -0.4])  # the folds' own share
    errors = {1: [], 2: []}
    for _ in range(2000):
        finished = rng.normal(0.6, 0.1, (8, 1)) + hard + rng.normal(0, 0.03, (8, 3))
        quality = rng.normal(0.6, 0.1)
        losses = quality + hard + rng.normal(0, 0.03, 3)
        for seen, found in errors.items():
            found.append(corrected_loss(losses[:seen], finished) - (quality + hard.mean()))
    for seen, found in errors.items():
        assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / np.sqrt(len(found)))
        assert abs(hard[:seen].mean() - hard.mean()) > 0.1, "without correction it would show"
        assert np.std(found) < 0.05


def test_a_loss_on_all_folds_needs_no_correction():
    finished = np.random.default_rng(0).uniform(size=(5, 3))
    assert corrected_loss(finished[2], finished) == pytest.approx(finished[2].mean())


def test_only_what_is_clearly_worse_than_earlier_trials_is_hopeless():
    rng = np.random.default_rng(0)
    quality = np.linspace(0.4, 0.8, 9)
    hard = np.array([0.3, 0.0, 0.1])
    finished = quality[:, None] + hard + rng.normal(0, 0.02, (9, 3))
    assert is_hopeless([0.8 + 0.3], finished)
    assert not is_hopeless([0.4 + 0.3], finished), "as good as the best"
    assert not is_hopeless([0.55 + 0.3], finished), "better than the median"
    assert not is_hopeless([1.1, 0.8, 0.9], finished), "it has seen all folds"
    assert not is_hopeless([1.1], finished[: trials.FEWEST - 1]), "too few to compare with"
    scatter = 0.4 * np.array([[1, -1, 0], [-1, 1, 0]])[np.arange(9) % 2]
    noisy = finished + scatter
    assert not is_hopeless([0.8 + 0.3], noisy), "the folds scatter too much to say"


def test_giving_up_finds_the_same_best_in_fewer_folds(tmp_path, monkeypatch):
    monkeypatch.setattr(search_module, "INITIAL", 30)  # points that do not depend on what was found
    for seed in range(5):
        best, n_run = {}, {}
        for fewest in (trials.FEWEST, 10**9):
            with monkeypatch.context() as patch:
                patch.setattr(trials, "FEWEST", fewest)
                log = tmp_path / f"{fewest}-{seed}.csv"
                best[fewest] = narrow_search(log, 30, seed=seed)
            found = rows(log)
            n_run[fewest] = sum(row[f"fold_{n + 1}"] != "" for row in found for n in range(FOLDS))
            assert all(row["status"] == "ok" for row in found[: trials.FEWEST])
            assert {row["status"] for row in found} <= {"ok", "stopped"}
        assert n_run[10**9] == 30 * FOLDS
        assert n_run[trials.FEWEST] < 0.75 * 30 * FOLDS
        assert best[trials.FEWEST] == best[10**9]


def test_a_stopped_trial_is_never_the_best(tmp_path, monkeypatch):
    log = tmp_path / "trials.csv"
    monkeypatch.setattr(search_module, "INITIAL", 12)
    narrow_search(log, 12)
    lines = log.read_text().splitlines()
    stopped = next(n for n, line in enumerate(lines) if ",stopped," in line)
    cells = lines[stopped].split(",")
    cells[6] = "0.001"  # its first fold
    lines[stopped] = ",".join(cells)
    log.write_text("\n".join(lines) + "\n")
    best = narrow_search(log, 12)
    assert f"{best.dropout}" in {row["dropout"] for row in rows(log) if row["status"] == "ok"}


# ------------------------------------------------------------------------------------- the budget


def test_no_trial_starts_after_the_budget_but_one_ends_well(tmp_path):
    tried = []

    def first_fails(settings, fold):
        if fold == 0:
            tried.append(settings)
        return float("nan") if len(tried) == 1 else hills(settings, fold)

    log = tmp_path / "trials.csv"
    search(first_fails, log, seconds=0.0)
    assert [row["status"].split(":")[0] for row in rows(log)] == ["failed", "ok"]
    search(first_fails, log, seconds=0.0)
    assert len(tried) == 2, "one went well before"


def test_earlier_runs_do_not_use_up_the_budget(tmp_path, undisturbed):
    log = tmp_path / "trials.csv"
    lines = undisturbed[0].read_text().splitlines()
    log.write_text("\n".join([*lines[:2], lines[2].rpartition(",")[0] + ",86400.0", ""]))
    search(hills, log, 3, seconds=3600.0)
    assert len(rows(log)) == 3


# ------------------------------------------------------------------------------------- warm starts


def test_the_best_of_an_earlier_search_are_tried_first(undisturbed, tmp_path):
    known = trials.best_of_log(undisturbed[0], START)
    well = sorted(float(row["val_loss"]) for row in rows(undisturbed[0]) if row["val_loss"])
    assert [np.mean([hills(s, f) for f in range(FOLDS)]) for s in known] == pytest.approx(well[:3])
    log = tmp_path / "trials.csv"
    short = search_space(8, ("flow",))  # clips of 8 maps, without motion
    tune(hills, 4, short, log, n_folds=FOLDS, start=START, warm=known, seed=1)
    found = rows(log)
    sources = [row["from"] for row in found]
    n_warm = sources.count("warm start")
    assert sources[:n_warm] == ["warm start"] * n_warm
    assert n_warm == len({tuple(to_point(settings, short)) for settings in known})
    assert float(found[0]["dropout"]) == known[0].dropout
    assert int(found[0]["sequence_length"]) <= 8


# -------------------------------------------------------------------------------- several at a time


@pytest.mark.slow
def test_jobs_give_the_same_search_wherever_it_was_stopped(tmp_path, monkeypatch):
    (tmp_path / "deadly_objective.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    deadly_hills = importlib.import_module("deadly_objective").deadly
    whole = tmp_path / "whole.csv"
    best = search(deadly_hills, whole, 5, jobs=2)
    lines = whole.read_text().splitlines(keepends=True)
    of_number = {line.split(",")[0]: line for line in lines[1:]}
    log = tmp_path / "trials.csv"
    log.write_text(lines[0] + "".join(of_number[n] for n in "214"))  # 3 was running
    assert search(deadly_hills, log, 5, jobs=2) == best
    assert untimed(log) == untimed(whole)
    for row in rows(whole):
        died = int(row["sequence_length"]) < 10
        assert (row["status"] == "failed: its process died (SIGKILL)") == died
    assert rows(whole)[1]["status"].startswith("failed")


# ------------------------------------------------------------------------------------- real heads


@pytest.fixture(scope="module")
def small(fabricate, easy_corpus):
    """A cache of sixteen people."""
    return fabricate(*easy_corpus(16))


@pytest.fixture
def quick(fast):
    return dataclasses.replace(fast, max_epochs=2, streams=("flow",))


def load(stream, cache):
    return load_training(cache.folder, cache.sha256, (stream,))


def objective_of(cache, **changes):
    folds = training_folds(load("flow", cache), 3, 0)
    values = {"cache": cache.folder, "sha256": cache.sha256, "folds": folds, "seed": 0}
    return FoldLoss(**values | {"device": "cpu"} | changes)


def test_the_objective_is_the_loss_of_the_heads_that_are_trained_in_the_end(small, quick):
    objective = objective_of(small)
    for streams in (("flow",), ("flow", "motion"), ("motion",)):
        settings = dataclasses.replace(quick, streams=streams)
        outcome = run_trial(objective, 3, NONE, settings)
        data = load_training(small.folder, small.sha256, streams)
        assert outcome.loss == cross_fit(data, objective.folds, settings, seed=0).loss


@pytest.mark.parametrize("split", ["test", "holdout"])
def test_tuning_refuses_to_see_what_it_must_not(split, small, quick):
    objective = objective_of(small, splits=("train", split))
    with pytest.raises(IntegrityError, match=f"of the {split} split of .* came to training"):
        run_trial(objective, 3, NONE, quick)


def test_a_cache_that_was_made_anew_is_not_what_the_search_is_about(small, quick):
    with pytest.raises(IntegrityError, match="was made anew"):
        run_trial(objective_of(small, sha256="0" * 64), 3, NONE, quick)


def test_a_head_that_diverges_is_a_failed_trial(fabricate, easy_corpus, quick):
    clips, x = easy_corpus(16)
    x[6] = np.nan  # of the training split
    outcome = run_trial(objective_of(fabricate(clips, x)), 3, NONE, quick)
    assert outcome.status.startswith("failed: the loss of fold ")


def test_a_tuned_run_uses_the_streams_that_were_found_and_shows_the_search(small, quick, tmp_path):
    run = fit(small, tmp_path / "run", settings=quick, n_trials=4, device="cpu")
    best = min(rows(tmp_path / "run" / "trials.csv"), key=lambda r: float(r["val_loss"] or "inf"))
    assert "+".join(run.config.streams) == best["streams"] == "+".join(run.config.training.streams)
    assert (tmp_path / "run" / "tuning.png").read_bytes().startswith(b"\x89PNG")
    warm = best_settings(tmp_path / "run")
    assert warm[0] == run.config.training
    again = fit(
        small, tmp_path / "again", settings=quick, n_trials=1, warm=warm,
        device="cpu",
    )  # fmt: skip
    assert again.config.training == run.config.training
    assert rows(tmp_path / "again" / "trials.csv")[0]["val_loss"] == best["val_loss"]


def test_a_run_that_was_not_tuned_starts_nothing(fitted, small, run_command, tmp_path):
    arguments = [small.folder, "-o", tmp_path / "run", "--warm-start", fitted.folder]
    result = run_command(fit_command, *arguments, "--tune", 1)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert "holds no trials to start from" in result.stderr
    assert not (tmp_path / "run").exists()
    assert "give --tune N" in run_command(fit_command, *arguments).stderr


def children_of(pid):
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_ctrl_c_ends_all_processes_and_the_search_goes_on(small, tmp_path, monkeypatch):
    command = [
        sys.executable, "-m", "model.fit", small.folder, "-o", tmp_path / "run", "--jobs", "2",
        "--max-epochs", "1", "--streams", "flow", "--device", "cpu", "--folds", "2",
    ]  # fmt: skip
    process = subprocess.Popen(
        [*command, "--tune", "500"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "run" / "trials.csv"
    while process.poll() is None and (not log.exists() or len(log.read_bytes().splitlines()) < 3):
        time.sleep(0.05)
    children = children_of(process.pid)
    assert len(children) >= 2
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: interrupted" in error
    for _ in range(100):
        if not any(Path(f"/proc/{child}").exists() for child in children):
            break
        time.sleep(0.05)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    found = rows(log)
    monkeypatch.setattr(search_module, "INITIAL", 500)  # more than were tried: nothing is fitted
    settings = TrainingSettings(max_epochs=1, streams=("flow",))
    fit(
        small, tmp_path / "run", settings=settings, n_folds=2, device="cpu",
        n_trials=len(found) + 1,
    )  # fmt: skip
    assert untimed(log)[: len(found)] == [
        {key: value for key, value in row.items() if key != "seconds"} for row in found
    ]
    assert len(rows(log)) == len(found) + 1
    alone = objective_of(small, folds=training_folds(load("flow", small), 2, 0))
    first = dataclasses.replace(settings, sequence_length=12, streams=("flow",))
    assert run_trial(alone, 2, NONE[:, :2], first).loss == float(found[0]["val_loss"])


# -------------------------------------------------------------------------------------- the figure


def test_the_figure_shows_what_mattered(tmp_path, monkeypatch):
    monkeypatch.setattr(search_module, "INITIAL", 14)
    log = tmp_path / "trials.csv"
    narrow_search(log, 14)
    found = read_trials(log, NARROW, FOLDS)
    done = [found[n] for n in range(14)]
    (dropout, by_dropout), (decay, by_decay) = dependence(done, NARROW, FOLDS)
    assert dropout[int(np.argmin(by_dropout))] == pytest.approx(0.2, abs=0.1)
    assert math.log10(decay[int(np.argmin(by_decay))]) == pytest.approx(-3, abs=1)
    assert np.ptp(by_dropout) > np.ptp(by_decay)
    plot_tuning(done, NARROW, FOLDS, tmp_path / "tuning.png")
    assert (tmp_path / "tuning.png").read_bytes().startswith(b"\x89PNG")


def test_categories_are_part_of_the_figure(undisturbed):
    found = read_trials(undisturbed[0], SPACE, FOLDS)
    curves = dependence([found[n] for n in range(TRIALS)], SPACE, FOLDS)
    for dimension, (values, losses) in zip(SPACE, curves, strict=True):
        assert len(values) == len(losses)
        if isinstance(dimension, Categorical):
            assert tuple(values) == tuple(dimension.categories)
