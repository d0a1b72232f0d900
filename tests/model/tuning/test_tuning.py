"""The search for training settings: what it tries, tells, gives up, logs, and goes on with."""

import csv
import dataclasses
import importlib
import math

import numpy as np
import pytest
import torch
from skopt.space import Categorical, Real

from model.settings import TrainingSettings
from model.tuning import search as search_module
from model.tuning import trials
from model.tuning.plots import dependence, plot_tuning
from model.tuning.search import tune
from model.tuning.space import search_space, to_point
from model.tuning.trials import corrected_loss, is_hopeless, read_trials
from pipeline.common.errors import NothingUsable, SettingsError

STEPS = 20
SPACE = search_space(STEPS, ("flow", "motion"))
NARROW = [
    Real(0.0, 0.6, name="dropout"),
    Real(1e-5, 1e-1, prior="log-uniform", name="weight_decay"),
]
FOLDS = 3
TRIALS = 6
START = TrainingSettings(head="lstm", streams=("flow", "motion"))


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
    """The best settings."""
    best, _ = tune(
        objective, n_trials, SPACE, log, **{"n_folds": FOLDS, "start": START, "seed": 1} | options
    )
    return best


def narrow_search(log, n_trials, seed=0, jobs=1):
    """The best settings and all trials."""
    return tune(
        narrow_hills, n_trials, NARROW, log, n_folds=FOLDS, start=START, seed=seed, jobs=jobs
    )


def rows(log):
    with log.open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: int(row["trial"]))


def untimed(log):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows(log)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    log = tmp_path_factory.mktemp("tuning") / "trials.csv"
    return log, search(hills, log)


# ---------------------------------------------------------------------------------------- the log


def test_the_log_has_one_row_per_trial_with_all_that_was_chosen(undisturbed):
    found = rows(undisturbed[0])
    assert [row["trial"] for row in found] == [str(n + 1) for n in range(TRIALS)]
    assert [row["from"] for row in found] == ["start", *["spread"] * 3, "gp", "gp"]
    assert set(found[0]) == {
        "trial", "from", "status", "learning_rate", "log2_batch_size", "sequence_length",
        "weight_decay", "dropout", "log2_hidden", "layers", "bidirectional", "pooling", "head",
        "streams", "fusion",
        "val_loss", "fold_1", "fold_2", "fold_3", "seconds",
    }  # fmt: skip
    for row in found:
        settings = TrainingSettings(
            head="lstm",
            streams=("flow", "motion"),
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
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:-5])
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
    told = trials.estimated_losses([found[n] for n in range(6)])
    assert told[:3] == [max(told[3:])] * 3


def test_a_fault_of_the_program_is_no_failed_trial(tmp_path):
    def faulty(settings, fold):
        return settings.no_such_setting

    with pytest.raises(AttributeError):
        search(faulty, tmp_path / "trials.csv")


def test_a_search_in_which_everything_fails_says_so(tmp_path):
    def broken(settings, fold):
        raise RuntimeError("no kernel image is available")

    message = "all 5 trials failed; the last: failed: no kernel image is available"
    with pytest.raises(NothingUsable, match=message):
        search(broken, tmp_path / "trials.csv", 5)
    assert rows(tmp_path / "trials.csv")[4]["from"] == "spread", "a process has nothing to fit"


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
    assert not is_hopeless([1.1], finished[: trials.MIN_FINISHED - 1]), "too few to compare with"
    scatter = 0.4 * np.array([[1, -1, 0], [-1, 1, 0]])[np.arange(9) % 2]
    noisy = finished + scatter
    assert not is_hopeless([0.8 + 0.3], noisy), "the folds scatter too much to say"


def test_giving_up_finds_the_same_best_in_fewer_folds(tmp_path, monkeypatch):
    monkeypatch.setattr(
        search_module, "N_INITIAL", 30
    )  # points that do not depend on what was found
    for seed in range(2):
        best, n_run = {}, {}
        for n_needed in (trials.MIN_FINISHED, 10**9):
            with monkeypatch.context() as patch:
                patch.setattr(trials, "MIN_FINISHED", n_needed)
                log = tmp_path / f"{n_needed}-{seed}.csv"
                best[n_needed], _ = narrow_search(log, 30, seed=seed)
            found = rows(log)
            n_run[n_needed] = sum(row[f"fold_{n + 1}"] != "" for row in found for n in range(FOLDS))
            assert all(row["status"] == "ok" for row in found[: trials.MIN_FINISHED])
            assert {row["status"] for row in found} <= {"ok", "stopped"}
        assert n_run[10**9] == 30 * FOLDS
        assert n_run[trials.MIN_FINISHED] < 0.75 * 30 * FOLDS
        assert best[trials.MIN_FINISHED] == best[10**9]


def test_a_stopped_trial_is_never_the_best(tmp_path, monkeypatch):
    log = tmp_path / "trials.csv"
    monkeypatch.setattr(search_module, "N_INITIAL", 12)
    narrow_search(log, 12)
    lines = log.read_text().splitlines()
    stopped = next(n for n, line in enumerate(lines) if ",stopped," in line)
    cells = lines[stopped].split(",")
    cells[6] = "0.001"  # its first fold
    lines[stopped] = ",".join(cells)
    log.write_text("\n".join(lines) + "\n")
    best, _ = narrow_search(log, 12)
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
    options = {"n_folds": 2, "seed": 3, "jobs": 2}  # the second trial is deadly
    whole = tmp_path / "whole.csv"
    best = search(deadly_hills, whole, 5, **options)
    lines = whole.read_text().splitlines(keepends=True)
    of_number = {line.split(",")[0]: line for line in lines[1:]}
    log = tmp_path / "trials.csv"
    log.write_text(lines[0] + "".join(of_number[n] for n in "214"))  # 3 was running
    assert search(deadly_hills, log, 5, **options) == best
    assert untimed(log) == untimed(whole)
    for row in rows(whole):
        died = int(row["sequence_length"]) < 10
        assert (row["status"] == "failed: its process died (SIGKILL)") == died
    assert rows(whole)[1]["status"].startswith("failed")


class _Shuffled:
    """A pool of several slots in this process: of what waits and runs, it ends anything next."""

    def __init__(self, slots, seed):
        self.slots, self._random = slots, np.random.default_rng(seed)
        self.most_trials = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, task, waiting):
        busy = []
        while waiting or busy:
            while waiting and len(busy) < self.slots:
                busy.append(waiting.popleft())
            self.most_trials = max(self.most_trials, len({item.number for item in busy}))
            item = busy.pop(self._random.integers(len(busy)))
            yield item, task(item)


def test_what_ends_first_does_not_show(tmp_path, monkeypatch):
    logs = []
    for seed in range(3):
        pool = _Shuffled(3, seed)
        monkeypatch.setattr(search_module, "LocalPool", lambda jobs, limits, pool=pool: pool)
        logs.append(tmp_path / f"{seed}.csv")
        narrow_search(logs[-1], 8, jobs=3)
        assert pool.most_trials > 1
    assert len({tuple(row["trial"] for row in csv.DictReader(log.open())) for log in logs}) > 1
    for log in logs[1:]:
        assert untimed(log) == untimed(logs[0])


# -------------------------------------------------------------------------------------- the figure


def test_the_figure_shows_what_mattered(tmp_path, monkeypatch):
    monkeypatch.setattr(search_module, "N_INITIAL", 14)
    _, done = narrow_search(tmp_path / "trials.csv", 14)
    (dropout, by_dropout), (decay, by_decay) = dependence(done, NARROW)
    assert dropout[int(np.argmin(by_dropout))] == pytest.approx(0.2, abs=0.1)
    assert math.log10(decay[int(np.argmin(by_decay))]) == pytest.approx(-3, abs=1)
    assert np.ptp(by_dropout) > np.ptp(by_decay)
    plot_tuning(done, NARROW, tmp_path / "tuning.png")
    assert (tmp_path / "tuning.png").read_bytes().startswith(b"\x89PNG")


def test_categories_are_part_of_the_figure(undisturbed):
    found = read_trials(undisturbed[0], SPACE, FOLDS)
    curves = dependence([found[n] for n in range(TRIALS)], SPACE)
    for dimension, (values, losses) in zip(SPACE, curves, strict=True):
        assert len(values) == len(losses)
        if isinstance(dimension, Categorical):
            assert tuple(values) == tuple(dimension.categories)
