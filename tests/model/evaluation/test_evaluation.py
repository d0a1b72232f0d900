"""Evaluation: numbers that anybody can recompute, beside baselines, on the very same videos."""

import base64
import csv
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from model.evaluate import main as evaluate_command
from model.evaluation.controls import (
    ALONE,
    MEAN_POOL,
    METADATA,
    SHUFFLED,
    UNUSUAL_SCORES,
    logistic_regression,
    mean_pooled,
    metadata,
)
from model.evaluation.evaluation import DETECTOR, evaluate
from model.fitting import fit
from model.reports.run_report import write_report
from model.reports.summary import CHANCE, SHOWN, headline, table
from model.run.run import load_run, seal
from model.statistics.metrics import auc_roc
from pipeline.cache import Cache
from pipeline.common.errors import IntegrityError, NothingUsable, SettingsError

NEVER_SAW_A_FAKE = [name for score, name in UNUSUAL_SCORES.items() if score != "trajectory"]


@pytest.fixture(scope="module")
def evaluated(fitted):
    run = load_run(fitted.folder)
    evaluation = evaluate(run)
    write_report(run, evaluation)
    return evaluation


@pytest.fixture(scope="module")
def metrics(evaluated, fitted):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((fitted.folder / "metrics.json").read_text(), parse_constant=refuse)


@pytest.fixture
def quick_run(fabricate, fast, tmp_path, numbers_only):
    """Fit for one epoch on made-up clips."""

    def make(clips, x, folder=None, **kwargs):
        settings = dataclasses.replace(fast, max_epochs=1)
        cache = fabricate(clips, x, **kwargs)
        return fit(cache, folder or tmp_path / "run", settings=settings, device="cpu")

    return make


def scored(folder, split):
    """Labels and probabilities of one split, from predictions.csv."""
    with (folder / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return (
        np.array([int(row["label"]) for row in rows]),
        np.array([float(row["probability"]) for row in rows]),
    )


# ------------------------------------------------------------------------------------ the numbers


def test_every_metric_of_every_split_has_value_interval_and_number(metrics):
    written = (
        "test holdout controls absent_controls comparisons verdicts by_manipulation by_source "
        "coverage videos_in_no_split files_rejected cache cache_sha256 warnings"
    )
    assert set(metrics) == set(written.split())
    assert set(metrics["controls"]) == {MEAN_POOL, METADATA, *NEVER_SAW_A_FAKE, SHUFFLED}
    assert set(metrics["absent_controls"]) == set(ALONE.values())
    of_splits = [metrics, *metrics["controls"].values()]
    for values in [of[split] for of in of_splits for split in ("test", "holdout")]:
        assert set(values) == {*SHOWN, "threshold", "confusion"}
        for name in (*SHOWN, "threshold"):
            assert set(values[name]) == {"value", "low", "high", "n"}, name
        assert sum(values["confusion"]) == values["accuracy"]["n"]


def test_the_numbers_are_those_of_predictions_csv(metrics, fitted):
    threshold = load_run(fitted.folder).config.threshold
    for split in ("test", "holdout"):
        labels, p = scored(fitted.folder, split)
        verdicts = p >= threshold
        expected = {
            "accuracy": sk.accuracy_score(labels, verdicts),
            "precision": sk.precision_score(labels, verdicts),
            "recall": sk.recall_score(labels, verdicts),
            "f1": sk.f1_score(labels, verdicts),
            "auc_roc": sk.roc_auc_score(labels, p),
            "average_precision": sk.average_precision_score(labels, p),
            "brier": sk.brier_score_loss(labels, p),
            "threshold": threshold,
        }
        found = {name: metrics[split][name]["value"] for name in expected}
        assert found == pytest.approx(expected, abs=1e-5)  # of batches of another size
        assert metrics[split]["accuracy"]["n"] == len(labels)
        assert metrics[split]["confusion"] == sk.confusion_matrix(labels, verdicts).ravel().tolist()


def test_coverage_counts_videos_and_those_with_a_score(metrics, fitted):
    videos = {
        split: len({clip.video for clip in fitted.cache.clips if clip.split == split})
        for split in ("test", "holdout")
    }
    expected = {split: {"videos": n, "scored": n} for split, n in videos.items()}
    assert metrics["coverage"] == expected
    assert metrics["videos_in_no_split"] == 2
    assert metrics["files_rejected"] == 0
    assert metrics["warnings"] == []


def test_an_easy_corpus_is_learned_and_its_metadata_give_nothing_away(metrics):
    assert metrics["test"]["auc_roc"]["value"] > 0.9
    assert metrics["controls"][METADATA]["test"]["auc_roc"]["value"] == 0.5  # all files are alike


def test_evaluating_again_gives_the_same_bytes(evaluated, fitted):
    before = (fitted.folder / "metrics.json").read_bytes()
    evaluate(load_run(fitted.folder))
    assert (fitted.folder / "metrics.json").read_bytes() == before


def test_the_table_has_every_metric_of_every_detector(evaluated, fitted):
    text = table(evaluated)
    assert "test: 24 videos, 24 of them scored" in text
    for name in (*SHOWN, "threshold", DETECTOR, MEAN_POOL, METADATA, SHUFFLED):
        assert name in text
    assert "2 videos are left out, being in no split; 0 files were unusable" in text
    assert "nan" not in text.lower()
    assert max(map(len, text.splitlines())) <= 100


def test_clips_of_one_video_count_once(easy_corpus, quick_run):
    clips, x = easy_corpus(16)
    twins = [dataclasses.replace(clip, id=f"{clip.id}-1") for clip in clips]
    run = quick_run([*clips, *twins], np.concatenate([x, x]))
    evaluation = evaluate(run)
    n = sum(clip.split == "test" for clip in clips)
    assert evaluation.coverage["test"] == {"videos": n, "scored": n}
    for of_split in evaluation.metrics.values():
        assert of_split["test"]["accuracy"].n == n


# ---------------------------------------------------------------------------------------- baselines


def metadata_auc(clip, rng, fps_of):
    """Of two hundred unseen files, after a fit on as many others."""
    clips = [
        clip(
            n,
            n % 2,
            fps=fps_of(n % 2),
            duration=rng.uniform(3, 30),
            bit_rate=rng.uniform(1e5, 1e6),
            n_bytes=int(rng.uniform(1e5, 1e6)),
        )
        for n in range(400)
    ]
    labels = np.arange(400) % 2
    train, test = np.arange(200), np.arange(200, 400)
    halves = [(train[:100], train[100:]), (train[100:], train[:100])]
    fitted, _ = logistic_regression(metadata(clips)[train], labels[train], halves)
    return auc_roc(labels[test], fitted.predict_proba(metadata(clips)[test])[:, 1])


def test_metadata_that_say_nothing_of_the_label_stay_at_chance(clip):
    aucs = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        aucs.append(metadata_auc(clip, rng, lambda label, rng=rng: rng.choice([24, 25, 30])))
    # Three standard errors of the AUC of 100 real and 100 fake files under chance.
    assert abs(np.mean(aucs) - 0.5) < 3 * np.sqrt(201 / (12 * 100 * 100) / len(aucs)), aucs


def test_metadata_that_give_the_label_away_are_found_out(clip):
    rng = np.random.default_rng(0)
    mostly = metadata_auc(
        clip, rng, lambda label: rng.choice([24, 30], p=[0.9, 0.1] if label else [0.1, 0.9])
    )
    assert mostly > 0.8


def test_chance_is_called_chance_wherever_the_auc_is_shown(easy_corpus, quick_run):
    """Nothing tells these videos apart."""
    run = quick_run(*easy_corpus(16, shift=0.0))
    evaluation = evaluate(run, controls=False)
    assert evaluation.metrics[DETECTOR]["test"]["auc_p_value"].value > 0.05
    assert f"{CHANCE})" in headline(evaluation)
    assert f"The AUC is {CHANCE}." in table(evaluation)
    assert (
        f"The AUC of the detector is {CHANCE}"
        in Page(write_report(run, evaluation).read_text()).text
    )


def test_a_corpus_whose_frame_rate_gives_it_away_is_shown_as_such(easy_corpus, quick_run):
    clips, x = easy_corpus(16, shift=0.0)
    clips = [dataclasses.replace(clip, fps=30.0 if clip.label else 24.0) for clip in clips]
    evaluation = evaluate(quick_run(clips, x), controls=False)
    assert evaluation.metrics[METADATA]["test"]["auc_roc"].value == 1


def test_mean_pooling_averages_over_time(sequences):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(mean_pooled(sequences(x, [0, 1])), x.mean(1))


def test_the_baselines_threshold_comes_from_validation_folds_alone(clip):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    features = rng.normal(size=(60, 2)) + labels[:, None]
    folds = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    model, threshold = logistic_regression(features, labels, folds)
    assert 0.2 < threshold < 0.8
    assert auc_roc(labels, model.predict_proba(features)[:, 1]) > 0.7


# ------------------------------------------------------------------------------ what may be missing


@pytest.mark.parametrize("label", [0, 1])
def test_a_test_split_with_one_class_has_no_nan(label, easy_corpus, quick_run):
    clips, x = easy_corpus(16)
    kept = [n for n, c in enumerate(clips) if c.split != "test" or c.label == label]
    run = quick_run([clips[n] for n in kept], x[kept])
    evaluation = evaluate(run)
    text = (run.folder / "metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["test"]["auc_roc"]["value"] is None
    assert json.loads(text)["test"]["accuracy"]["value"] is not None
    assert "nan" not in table(evaluation)
    page = write_report(run, evaluation).read_text()
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page)


def test_a_video_without_a_score_is_counted_and_the_others_are_evaluated(easy_corpus, quick_run):
    clips, x = easy_corpus(16)
    lost = next(n for n, clip in enumerate(clips) if clip.split == "test")
    x[lost] = np.nan
    run = quick_run(clips, x)
    evaluation = evaluate(run)
    n = sum(clip.split == "test" for clip in clips)
    assert evaluation.coverage["test"] == {"videos": n, "scored": n - 1}
    assert evaluation.metrics[DETECTOR]["test"]["accuracy"].n == n - 1
    assert evaluation.metrics[DETECTOR]["test"]["auc_roc"].value is not None


def test_without_a_holdout_there_is_only_the_test_split(easy_corpus, quick_run):
    clips, x = easy_corpus(16)
    kept = [n for n, clip in enumerate(clips) if clip.split != "holdout"]
    run = quick_run([clips[n] for n in kept], x[kept])
    assert set(evaluate(run, controls=False).coverage) == {"test"}


def test_with_nothing_unseen_there_is_nothing_to_evaluate(easy_corpus, quick_run):
    clips, x = easy_corpus(16)
    kept = [n for n, clip in enumerate(clips) if clip.split == "train"]
    run = quick_run([clips[n] for n in kept], x[kept])
    with pytest.raises(NothingUsable, match="neither a test split nor a holdout"):
        evaluate(run)


# -------------------------------------------------------------------------------- the right cache


def test_another_cache_is_refused(fitted, fabricate, easy_corpus):
    with pytest.raises(IntegrityError, match="is not the cache that"):
        evaluate(load_run(fitted.folder), fabricate(*easy_corpus(16)))


def test_another_cache_of_the_same_people_is_a_leak(fitted, fabricate, easy_corpus, run_command):
    other = fabricate(*easy_corpus(16))
    done = run_command(evaluate_command, fitted.folder, "--cache", other.folder)
    assert done.exit_code == 4
    assert "were trained on by" in done.stderr


def test_the_cache_may_have_moved_and_the_numbers_come_as_json(fitted, run_command, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(fitted.cache.folder, moved)
    done = run_command(evaluate_command, fitted.folder, "--cache", moved, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["test"]["auc_roc"]["n"] == 24


def test_a_cache_that_is_gone_is_an_error_that_names_the_option(fitted, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "model.pt"):
        (folder / name).write_bytes((fitted.folder / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"cache": str(tmp_path / "gone")}))
    seal(folder)
    with pytest.raises(SettingsError, match="gone") as caught:
        evaluate(load_run(folder))
    assert "--cache" in caught.value.hint


def test_the_cache_is_found_from_whatever_folder(
    fabricate, easy_corpus, fast, tmp_path, monkeypatch, numbers_only
):
    fabricate(*easy_corpus(16), folder=tmp_path / "here" / "cache")
    monkeypatch.chdir(tmp_path / "here")
    settings = dataclasses.replace(fast, max_epochs=1)
    fit(Cache("cache"), Path("run"), settings=settings, device="cpu")
    monkeypatch.chdir(tmp_path)
    assert evaluate(load_run(Path("here/run")), controls=False).coverage["test"]["videos"]


def test_a_cache_that_came_to_leak_is_refused(fitted, fabricate, tmp_path):
    clips = [dataclasses.replace(clip, identities=("everybody",)) for clip in fitted.cache.clips]
    x = np.stack([fitted.cache.read(clip, "flow") for clip in fitted.cache.clips])
    leaking = fabricate(clips, x)
    run = load_run(fitted.folder)
    config = dataclasses.replace(run.config, cache_sha256=leaking.sha256)
    with pytest.raises(IntegrityError, match=r"(?s)1 identities.*: everybody"):
        evaluate(dataclasses.replace(run, config=config), leaking)


# ------------------------------------------------------------------------------ curves and report


class Page(HTMLParser):
    """What a browser would make of a page: its tags, and its text without markup."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_curves_are_pictures(evaluated, fitted):
    for name in ("roc.png", "precision_recall.png", "reliability.png", "training.png"):
        content = (fitted.folder / name).read_bytes()
        assert content.startswith(b"\x89PNG"), name
        assert len(content) > 5000, name


def test_the_report_needs_nothing_but_itself(evaluated, fitted):
    page = Page((fitted.folder / "report.html").read_text())
    assert {"link", "iframe", "object"}.isdisjoint(page.tags)
    assert len(page.images) == 4
    for image in page.images:
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
        assert image["alt"]


def test_the_report_shows_what_the_table_shows(evaluated, metrics, fitted):
    text = Page((fitted.folder / "report.html").read_text()).text
    assert "Test: 24 videos, 24 scored" in text
    assert "Holdout:" in text
    for name in (*SHOWN, MEAN_POOL, METADATA, "mobilenet_v2"):
        assert name in text
    assert f"{metrics['test']['auc_roc']['value']:.3f}" in text
    assert "never trained" not in text


def test_a_hostile_folder_name_is_only_text(fitted, evaluated, tmp_path):
    name = "<script>alert(1)<|script><img src=x onerror=alert(2)>\"'&amp;".replace("/", "")
    folder = tmp_path / name
    folder.mkdir()
    run = dataclasses.replace(load_run(fitted.folder), folder=folder)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, cache=f"/{name}"))
    page = Page(write_report(run, dataclasses.replace(evaluated, folder=folder)).read_text())
    assert "img" not in page.tags
    assert page.tags.count("script") == 2, "the table's data and what shows them"
    assert name in page.text


def test_random_weights_are_announced_wherever_numbers_are_shown(
    easy_corpus, quick_run, run_command
):
    run = quick_run(*easy_corpus(16), weights="random:0")
    done = run_command(evaluate_command, run.folder, "--no-controls")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("WARNING: The backbone mobilenet_v2 has random:0 weights")
    page = Page((run.folder / "report.html").read_text())
    assert "has random:0 weights: it was never trained" in page.text
    assert "random:0" in json.loads((run.folder / "metrics.json").read_text())["warnings"][0]


def test_the_command_prints_the_table(fitted, run_command):
    done = run_command(evaluate_command, fitted.folder)
    assert done.exit_code == 0, done.output
    assert "auc_roc" in done.stdout
    assert done.stdout.endswith(f"report: {fitted.folder / 'report.html'}\n")
