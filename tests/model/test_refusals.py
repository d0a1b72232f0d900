"""What no run is made from: other settings, foreign folders, leaking or one-sided splits."""

import dataclasses
import json
import shutil

import pytest

from model.evaluate import main as evaluate_command
from model.fit import main as fit_command
from model.fitting import fit
from model.training.sequences import check_leaks
from pipeline.common.errors import IntegrityError, NothingUsable, SettingsError
from pipeline.common.files import try_lock


def refit(cache, folder, fast, **changes):
    options = {"settings": fast, "device": "cpu"} | changes
    return fit(cache, folder, **options)


def test_other_settings_are_refused_with_both_values(small, small_run, fitted, quick):
    before = (small_run / "model.pt").read_bytes()
    changes = {
        "seed was 0, now 1": {"seed": 1},
        "folds was 3, now 2": {"n_folds": 2},
        r"streams was \['flow'\], now \['flow', 'motion'\]": {
            "settings": dataclasses.replace(quick, streams=("flow", "motion"))
        },
        "hidden was 12, now 13": {"settings": dataclasses.replace(quick, hidden=13)},
    }
    for message, change in changes.items():
        with pytest.raises(SettingsError, match=message):
            refit(small, small_run, quick, **change)
    with pytest.raises(SettingsError, match="cache_sha256 was"):
        refit(fitted.cache, small_run, quick)
    assert (small_run / "model.pt").read_bytes() == before


def test_a_folder_with_something_else_in_it_is_left_alone(small, quick, tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(SettingsError, match="not empty and not a run"):
        refit(small, tmp_path, quick)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_folder_of_a_run(small, quick, tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(SettingsError, match="is a file, and a run is a folder"):
        refit(small, tmp_path / "thesis.txt", quick)


@pytest.mark.parametrize("what", ["identity", "bytes"])
def test_a_leaking_split_is_refused_by_name(what, fabricate, easy_corpus, run_command, tmp_path):
    clips, x = easy_corpus(16)
    train = next(n for n, clip in enumerate(clips) if clip.split == "train")
    test = next(n for n, clip in enumerate(clips) if clip.split == "test")
    if what == "identity":
        clips[train] = dataclasses.replace(
            clips[train], identities=(*clips[train].identities, *clips[test].identities)
        )
        name = clips[test].identities[0]
    else:
        clips[train] = dataclasses.replace(clips[train], source_sha256=clips[test].source_sha256)
        name = clips[test].source_sha256
    cache = fabricate(clips, x)
    done = run_command(fit_command, cache.folder, "-o", tmp_path / "run", "--streams", "flow")
    assert done.exit_code == 4
    message, hint = done.stderr.splitlines()
    (pair,) = message.split(f"the splits of {cache.folder}: ")[1:]
    assert all(part in pair for part in (name, clips[train].id, clips[test].id))
    assert (
        f"hint: python -m pipeline.audit {cache.folder} lists them; python -m pipeline.split"
        in hint
    )
    assert not (tmp_path / "run").exists()


def test_of_many_pairs_that_leak_some_are_named(fabricate, easy_corpus, quick, tmp_path):
    clips, x = easy_corpus(16)
    leaking = [dataclasses.replace(clip, identities=("person:0",)) for clip in clips]
    cache = fabricate(leaking, x)
    with pytest.raises(IntegrityError, match=r"; and \d+ more pairs$") as caught:
        refit(cache, tmp_path / "run", quick)
    assert str(caught.value).count("person:0") == 3


def test_only_one_process_writes_a_run(small, small_run, quick, tmp_path):
    shutil.copytree(small_run, tmp_path / "run")
    with (tmp_path / "run" / "begun.json").open("r+b") as file:
        assert try_lock(file)
        with pytest.raises(SettingsError, match="another process is writing"):
            refit(small, tmp_path / "run", quick)
    refit(small, tmp_path / "run", quick)


def test_a_search_is_not_forgotten_for_want_of_an_option(small, tuned_run, quick):
    with pytest.raises(SettingsError, match="holds a search") as caught:
        refit(small, tuned_run, quick)
    assert "--tune N" in caught.value.hint


def test_identities_of_dropped_clips_do_not_leak(fabricate, easy_corpus):
    clips, x = easy_corpus(16)
    clips[-1] = dataclasses.replace(clips[-1], split="", identities=("person:0", "person:3"))
    assert check_leaks(fabricate(clips, x)) == ""


def test_a_training_split_without_real_videos_is_refused(
    fabricate, easy_corpus, run_command, tmp_path
):
    clips, x = easy_corpus(16)
    kept = [n for n, c in enumerate(clips) if c.split != "train" or c.label]
    cache = fabricate([clips[n] for n in kept], x[kept])
    done = run_command(fit_command, cache.folder, "-o", tmp_path / "run", "--streams", "flow")
    assert done.exit_code == 1
    assert "the training split lacks real videos" in done.stderr


@pytest.mark.parametrize("missing", [0, 1])
def test_a_prescribed_validation_split_without_a_class_is_refused(
    missing, fabricate, easy_corpus, quick, tmp_path
):
    clips, x = easy_corpus(16)
    clips = [
        dataclasses.replace(c, split="val") if c.identities == ("person:3",) else c for c in clips
    ]
    kept = [n for n, c in enumerate(clips) if c.split != "val" or c.label != missing]
    with pytest.raises(NothingUsable, match="validation split"):
        refit(fabricate([clips[n] for n in kept], x[kept]), tmp_path / "run", quick)


def test_a_corpus_without_training_videos_is_refused(fabricate, easy_corpus, quick, tmp_path):
    clips, x = easy_corpus(16)
    clips = [dataclasses.replace(clip, split="test") for clip in clips]
    with pytest.raises(NothingUsable, match="train"):
        refit(fabricate(clips, x), tmp_path / "run", quick)


def test_too_few_identities_for_two_folds_are_refused(fabricate, easy_corpus, quick, tmp_path):
    clips, x = easy_corpus(16)
    clips = [
        dataclasses.replace(c, identities=("somebody",)) if c.split == "train" else c for c in clips
    ]
    with pytest.raises(SettingsError, match="two folds"):
        refit(fabricate(clips, x), tmp_path / "run", quick)


def test_a_stream_that_the_cache_does_not_hold_is_refused(small, run_command, tmp_path):
    done = run_command(fit_command, small.folder, "-o", tmp_path / "run", "--streams", "frames")
    assert done.exit_code == 2
    assert "has no frames" in done.stderr
    assert "it holds flow, motion" in done.stderr
    done = run_command(fit_command, small.folder, "-o", tmp_path / "run", "--streams", "sound")
    assert done.exit_code == 2
    assert "is not some of flow, frames, motion" in done.stderr


def test_a_leak_that_is_allowed_is_written_over_every_result(
    fabricate, easy_corpus, run_command, tmp_path
):
    clips, x = easy_corpus(16)
    train = next(n for n, clip in enumerate(clips) if clip.split == "train")
    test = next(n for n, clip in enumerate(clips) if clip.split == "test")
    clips[train] = dataclasses.replace(clips[train], original="scene")
    clips[test] = dataclasses.replace(clips[test], original="scene")
    cache = fabricate(clips, x)
    run = tmp_path / "run"
    options = ["--streams", "flow", "--max-epochs", 1, "--folds", 2, "--no-controls", "--cases", 0]
    done = run_command(fit_command, cache.folder, "-o", run, *options, "--allow-leaks")
    assert done.exit_code == 0, done.stderr
    warning = "The split leaks: 1 identities, originals, recordings or files are on two sides"
    assert f"WARNING: {warning}" in done.stderr
    assert any(warning in w for w in json.loads((run / "metrics.json").read_text())["warnings"])
    report = (run / "report.html").read_text()
    assert warning in report
    assert "No known identity" not in report
    refused = run_command(evaluate_command, run)
    assert refused.exit_code == 4
    allowed = run_command(evaluate_command, run, "--allow-leaks", "--no-controls")
    assert f"WARNING: {warning}" in allowed.stdout
