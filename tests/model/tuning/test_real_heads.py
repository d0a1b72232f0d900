"""The search over heads that are really trained."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from model.fit import main as fit_command
from model.fitting import best_settings, fit, training_folds
from model.run.run import load_run
from model.settings import TrainingSettings
from model.training import train
from model.training.sequences import load_sequences as read
from model.training.train import cross_fit
from model.tuning import trials
from model.tuning.trials import FoldLoss, load_training, run_fold, trial_result
from pipeline.common.errors import IntegrityError

EPOCH = train._Training.epoch


def rows(log):
    with log.open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: int(row["trial"]))


def untimed(log):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows(log)]


def load(stream, cache):
    return load_training(cache.folder, cache.sha256, (stream,))


def objective_of(cache, **changes):
    folds = training_folds(load("flow", cache), 3, 0)
    values = {"cache": cache.folder, "sha256": cache.sha256, "folds": folds, "seed": 0}
    return FoldLoss(**values | {"device": "cpu"} | changes)


def all_folds(objective, settings):
    """What becomes of settings that nothing is compared with."""
    n = len(objective.folds)
    return trial_result([run_fold(objective, settings, k) for k in range(n)], np.zeros((0, n)), n)


def test_the_objective_is_the_loss_of_the_heads_that_are_trained_in_the_end(small, quick):
    objective = objective_of(small)
    for streams in (("flow",), ("flow", "motion"), ("motion",)):
        settings = dataclasses.replace(quick, streams=streams)
        outcome = all_folds(objective, settings)
        data = load_training(small.folder, small.sha256, streams)
        fitted = cross_fit(data, objective.folds, settings, seed=0)
        assert outcome.losses == tuple(fold.best.val_loss for fold in fitted.folds)


@pytest.mark.parametrize("split", ["test", "holdout"])
def test_tuning_refuses_to_see_what_it_must_not(split, small, quick, monkeypatch):
    """As if a fault of the program read other splits."""
    objective = objective_of(small)
    load_training.cache_clear()
    monkeypatch.setattr(
        trials, "load_sequences", lambda cache, streams, _: read(cache, streams, ("train", split))
    )
    with pytest.raises(IntegrityError, match=f"of the {split} split of .* came to training"):
        all_folds(objective, quick)


def test_a_cache_that_was_made_anew_is_not_what_the_search_is_about(small, quick):
    with pytest.raises(IntegrityError, match="was made anew"):
        all_folds(objective_of(small, sha256="0" * 64), quick)


def test_a_head_that_diverges_is_a_failed_trial(fabricate, easy_corpus, quick):
    clips, x = easy_corpus(16)
    x[6] = np.nan  # of the training split
    outcome = all_folds(objective_of(fabricate(clips, x)), quick)
    assert outcome.status.startswith("failed: the loss of fold ")


def test_what_the_best_trial_trained_is_the_detector(small, tuned_run, tmp_path):
    run = load_run(tuned_run)
    again = fit(small, tmp_path / "again", settings=run.config.training, device="cpu")
    for one, other in zip(run.ensemble.parameters(), again.ensemble.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_tuned_run_uses_the_streams_that_were_found_and_shows_the_search(
    small, tuned_run, quick, tmp_path, monkeypatch
):
    run = load_run(tuned_run)
    best = min(rows(tuned_run / "trials.csv"), key=lambda r: float(r["val_loss"] or "inf"))
    assert "+".join(run.config.streams) == best["streams"] == "+".join(run.config.training.streams)
    assert (tuned_run / "tuning.png").read_bytes().startswith(b"\x89PNG")
    warm = best_settings(tuned_run)
    assert warm[0] == run.config.training
    epochs = []
    monkeypatch.setattr(train._Training, "epoch", lambda self: epochs.append(1) or EPOCH(self))
    again = fit(small, tmp_path / "again", settings=quick, n_trials=1, warm=warm, device="cpu")
    assert len(epochs) == 3 * quick.max_epochs, "those of the trial and no others"
    assert again.config.training == run.config.training
    assert rows(tmp_path / "again" / "trials.csv")[0]["val_loss"] == best["val_loss"]


def test_a_run_that_was_not_tuned_starts_nothing(small_run, small, run_command, tmp_path):
    arguments = [small.folder, "-o", tmp_path / "run", "--warm-start", small_run]
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
def test_ctrl_c_ends_all_processes_and_the_search_goes_on(small, tmp_path):
    command = [
        sys.executable, "-m", "model.fit", small.folder, "-o", tmp_path / "run", "--jobs", "2",
        "--head", "lstm", "--max-epochs", "1", "--streams", "flow", "--device", "cpu",
        "--folds", "2",
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
    settings = TrainingSettings(head="lstm", max_epochs=1, streams=("flow",))
    fit(
        small, tmp_path / "run", settings=settings, n_folds=2, device="cpu",
        n_trials=len(found) + 1,
    )  # fmt: skip
    kept = [{key: value for key, value in row.items() if key != "seconds"} for row in found]
    assert all(row in untimed(log) for row in kept)
    assert len(rows(log)) == len(found) + 1
    alone = objective_of(small, folds=training_folds(load("flow", small), 2, 0))
    first = dataclasses.replace(settings, sequence_length=12, streams=("flow",))
    assert all_folds(alone, first).loss == float(rows(log)[0]["val_loss"])
