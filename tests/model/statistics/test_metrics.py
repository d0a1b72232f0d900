"""Metrics: each against scikit-learn or a calculation by hand, and honest intervals."""

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from model.statistics.metrics import (
    Metric,
    PValue,
    all_metrics,
    auc_drop,
    auc_roc,
    equal_error,
    expected_calibration_error,
    point_metrics,
)
from model.statistics.permutation import permutation_p_value


@pytest.fixture(scope="module")
def scored():
    """Sixty videos, some with equal scores."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    return labels, np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0, 1).round(2)


def test_every_metric_is_that_of_scikit_learn(scored):
    labels, p = scored
    verdicts = p >= 0.6
    found = point_metrics(labels, p, 0.6)
    expected = {
        "accuracy": sk.accuracy_score(labels, verdicts),
        "precision": sk.precision_score(labels, verdicts),
        "recall": sk.recall_score(labels, verdicts),
        "f1": sk.f1_score(labels, verdicts),
        "auc_roc": sk.roc_auc_score(labels, p),
        "average_precision": sk.average_precision_score(labels, p),
        "brier": sk.brier_score_loss(labels, p),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert set(found) == {*expected, "eer", "ece", "decided", "accuracy_decided"}


def test_the_p_value_of_the_auc_knows_who_is_linked(scored):
    labels, p = scored
    groups = np.arange(60) // 3
    found = all_metrics(labels, p, 0.6, groups)["auc_p_value"].value
    assert found == permutation_p_value(labels, p, groups)
    assert found != permutation_p_value(labels, p, np.arange(60))


def test_no_p_value_is_shown_as_nought():
    labels = np.arange(40) % 2
    found = all_metrics(labels, labels * 0.9, 0.5, np.arange(40))["auc_p_value"]
    assert 0 < found.value < 0.001 and str(found) == "<0.001"
    assert str(PValue(0.001, None, None, 2)) == "0.001"
    assert str(PValue(None, None, None, 2)) == "-"


def test_a_probability_at_the_threshold_is_called_fake():
    labels, p = np.array([0, 1]), np.array([0.2, 0.7])
    assert point_metrics(labels, p, 0.7)["recall"] == 1
    assert point_metrics(labels, p, np.nextafter(0.7, 1))["recall"] == 0


def test_the_confusion_matrix_counts_real_then_fake():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    p = np.array([0.1, 0.2, 0.9, 0.8, 0.7, 0.6, 0.1])
    found = all_metrics(labels, p, 0.5, np.arange(7))
    assert found["confusion"] == [2, 1, 1, 3]  # real as real, real as fake, fake as real, fake


def test_auc_of_training_is_that_of_scikit_learn(scored):
    labels, p = scored
    assert auc_roc(labels, p) == pytest.approx(sk.roc_auc_score(labels, p))
    assert np.isnan(auc_roc(np.ones(3, int), p[:3]))


EER = {
    # real, fake: equal error rate, and what the threshold lies between
    "apart": ([0.1, 0.2], [0.8, 0.9], 0.0, (0.2, 0.8)),
    "one of two": ([0.1, 0.6], [0.4, 0.9], 0.5, (0.1, 0.9)),
    "one of four": ([0.1, 0.2, 0.3, 0.7], [0.4, 0.6, 0.8, 0.9], 0.25, (0.4, 0.6)),
    "upside down": ([0.8, 0.9], [0.1, 0.2], 1.0, (0.2, 0.8)),
    "unequal numbers": ([0.1, 0.2, 0.3], [0.25, 0.9, 0.95, 0.97], (1 / 3 + 1 / 4) / 2, (0.25, 0.3)),
}


@pytest.mark.parametrize(("real", "fake", "rate", "between"), EER.values(), ids=EER)
def test_the_equal_error_rate_by_hand(real, fake, rate, between):
    labels = np.array([0] * len(real) + [1] * len(fake))
    found, threshold = equal_error(labels, np.array(real + fake))
    assert found == pytest.approx(rate)
    assert between[0] < threshold < between[1]


def test_the_threshold_of_equal_errors_lies_halfway_between_two_scores():
    _, threshold = equal_error(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9]))
    assert threshold == pytest.approx(0.4)


def test_errors_at_the_threshold_are_as_equal_as_can_be(scored):
    labels, p = scored
    rate, threshold = equal_error(labels, p)

    def errors(t):
        return (p[labels == 0] >= t).mean(), (p[labels == 1] < t).mean()

    candidates = [*np.unique(p), 2.0]
    least = min(abs(a - b) for a, b in map(errors, candidates))
    a, b = errors(threshold)
    assert abs(a - b) == pytest.approx(least)
    assert (a + b) / 2 == pytest.approx(rate)


def test_equal_scores_for_all_are_an_error_rate_of_one_half():
    rate, threshold = equal_error(np.array([0, 1, 0, 1]), np.full(4, 0.3))
    assert rate == 0.5
    assert np.isfinite(threshold)


def test_calibration_error_by_hand():
    labels = np.array([0, 1, 1, 0, 1])
    p = np.array([0.12, 0.18, 0.85, 0.95, 1.0])
    # bins: .1-.2 holds two, .8-.9 one, .9-1 two, with 1.0 itself
    by_hand = 2 / 5 * abs(0.15 - 0.5) + 1 / 5 * abs(0.85 - 1) + 2 / 5 * abs(0.975 - 0.5)
    assert expected_calibration_error(labels, p) == pytest.approx(by_hand)


def test_a_calibrated_detector_has_no_calibration_error():
    p = np.repeat([0.25, 0.75], 400)
    labels = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 != 0]).astype(int)
    assert expected_calibration_error(labels, p) == pytest.approx(0)


@pytest.mark.parametrize("label", [0, 1])
def test_what_one_class_cannot_show_is_none_and_never_nan(label):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = all_metrics(np.full(4, label), np.array([0.1, 0.2, 0.3, 0.4]), 0.9, np.arange(4))
    for name in ("auc_roc", "auc_p_value", "average_precision", "eer", "precision"):
        assert vars(found[name]) == vars(Metric(None, None, None, 4)), name
    assert found["accuracy"].value == 1 - label
    text = json.dumps({k: vars(v) if isinstance(v, Metric) else v for k, v in found.items()})
    assert "NaN" not in text


def test_every_metric_states_how_many_videos_it_is_of(scored):
    labels, p = scored
    found = all_metrics(labels, p, 0.5, np.arange(60))
    assert {metric.n for name, metric in found.items() if name != "confusion"} == {60}


# -------------------------------------------------------------------------------------- intervals


def test_intervals_hold_the_value(scored):
    labels, p = scored
    found = all_metrics(labels, p, 0.5, np.arange(60))
    for name in ("accuracy", "precision", "recall", "f1", "auc_roc", "average_precision", "brier"):
        metric = found[name]
        assert metric.low < metric.value < metric.high, name


def test_intervals_shrink_with_more_videos(scored):
    labels, p = scored

    def width(copies):
        n = 60 * copies
        found = all_metrics(np.tile(labels, copies), np.tile(p, copies), 0.5, np.arange(n))
        return found["auc_roc"].high - found["auc_roc"].low

    assert 1.4 < width(1) / width(4) < 2.9  # one over the root of the number


def test_videos_that_share_an_identity_do_not_count_as_more(scored):
    labels, p = scored
    copies = np.tile(np.arange(60), 4)  # each video four times, as one group
    grouped = all_metrics(np.tile(labels, 4), np.tile(p, 4), 0.5, copies)["accuracy"]
    alone = all_metrics(labels, p, 0.5, np.arange(60))["accuracy"]
    assert grouped.value == alone.value
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.25)


@pytest.mark.parametrize("n_groups", [1, 3])
def test_a_few_groups_say_little_about_others_so_there_is_no_interval(scored, n_groups):
    labels, p = scored
    found = all_metrics(labels, p, 0.5, np.arange(60) % n_groups)
    assert found["accuracy"].value is not None
    assert (found["accuracy"].low, found["accuracy"].high) == (None, None)


def test_a_perfect_score_has_no_interval_from_1_to_1(scored):
    labels, _ = scored
    found = all_metrics(labels, labels.astype(float), 0.5, np.arange(60))
    assert found["accuracy"] == Metric(1.0, None, None, 60)
    assert str(found["auc_roc"]) == "1.000"


def test_intervals_are_the_same_for_the_same_seed(scored):
    labels, p = scored
    first, again, other = (all_metrics(labels, p, 0.5, np.arange(60), seed=s) for s in (0, 0, 1))
    assert first == again
    assert first["auc_roc"] != other["auc_roc"]


def test_a_drop_of_auc_is_the_difference_and_its_interval_pairs_the_scores(scored):
    labels, p = scored
    apart = np.arange(60)
    worse = 1 - p
    found = auc_drop(labels, p, worse, apart)
    assert found.value == pytest.approx(
        sk.roc_auc_score(labels, p) - sk.roc_auc_score(labels, worse)
    )
    assert 0 < found.low < found.value < found.high
    assert auc_drop(labels, p, p / 2, apart) == Metric(0, None, None, 60)  # the same order


def test_a_drop_over_few_groups_or_one_class_has_no_interval_or_value(scored):
    labels, p = scored
    assert auc_drop(labels, p, 1 - p, labels).low is None
    one = labels == 1
    assert auc_drop(labels[one], p[one], p[one], np.arange(one.sum())).value is None
