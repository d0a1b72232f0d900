"""A run: what its folder holds, what it was made from, and what it refuses to be made from."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from features.motion import NAMES
from model.fit import main as fit_command
from model.fitting import fit
from model.run.run import load_run
from model.statistics.metrics import equal_error
from model.training import train
from model.training.sequences import join_streams, load_sequences
from pipeline.common.errors import SettingsError


def predictions(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def trials(folder):
    """The log of tuning without what no two runs share."""
    with (folder / "trials.csv").open(newline="") as file:
        return [row | {"seconds": ""} for row in csv.DictReader(file)]


def refit(cache, folder, fast, **changes):
    options = {"settings": fast, "device": "cpu"} | changes
    return fit(cache, folder, **options)


def state(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# ------------------------------------------------------------------------------------ the folder


def test_the_run_folder_holds_model_settings_history_predictions_and_curves(fitted):
    names = {path.name for path in fitted.folder.iterdir()}
    assert names >= {"model.pt", "config.json", "history.csv", "predictions.csv", "training.png"}
    assert (fitted.folder / "training.png").read_bytes().startswith(b"\x89PNG")
    assert not [name for name in names if name.startswith(".")]


def test_the_model_loads_as_weights_alone(fitted):
    assert all(isinstance(value, torch.Tensor) for value in state(fitted.folder).values())


def test_the_config_tells_all_that_the_model_rests_on(fitted, fast):
    config = json.loads((fitted.folder / "config.json").read_text())
    assert config["cache_sha256"] == fitted.cache.sha256
    assert config["embedding"] == fitted.cache.settings
    assert config["extraction"] == json.loads(fitted.cache.attrs["source_settings"])
    assert config["frames"] == 13
    assert config["widths"] == {"flow": 6}
    assert config["training"] == dataclasses.asdict(fast) | {"streams": ["flow"]}
    assert (config["n_heads"], config["trials"], config["seed"]) == (3, 0, 0)
    assert 0 < config["threshold"] < 1
    assert set(config["versions"]) >= {"numpy", "torch", "scikit-learn", "scikit-optimize"}


def test_history_has_a_row_per_fold_and_epoch(fitted, fast):
    with (fitted.folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["fold"] for row in rows} == {"0", "1", "2"}
    for fold in "012":
        epochs = [int(row["epoch"]) for row in rows if row["fold"] == fold]
        assert epochs == list(range(len(epochs)))
        assert len(epochs) <= fast.max_epochs


def test_every_video_of_the_cache_has_one_row(fitted):
    rows = predictions(fitted.folder)
    assert [row["id"] for row in rows] == [clip.video for clip in fitted.cache.clips]
    by_id = {clip.video: clip for clip in fitted.cache.clips}
    for row in rows:
        clip = by_id[row["id"]]
        assert (row["split"], int(row["label"])) == (clip.split, clip.label)
        if clip.split:
            assert row["status"] == "ok"
            assert 0 < float(row["probability"]) < 1
        else:
            assert (row["probability"], row["status"]) == ("", "dropped from the split")
    assert sum(not row["split"] for row in rows) == 2


def test_a_saved_run_predicts_what_it_predicted(fitted):
    run = load_run(fitted.folder)
    unseen = load_sequences(fitted.cache, ("flow",), ("test", "holdout"))
    with torch.inference_mode():
        again = run.probabilities(run.ensemble(unseen.x).double().numpy())
    written = {row["id"]: row["probability"] for row in predictions(fitted.folder)}
    assert again.tolist() == [float(written[clip.video]) for clip in unseen.clips]


def test_training_videos_are_judged_by_heads_that_never_saw_them(fitted):
    run = load_run(fitted.folder)
    seen = load_sequences(fitted.cache, ("flow",), ("train",))
    with torch.inference_mode():
        by_all = run.probabilities(run.ensemble(seen.x).double().numpy())
    written = {row["id"]: float(row["probability"] or "nan") for row in predictions(fitted.folder)}
    out_of_fold = np.array([written[clip.video] for clip in seen.clips])
    assert np.abs(out_of_fold - by_all).max() > 0.01
    assert not np.isnan(out_of_fold).any()


def test_the_threshold_is_where_errors_on_the_validation_folds_are_equal(fitted):
    rows = [row for row in predictions(fitted.folder) if row["split"] == "train"]
    labels = np.array([int(row["label"]) for row in rows])
    _, threshold = equal_error(labels, np.array([float(row["probability"]) for row in rows]))
    assert load_run(fitted.folder).config.threshold == pytest.approx(threshold, abs=1e-6)


def test_the_same_seed_gives_the_same_run(small, small_run, quick, tmp_path):
    for name, seed in {"b": 0, "c": 1}.items():
        refit(small, tmp_path / name, quick, seed=seed)
    a, b, c = small_run, tmp_path / "b", tmp_path / "c"
    assert same(state(a), state(b))
    for name in ("config.json", "predictions.csv", "history.csv"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert not same(state(a), state(c))


def test_the_clips_of_a_video_are_averaged_into_one_row(fabricate, easy_corpus, quick, tmp_path):
    clips, x = easy_corpus(16)
    twins = [dataclasses.replace(clip, id=f"{clip.id}-1", start=1.0) for clip in clips]
    noise = np.random.default_rng(1).normal(size=x.shape)
    cache = fabricate([*clips, *twins], np.concatenate([x, x + noise]))
    run = refit(cache, tmp_path / "run", quick)
    rows = predictions(tmp_path / "run")
    assert len(rows) == len(clips)
    unseen = load_sequences(cache, ("flow",), ("test",))
    with torch.inference_mode():
        logits = run.ensemble(unseen.x).double().numpy()
    for row in rows:
        mine = [n for n, clip in enumerate(unseen.clips) if clip.video == row["id"]]
        if mine:
            assert len(mine) == 2
            expected = run.probabilities(logits[mine].mean())
            assert float(row["probability"]) == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------- what decides about the model


@pytest.mark.parametrize("n_trials", [0, 3])
def test_the_model_is_final_before_a_test_video_is_read(
    n_trials, small_run, tuned_run, fabricate, easy_corpus, quick, tmp_path
):
    clips, x = easy_corpus(16)
    x[[clip.split != "train" for clip in clips]] = np.nan
    sound, spoiled = tuned_run if n_trials else small_run, tmp_path / "spoiled"
    refit(fabricate(clips, x), spoiled, quick, n_trials=n_trials)
    assert same(state(sound), state(spoiled))
    assert load_run(sound).config.threshold == load_run(spoiled).config.threshold
    if n_trials:
        assert trials(sound) == trials(spoiled)


def test_a_test_video_without_a_probability_says_so(fabricate, easy_corpus, quick, tmp_path):
    clips, x = easy_corpus(16)
    lost = next(n for n, clip in enumerate(clips) if clip.split == "test")
    x[lost] = np.nan
    refit(fabricate(clips, x), tmp_path / "run", quick)
    row = next(r for r in predictions(tmp_path / "run") if r["id"] == clips[lost].video)
    assert row["probability"] == ""
    assert row["status"] not in ("ok", "in no validation fold")


def test_a_prescribed_validation_split_is_the_one_fold(fabricate, easy_corpus, quick, tmp_path):
    clips, x = easy_corpus(16)
    clips = [
        dataclasses.replace(clip, split="val") if clip.identities[0] in
        ("person:3", "person:4", "person:11") else clip
        for clip in clips
    ]  # fmt: skip
    run = refit(fabricate(clips, x), tmp_path / "run", quick)
    assert run.config.n_heads == 1
    rows = predictions(tmp_path / "run")
    status = {
        split: {r["status"] for r in rows if r["split"] == split} for split in ("train", "val")
    }
    assert status == {"train": {"in no validation fold"}, "val": {"ok"}}
    assert {r["probability"] == "" for r in rows if r["split"] == "train"} == {True}
    val = [row for row in rows if row["split"] == "val"]
    _, threshold = equal_error(
        np.array([int(row["label"]) for row in val]),
        np.array([float(row["probability"]) for row in val]),
    )
    assert run.config.threshold == pytest.approx(threshold, abs=1e-6)


@pytest.mark.parametrize("streams", [("motion",), ("flow", "motion")])
def test_the_head_sees_the_streams_it_is_asked_to(streams, small, quick, tmp_path):
    run = refit(small, tmp_path / "run", dataclasses.replace(quick, streams=streams))
    widths = {"flow": 6, "motion": len(NAMES)}
    assert load_run(run.folder).config.widths == {stream: widths[stream] for stream in streams}


def test_the_streams_of_a_moment_stand_side_by_side():
    embedded = {
        "flow": np.array([[1.0], [2.0]], np.float16),
        "frames": np.array([[11.0], [12.0]], np.float16),
        "motion": np.array([[0.1, 0.2], [0.3, 0.4]], np.float32),
        "rows": np.array([[0, 0], [1, 1]]),
    }
    joined = join_streams(embedded, ("flow", "frames", "motion"))
    np.testing.assert_array_equal(joined, np.float32([[1, 11, 0.1, 0.2], [2, 12, 0.3, 0.4]]))
    assert joined.dtype == np.float32


def test_where_a_row_is_about_several_moments_its_motion_is_their_mean():
    embedded = {
        "flow": np.array([[1.0], [2.0]], np.float16),
        "motion": np.array([[0.0], [1.0], [2.0], [6.0]], np.float32),
        "rows": np.array([[0, 2], [2, 3]]),
    }
    joined = join_streams(embedded, ("flow", "motion"))
    np.testing.assert_allclose(joined, [[1, 1], [2, 4]])


# ---------------------------------------------------------------------------------------- tuning


def test_a_stopped_tuning_goes_on_to_the_same_run(small, tuned_run, quick, tmp_path, monkeypatch):
    import model.tuning.trials

    train_fold, calls = model.tuning.trials.train_fold, []

    def stop(*args, **kwargs):
        if len(calls) == 7:  # in the third trial of three folds
            raise KeyboardInterrupt
        calls.append(1)
        return train_fold(*args, **kwargs)

    monkeypatch.setattr(model.tuning.trials, "train_fold", stop)
    with pytest.raises(KeyboardInterrupt):
        refit(small, tmp_path / "stopped", quick, n_trials=3)
    monkeypatch.undo()
    assert len(trials(tmp_path / "stopped")) == 2
    with pytest.raises(SettingsError, match="is not a finished run"):
        load_run(tmp_path / "stopped")
    run = refit(small, tmp_path / "stopped", quick, n_trials=3)
    assert trials(tmp_path / "stopped") == trials(tuned_run)
    for name in ("config.json", "predictions.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tuned_run / name).read_bytes()
    assert same(state(tmp_path / "stopped"), state(tuned_run))
    assert run.config.trials == 3
    best = min(trials(tuned_run), key=lambda row: float(row["val_loss"]))
    assert run.config.training.learning_rate == float(best["learning_rate"])
    assert run.config.training.hidden == 2 ** int(best["log2_hidden"])


def test_the_config_states_how_many_trials_there_were(small, tuned_run, quick, tmp_path):
    shutil.copytree(tuned_run, tmp_path / "run")
    run = refit(small, tmp_path / "run", quick, n_trials=1)
    assert run.config.trials == 3, "the best of all was taken"


# ----------------------------------------------------------------------------------- once more


def test_a_run_is_repeated_from_its_folder(small, quick, tmp_path, run_command):
    first = fit(
        small,
        tmp_path / "first",
        settings=dataclasses.replace(quick, streams=("flow", "motion"), head="gru"),
        n_trials=1,
        n_folds=2,
        seed=5,
        device="cpu",
        max_fpr=0.2,
        abstain=0.1,
    )
    done = run_command(
        fit_command, "--from", tmp_path / "first", "-o", tmp_path / "again", "--no-controls",
        "--cases", 0,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert same(state(tmp_path / "again"), state(tmp_path / "first"))
    for name in ("config.json", "predictions.csv", "history.csv", "training.csv"):
        again, before = ((tmp_path / run / name).read_bytes() for run in ("again", "first"))
        assert again == before, name
    assert first.config.trials == 1


def test_what_from_decides_is_not_given_beside_it(fitted, run_command, tmp_path):
    done = run_command(
        fit_command, "--from", fitted.folder, "-o", tmp_path / "run", "--hidden", "32"
    )
    assert done.exit_code == 2
    assert "--hidden cannot be given beside --from" in done.stderr
    done = run_command(fit_command, "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert "EMBEDDINGS is missing" in done.stderr


def test_another_cache_is_no_repetition(fitted, small, run_command, tmp_path):
    out = tmp_path / "run"
    done = run_command(fit_command, small.folder, "--from", fitted.folder, "-o", out)
    assert done.exit_code == 4
    assert "is not the cache that" in done.stderr
    assert not out.exists()


def test_a_killed_fit_goes_on_to_the_same_weights(small, small_run, quick, tmp_path, monkeypatch):
    epoch, done = train._Training.epoch, []

    def killed(self):
        if len(done) == 3:  # in the second of three folds
            raise KeyboardInterrupt
        done.append(1)
        epoch(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train._Training, "epoch", killed)
        refit(small, tmp_path / "killed", quick)
    with monkeypatch.context() as patch:
        patch.setattr(train._Training, "epoch", lambda self: done.append(1) or epoch(self))
        refit(small, tmp_path / "killed", quick)
    assert len(done) == 3 * quick.max_epochs, "no epoch is done twice"
    assert same(state(tmp_path / "killed"), state(small_run))
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_the_command_fits_tunes_evaluates_and_reports(small, run_command, tmp_path):
    out = tmp_path / "run"
    done = run_command(
        fit_command, small.folder, "-o", out, "--tune", 1, "--max-epochs", 2, "--folds", 2,
        "--pooling", "attention", "--bidirectional", "--layers", 2, "--device", "cpu",
        "--head", "lstm", "--streams", "flow,motion", "--cases", 0,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"report: {out / 'report.html'}" in done.stdout
    run = load_run(out)
    assert run.config.streams == ("flow", "motion")
    assert (run.config.training.pooling, run.config.training.layers) == ("attention", 2)
    assert {"metrics.json", "report.html", "trials.csv"} <= {p.name for p in out.iterdir()}
