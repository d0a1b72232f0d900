"""Probabilities that mean what they say, thresholds that keep their promise, and abstention."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from model.evaluation.evaluation import DETECTOR, evaluate
from model.fit import main as fit_command
from model.fitting import fit
from model.run.per_video_scores import score_videos
from model.run.run import load_run
from model.statistics.calibration import fit_temperature, operating_point
from model.statistics.metrics import (
    distance,
    expected_calibration_error,
    point_metrics,
    threshold_at_fpr,
)
from model.training.sequences import load_sequences


@pytest.fixture(scope="module")
def overconfident():
    """Logits three times as large as the odds are."""
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 4000)
    return (rng.random(4000) < expit(odds)).astype(int), 3 * odds


@pytest.fixture(scope="module")
def small(fabricate, easy_corpus):
    return fabricate(*easy_corpus(16, shift=0.6))


def predictions(folder, *splits):
    with (folder / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in splits]
    labels = np.array([int(row["label"]) for row in rows])
    return labels, np.array([float(row["probability"]) for row in rows])


# ------------------------------------------------------------------------------------ temperature


def test_the_temperature_undoes_what_makes_logits_too_large(overconfident):
    labels, logits = overconfident
    temperature = fit_temperature(labels, logits)
    assert temperature == pytest.approx(3, rel=0.1)
    before = expected_calibration_error(labels, expit(logits))
    after = expected_calibration_error(labels, expit(logits / temperature))
    assert after < 0.03 < before


def test_the_temperature_has_the_least_balanced_log_loss(overconfident):
    labels, logits = overconfident
    keep = (labels == 0) | (np.arange(len(labels)) % 8 == 0)  # fakes are rare
    labels, logits = labels[keep], logits[keep]
    weights = len(labels) / (2 * np.bincount(labels)[labels])
    best = minimize_scalar(
        lambda t: log_loss(labels, expit(logits / t), sample_weight=weights),
        bounds=(0.05, 20),
        method="bounded",
    )
    assert fit_temperature(labels, logits) == pytest.approx(best.x, rel=0.03)  # Platt's targets


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1, 1]])
def test_one_class_says_nothing_about_the_temperature(labels):
    assert fit_temperature(np.array(labels, int), np.ones(len(labels))) == 1


def test_a_few_videos_without_an_error_do_not_make_certain():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    logits = np.where(labels == 1, 0.3, -0.3)
    p = expit(logits / fit_temperature(labels, logits))
    assert p.max() == pytest.approx(5 / 6, abs=1e-3)  # (n + 1) / (n + 2)


def test_the_temperature_of_a_run_is_that_of_its_validation_logits(fitted):
    config = load_run(fitted.folder).config
    labels, p = predictions(fitted.folder, "train")
    assert fit_temperature(labels, config.temperature * logit(p)) == pytest.approx(
        config.temperature, rel=1e-4
    )


def test_every_probability_is_of_the_logit_over_the_temperature(fitted):
    run = load_run(fitted.folder)
    hotter = dataclasses.replace(run.config, temperature=2 * run.config.temperature)
    data = load_sequences(fitted.cache, ("flow",), ("test",))
    _, _, p = score_videos(run, data)
    _, _, colder = score_videos(dataclasses.replace(run, config=hotter), data)
    np.testing.assert_allclose(logit(colder), logit(p) / 2)
    _, written = predictions(fitted.folder, "test")
    np.testing.assert_allclose(written, p, atol=1e-6)


# -------------------------------------------------------------------------------------- threshold


@pytest.mark.parametrize("max_fpr", [0.04, 0.05, 0.1, 0.25, 0.5])
def test_the_lowest_threshold_that_keeps_false_alarms_rare(max_fpr):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 90)
    p = rng.normal(0.4 + 0.2 * labels, 0.2).clip(0, 1).round(2)
    found = threshold_at_fpr(labels, p, max_fpr)

    def rate(threshold):
        return (p[labels == 0] >= threshold).mean()

    assert rate(found) <= max_fpr
    lower = p[p < found].max()
    assert rate(lower) > max_fpr


def test_a_share_of_all_lets_all_be_called_fake_and_ties_go_together():
    labels, p = np.array([0, 0, 0, 0, 1]), np.array([0.2, 0.5, 0.5, 0.5, 0.9])
    assert threshold_at_fpr(labels, p, 0.5) == pytest.approx(0.7)
    assert threshold_at_fpr(labels, p, 1.0) == 0.2


def test_a_rate_that_so_few_real_videos_cannot_show_is_warned_of():
    labels, logits = np.array([0] * 20 + [1] * 20), np.linspace(-1, 1, 40)
    enough = operating_point(labels, logits, max_fpr=0.05)
    assert enough.warning == ""
    few = operating_point(labels, logits, max_fpr=0.04)
    assert "0.04 cannot be measured on 20 real validation videos" in few.warning
    assert (expit(logits[:20] / few.temperature) < few.threshold).all()


def test_the_command_takes_the_rule_and_every_result_says_it(small, run_command, tmp_path):
    out = tmp_path / "run"
    options = ["--streams", "flow", "--max-epochs", 1, "--device", "cpu", "--max-fpr", 0.01]
    rest = ["--no-controls", "--cases", 0]
    done = run_command(fit_command, small.folder, "-o", out, *options, *rest)
    assert done.exit_code == 0, done.output
    assert "0.01 cannot be measured on" in done.stderr
    config = load_run(out).config
    labels, p = predictions(out, "train")
    assert not (p[labels == 0] >= config.threshold).any()
    page = (out / "report.html").read_text()
    assert "at most 1% of the real videos" in page
    assert "cannot be measured on" in page
    assert "cannot be measured on" in json.loads((out / "metrics.json").read_text())["warnings"][0]


# ------------------------------------------------------------------------------------- abstention


def test_the_margin_holds_the_share_that_was_asked_for():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    logits = rng.normal(labels, 1.0)
    for share in (0.0, 0.1, 0.29, 0.5):
        point = operating_point(labels, logits, abstain=share)
        far = distance(expit(logits / point.temperature), point.threshold)
        assert (far < point.margin).mean() == pytest.approx(share, abs=1e-9)
    assert operating_point(labels, logits).margin == 0


def test_what_is_too_close_to_call_counts_in_no_accuracy_of_the_decided():
    labels, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.52, 0.45, 0.9])
    found = point_metrics(labels, p, 0.5, margin=0.3)
    assert (found["decided"], found["accuracy_decided"]) == (0.5, 1.0)
    assert found["accuracy"] == 0.5
    nothing = point_metrics(labels, p, 0.5, margin=9.0)
    assert nothing["decided"] == 0
    assert np.isnan(nothing["accuracy_decided"])


def test_certain_probabilities_are_far_from_any_threshold():
    far = distance(np.array([0.0, 1.0]), 0.5)
    assert np.isfinite(far).all()
    assert far.min() > 30
    assert np.isfinite(distance(np.array([0.3]), np.nextafter(1, 2)))


def test_a_run_that_abstains_says_so_of_its_test_videos(small, quick, tmp_path):
    run = fit(small, tmp_path / "run", settings=quick, device="cpu", abstain=0.4)
    assert run.config.margin > 0
    _, p = predictions(run.folder, "train")
    assert (distance(p, run.config.threshold) >= run.config.margin).mean() == pytest.approx(
        0.6, abs=0.1
    )
    _, p = predictions(run.folder, "test")
    margin = float(np.median(distance(p, run.config.threshold)))
    config = dataclasses.replace(run.config, margin=margin)
    run = dataclasses.replace(run, config=config)
    found = evaluate(run, controls=False).metrics[DETECTOR]["test"]
    assert found["decided"].value == 0.5
