"""A run on another corpus: all of it, by the run's own threshold, and nobody who was trained on."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from model.evaluate import main as evaluate_command
from model.evaluation.controls import (
    ALONE,
    CONTROLS,
    MEAN_POOL,
    METADATA,
    SHUFFLED,
    UNUSUAL_SCORES,
    absent_controls,
    control,
    load_controls,
)
from model.evaluation.evaluation import DETECTOR, evaluate
from model.evaluation.other_corpus import evaluate_elsewhere
from model.run.per_video_scores import by_video, score_videos
from model.run.run import load_run, seal
from model.training.sequences import load_sequences
from pipeline.common.csv_files import read_csv
from pipeline.common.errors import SettingsError

NEVER_SAW_A_FAKE = [name for score, name in UNUSUAL_SCORES.items() if score != "trajectory"]


@pytest.fixture(scope="module")
def elsewhere(fabricate, easy_corpus, clip, tmp_path_factory):
    """Other people, in all splits and in none, with longer clips; the same pattern tells."""
    clips, x = easy_corpus(12, steps=16)
    clips = [
        dataclasses.replace(
            clip(1000 + n, old.label, old.split if n > 3 else ""),
            identities=(f"stranger:{n // 2}",),
            manipulation=("swap", "reenactment")[n // 2 % 2] if old.label else "",
            source=("left", "right")[n // 12],
        )
        for n, old in enumerate(clips)
    ]
    return fabricate(
        clips,
        x,
        folder=tmp_path_factory.mktemp("elsewhere") / "strangers",
        extraction={"splitting": {"by": "official"}, "seed": 7, "compression": "lzf"},
        source_sha256="2" * 64,
    )


@pytest.fixture(scope="module")
def with_controls(fitted, tmp_path_factory):
    """The folder of a run whose controls are trained. Not to be changed."""
    folder = tmp_path_factory.mktemp("with_controls") / "run"
    shutil.copytree(fitted.folder, folder)
    evaluate(load_run(folder))
    return folder


@pytest.fixture
def run_folder(with_controls, tmp_path):
    """A copy of a run, evaluated where it was trained."""
    folder = tmp_path / "run"
    shutil.copytree(with_controls, folder)
    (folder / "metrics.json").write_text("its own")
    return folder


def test_all_videos_of_another_corpus_are_evaluated_by_the_runs_threshold(
    run_folder, elsewhere, run_command
):
    done = run_command(evaluate_command, run_folder, "--cache", elsewhere.folder)
    assert done.exit_code == 0, done.output
    assert "all: 24 videos, 24 of them scored" in done.stdout
    folder = run_folder / "cross" / "strangers"
    found = json.loads((folder / "metrics.json").read_text())
    assert found["coverage"] == {"all": {"videos": 24, "scored": 24}}
    run = load_run(run_folder)
    splits = ("train", "test", "holdout", "")
    data = load_sequences(elsewhere, ("flow",), splits)
    _, labels, p = score_videos(run, data)
    assert len(labels) == 24
    assert found["all"]["threshold"]["value"] == run.config.threshold
    assert found["all"]["accuracy"]["value"] == ((p >= run.config.threshold) == labels).mean()
    assert found["all"]["auc_roc"]["value"] == np.mean(
        [(a > b) + (a == b) / 2 for a in p[labels == 1] for b in p[labels == 0]]
    )
    assert found["warnings"] == []
    assert found["cache_sha256"] == elsewhere.sha256
    assert set(found["controls"]) == {MEAN_POOL, METADATA, *NEVER_SAW_A_FAKE, SHUFFLED}
    assert set(found["absent_controls"]) == set(ALONE.values())
    assert set(found["comparisons"]["all"]) == set(found["controls"])
    assert len(found["verdicts"]) == 2
    assert all(verdict in " ".join(done.stdout.split()) for verdict in found["verdicts"])
    rows = {row["id"]: row for row in read_csv(folder / "predictions.csv")}
    assert [float(rows[clip.video]["probability"]) for clip in data.clips] == p.tolist()
    assert [int(rows[clip.video]["label"]) for clip in data.clips] == labels.tolist()
    assert {row["status"] for row in rows.values()} == {"ok"}
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "metrics.json",
        "predictions.csv",
        "report.html",
        "roc.png",
        "precision_recall.png",
        "reliability.png",
    }
    page = (folder / "report.html").read_text()
    assert "run on strangers" in page
    assert "No known identity" in page and "shuffled time" in page
    assert (run_folder / "metrics.json").read_text() == "its own"


@pytest.mark.usefixtures("numbers_only")
def test_the_controls_are_those_that_were_trained_with_the_run(run_folder, elsewhere):
    run = load_run(run_folder)
    kept = (run_folder / CONTROLS).read_bytes()
    evaluation = evaluate_elsewhere(run, elsewhere)
    assert (run_folder / CONTROLS).read_bytes() == kept, "trained again"
    assert evaluation.absent == absent_controls(run, elsewhere)
    data = load_sequences(elsewhere, ("flow",), ("train", "test", "holdout", ""))
    labels = by_video(data.clips, np.array([clip.label for clip in data.clips]))[1]
    for name, state in load_controls(run).items():
        rival = control(name, run, state)
        accuracy = ((rival.score(data) >= rival.threshold) == labels).mean()
        assert evaluation.metrics[name]["all"]["accuracy"].value == accuracy


@pytest.mark.usefixtures("numbers_only")
def test_controls_can_be_left_out(run_folder, elsewhere):
    evaluation = evaluate_elsewhere(load_run(run_folder), elsewhere, controls=False)
    assert set(evaluation.metrics) == {DETECTOR, MEAN_POOL, METADATA, *NEVER_SAW_A_FAKE}
    assert evaluation.absent[SHUFFLED] == "not asked for"


@pytest.mark.usefixtures("numbers_only")
def test_it_is_broken_down_by_manipulation_and_source(run_folder, elsewhere):
    evaluation = evaluate_elsewhere(load_run(run_folder), elsewhere, controls=False)
    parts = evaluation.by_manipulation["all"]
    assert {name: (part.real, part.fake) for name, part in parts.items()} == {
        "reenactment": (12, 6),
        "swap": (12, 6),
    }
    assert set(evaluation.by_source["all"]) == {"left", "right"}


@pytest.mark.usefixtures("numbers_only")
def test_without_the_old_cache_it_works_all_the_same(run_folder, elsewhere, run_command):
    config = json.loads((run_folder / "config.json").read_text())
    (run_folder / "config.json").write_text(json.dumps(config | {"cache": "/nowhere"}))
    seal(run_folder)  # another run than the one that the controls were trained for
    done = run_command(evaluate_command, run_folder, "--cache", elsewhere.folder, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["all"]["accuracy"]["n"] == 24
    assert set(found["controls"]) == set(NEVER_SAW_A_FAKE)
    for name in (MEAN_POOL, METADATA, SHUFFLED):
        assert "what to train it on is not there" in found["absent_controls"][name]


@pytest.fixture
def leaking(elsewhere, fabricate):
    """The other corpus, with other facts of its first video."""

    def make(**change):
        first, *others = elsewhere.clips
        clips = [dataclasses.replace(first, **change), *others]
        return fabricate(clips, np.stack([elsewhere.read(clip, "flow") for clip in clips]))

    return make


@pytest.mark.parametrize(
    "change",
    [
        {"identities": ("person:3",)},
        {"original": "person:3"},
        {"source_sha256": "of a training video"},
    ],
    ids=["identity", "original", "bytes"],
)
def test_whoever_was_trained_on_is_a_leak(change, run_folder, fitted, leaking, run_command):
    trained = next(clip for clip in fitted.cache.clips if clip.split == "train")
    assert trained.identities == ("person:3",)
    if "source_sha256" in change:
        change = {"source_sha256": trained.source_sha256}
    cache = leaking(**change)
    refused = run_command(evaluate_command, run_folder, "--cache", cache.folder)
    assert refused.exit_code == 4
    assert "1 identities, originals, recordings or files" in refused.stderr
    assert "--allow-leaks" in refused.stderr
    assert not (run_folder / "cross").exists()


@pytest.mark.usefixtures("numbers_only")
def test_an_allowed_leak_is_said_wherever_numbers_are_shown(run_folder, leaking, run_command):
    cache = leaking(identities=("person:3",))
    allowed = run_command(evaluate_command, run_folder, "--cache", cache.folder, "--allow-leaks")
    assert allowed.exit_code == 0, allowed.output
    assert "were seen in training" in allowed.stdout
    folder = run_folder / "cross" / "cache"
    assert (
        "were seen in training" in json.loads((folder / "metrics.json").read_text())["warnings"][0]
    )
    page = (folder / "report.html").read_text()
    assert "were seen in training" in page
    assert "No known identity" not in page


@pytest.mark.usefixtures("numbers_only")
def test_who_is_in_the_runs_own_test_split_was_not_trained_on(run_folder, fitted, leaking):
    tested = next(clip for clip in fitted.cache.clips if clip.split == "test")
    cache = leaking(identities=tested.identities)
    assert evaluate_elsewhere(load_run(run_folder), cache, controls=False).warnings == []


@pytest.mark.parametrize(
    "change",
    [
        {"extraction": {"flow_backend": "cpu"}},
        {"extraction": {"fps": 25.0}},
        {"extraction": {"stabilise": True}},
        {"flow_scale": 4.0},
        {"weights_sha256": "3" * 64},
        {"every": 2},
    ],
    ids=str,
)
def test_what_was_made_otherwise_is_refused_by_name(change, run_folder, elsewhere, fabricate):
    x = np.stack([elsewhere.read(clip, "flow") for clip in elsewhere.clips])
    cache = fabricate(list(elsewhere.clips), x, **change)
    (name,) = (change.get("extraction") or change).keys()
    with pytest.raises(SettingsError, match=f"{name} was .*, there"):
        evaluate_elsewhere(load_run(run_folder), cache)
    assert not (run_folder / "cross").exists()


@pytest.mark.usefixtures("numbers_only")
def test_a_second_corpus_of_the_same_name_takes_another_folder(
    run_folder, elsewhere, fabricate, tmp_path
):
    x = np.stack([elsewhere.read(clip, "flow") for clip in elsewhere.clips])
    clips = list(elsewhere.clips)
    other = fabricate(clips[:12], x[:12], folder=tmp_path / "strangers")
    run = load_run(run_folder)
    first = evaluate_elsewhere(run, elsewhere, controls=False)
    before = (first.folder / "metrics.json").read_bytes()
    second = evaluate_elsewhere(run, other, controls=False)
    assert second.folder.name == f"strangers-{other.sha256[:8]}"
    assert (first.folder / "metrics.json").read_bytes() == before
    assert evaluate_elsewhere(run, other, controls=False).folder == second.folder
    assert evaluate_elsewhere(run, elsewhere, controls=False).folder == first.folder


def test_one_class_alone_has_no_auc_but_a_share_called_fake(run_folder, elsewhere, fabricate):
    clips = [clip for clip in elsewhere.clips if clip.label]
    x = np.stack([elsewhere.read(clip, "flow") for clip in clips])
    evaluation = evaluate_elsewhere(load_run(run_folder), fabricate(clips, x), controls=False)
    found = evaluation.metrics[DETECTOR]["all"]
    assert found["auc_roc"].value is None
    assert found["recall"].value > 0.5
    assert not (evaluation.folder / "roc.png").exists()
