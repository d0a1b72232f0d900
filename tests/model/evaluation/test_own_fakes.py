"""Results on own fakes and on real ones are apart, and say which they are."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from features.motion import NAMES
from model.evaluation.evaluation import evaluate
from model.evaluation.other_corpus import evaluate_elsewhere
from model.evaluation.own_fakes import TESTED_ON_OWN_FAKES, apart
from model.evaluation.real_only import evaluate_real_only
from model.evaluation.run_comparison import compare_runs
from model.fitting import fit
from model.reports.run_report import write_report
from model.reports.summary import headline, table
from model.run.run import load_run, read_config
from model.statistics.metrics import auc_roc
from pipeline.cache import Cache
from pipeline.splits.protocols import Splitting, split_clips

OWN = ("own:blend", "own:drift", "own:blend+drift")
NEVER = "trained on fakes made of real videos, by: blend, drift; never saw a deepfake"


def with_fakes(clips, manipulation):
    """The clips, fakes with a manipulation by their number, which is moved or dropped if None."""
    return [
        dataclasses.replace(c, manipulation=manipulation(n)) if c.label else c
        for n, c in enumerate(clips)
    ]


@pytest.fixture(scope="module")
def make(fabricate, easy_corpus, quick, tmp_path_factory):
    def run_on(manipulation, change=list):
        clips, x = easy_corpus(24)
        cache = fabricate(change(with_fakes(clips, manipulation)), x)
        folder = tmp_path_factory.mktemp("own") / "run"
        fit(cache, folder, settings=quick, device="cpu")
        return load_run(folder)

    return run_on


@pytest.fixture(scope="module")
def only_own(make):
    return make(lambda n: OWN[n // 2 % 3])


@pytest.fixture(scope="module")
def both(make):
    """Own fakes train; of the unseen fakes half are own ones, as a CSV file may prescribe."""

    def chosen(n):
        unseen = n // 2 % 8 < 3
        return "Deepfakes" if unseen and n // 16 % 2 else OWN[n // 2 % 3]

    return make(chosen)


@pytest.fixture(scope="module")
def on_real(make):
    return make(lambda n: "Deepfakes" if n // 2 % 8 < 3 else OWN[n // 2 % 3])


def metrics_of(run):
    return json.loads((run.folder / "metrics.json").read_text())


def test_apart_are_real_fakes_and_own_ones_each_with_all_real_videos(easy_corpus):
    clips, _ = easy_corpus(4)
    names = {1: "own:blend", 3: "Deepfakes", 5: "own:drift", 7: ""}
    masks = apart("test", with_fakes(clips, names.get))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {
        "test": [0, 2, 3, 4, 6, 7],
        "test on own fakes": [0, 1, 2, 4, 5, 6],
    }
    assert list(apart("test", with_fakes(clips, lambda n: "Deepfakes"))) == ["test"]
    assert list(apart("test", with_fakes(clips, lambda n: "own:blend"))) == ["test on own fakes"]


def test_a_test_on_own_fakes_alone_says_so_wherever_a_number_is(only_own):
    evaluation = evaluate(only_own, controls=False, device="cpu")
    metrics = metrics_of(only_own)
    assert {"test on own fakes", "holdout on own fakes"} <= set(metrics)
    assert not {"test", "holdout"} & set(metrics)
    assert TESTED_ON_OWN_FAKES in metrics["warnings"]
    page = write_report(only_own, evaluation).read_text()
    for text in (page, table(evaluation)):
        assert "on own fakes" in text
        assert "this does not tell how it does on real fakes" in text
        assert NEVER in text
    for line in headline(evaluation).splitlines():
        assert "AUC" not in line or "on own fakes" in line
    kinds = metrics["by_manipulation"]["test on own fakes"]
    assert set(kinds) == {"own:blend", "own:drift"}
    tested = [c for c in Cache(only_own.config.cache).clips if c.split == "test" and c.label]
    assert kinds["own:drift"]["fake"] == sum("drift" in c.manipulation for c in tested)
    assert kinds["own:drift"]["real"] == kinds["own:blend"]["real"] == len(tested)
    assert "own:drift" in table(evaluation)


def test_a_test_on_real_fakes_is_a_test_as_any_other_of_a_run_that_saw_none(on_real):
    evaluation = evaluate(on_real, controls=False, device="cpu")
    metrics = metrics_of(on_real)
    assert "test" in metrics
    assert "test on own fakes" not in metrics
    assert TESTED_ON_OWN_FAKES not in evaluation.warnings
    assert f"It was {NEVER}." in metrics["warnings"]
    page = write_report(on_real, evaluation).read_text()
    assert f"<dt>Fakes</dt><dd>{NEVER}</dd>" in page
    assert '<th scope="col">own fakes</th>' in page


def test_where_both_are_tested_no_number_is_of_both(both):
    evaluation = evaluate(both, controls=False, device="cpu")
    clips = {clip.video: clip for clip in Cache(both.config.cache).clips}
    with (both.folder / "predictions.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "test"]
    scores = {r["id"]: float(r["probability"]) for r in rows}
    metrics = metrics_of(both)
    for name, own in (("test", False), ("test on own fakes", True)):
        videos = [v for v in scores if not clips[v].label or clips[v].is_own_fake == own]
        labels = np.array([clips[v].label for v in videos])
        expected = auc_roc(labels, np.array([scores[v] for v in videos]))
        assert metrics[name]["auc_roc"]["value"] == pytest.approx(expected)
        assert metrics[name]["auc_roc"]["n"] == len(videos)
        assert metrics["coverage"][name] == {"videos": len(videos), "scored": len(videos)}
        assert 0 < labels.sum() < sum(clips[v].label for v in scores)
    assert TESTED_ON_OWN_FAKES not in evaluation.warnings
    assert {line.split(":")[0] for line in headline(evaluation).splitlines()} >= {
        *("test", "test on own fakes")
    }
    unseen = sum(v.split in ("test", "holdout") for v in evaluation.videos)
    assert f"of the {unseen} scored videos" in write_report(both, evaluation).read_text()


def test_two_runs_are_compared_on_real_fakes_where_there_are_any(both, only_own):
    tested = [c for c in Cache(both.config.cache).clips if c.split == "test"]
    compared = compare_runs(both, both)
    assert compared.videos == sum(not c.is_own_fake for c in tested)
    assert TESTED_ON_OWN_FAKES not in compared.warnings
    assert TESTED_ON_OWN_FAKES in compare_runs(only_own, only_own).warnings


def test_another_corpus_of_own_fakes_is_named_as_well(on_real, fabricate, easy_corpus, fitted):
    clips, x = easy_corpus(4)
    strangers = [
        dataclasses.replace(
            c, id=f"x{n}", video=f"x{n}", identities=(f"x{n // 2}",), source_sha256=f"{n:064}"
        )
        for n, c in enumerate(with_fakes(clips, lambda n: "own:lag"))
    ]
    found = evaluate_elsewhere(on_real, fabricate(strangers, x), controls=False, device="cpu")
    assert list(found.coverage) == ["all on own fakes"]
    assert TESTED_ON_OWN_FAKES in found.warnings


def test_scores_that_never_saw_a_fake_are_apart_as_well(fabricate, easy_corpus, quick, tmp_path):
    clips, x = easy_corpus(24)
    rng = np.random.default_rng(0)
    kept = [n for n, c in enumerate(clips) if not c.label or n // 2 % 8 < 2]
    named = with_fakes(clips, lambda n: "Deepfakes" if n // 16 % 2 else "own:blend")
    motion = rng.normal(size=(len(kept), x.shape[1], len(NAMES)))
    cache = fabricate([named[n] for n in kept], x[kept], motion=motion)
    run = fit(cache, tmp_path / "run", settings=quick, device="cpu")
    found = evaluate_real_only(run, cache)
    fakes = [c for c in cache.clips if c.label and c.split == "test"]
    n_own = sum(c.is_own_fake for c in fakes)
    assert 0 < n_own < len(fakes)
    assert {name: n["fake"] for name, n in found.coverage.items()} == {
        "test": len(fakes) - n_own,
        "test on own fakes": n_own,
    }
    for result in found.metrics.values():
        assert result["motion anomaly"]["auc_roc"].value is not None
    assert "test on own fakes: " in str(found)


def test_a_run_knows_what_fakes_it_was_trained_on(only_own, fitted, make):
    config = read_config(only_own.folder)
    assert (config.own_kinds, config.saw_real_fakes) == (("blend", "drift"), False)
    assert config.fakes_trained_on == NEVER
    with (only_own.folder / "training.csv").open(newline="") as file:
        kinds = {row["own_kinds"] for row in csv.DictReader(file)}
    assert kinds == {"", "blend", "drift", "blend+drift"}
    usual = read_config(fitted.folder)
    assert (usual.own_kinds, usual.saw_real_fakes, usual.fakes_trained_on) == ((), True, "")
    mixed = make(lambda n: "Deepfakes" if n % 4 == 1 else "own:drift")
    assert mixed.config.fakes_trained_on.endswith("by: drift; and on real fakes")
    assert mixed.config.warnings == usual.warnings


def test_a_run_made_before_loads_without_what_it_does_not_say(only_own, tmp_path):
    values = json.loads((only_own.folder / "config.json").read_text())
    del values["own_kinds"], values["saw_real_fakes"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = read_config(tmp_path)
    assert (config.own_kinds, config.saw_real_fakes) == ((), True)


def test_the_folds_validate_on_own_fakes_of_people_who_do_not_train(make):
    def resplit(clips):
        return split_clips(clips, Splitting(test=0.25))

    run = make(lambda n: "Deepfakes" if n // 2 % 3 == 0 else OWN[n // 2 % 3], resplit)
    clips = Cache(run.config.cache).clips
    trained = [c for c in clips if c.split == "train"]
    assert {c.is_own_fake for c in trained if c.label} == {True}
    assert {c.is_own_fake for c in clips if c.label and c.split == "test"} == {False}
    assert run.config.n_heads > 1
    assert not run.config.saw_real_fakes
