"""Comparing two detectors: against brute force, and what must be true of any comparison."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from scipy.stats import binomtest, kstest, norm
from sklearn.metrics import roc_auc_score

from model.evaluate import main as evaluate_command
from model.evaluation.evaluation import DETECTOR, evaluate
from model.evaluation.run_comparison import compare_runs
from model.fitting import fit
from model.run.run import load_run
from model.statistics.comparison import Scored, compare, delong, sentence
from pipeline.common.errors import SettingsError

RARE = 1e-3  # of a true statement: such a test fails once in a thousand seeds


@pytest.fixture(scope="module")
def two():
    """Labels and scores of two detectors, with ties, on the same 70 videos."""
    rng = np.random.default_rng(0)
    labels = np.arange(70) % 3 % 2  # 47 real, 23 fake
    common = rng.normal(size=70)
    a = (common + rng.normal(size=70) + 1.2 * labels).round(1)
    b = (common + rng.normal(size=70) + 0.4 * labels).round(1)
    return labels, a, b


def by_brute_force(labels, a, b):
    """DeLong et al. (1988), equations 4 to 8, pair by pair."""
    fakes, reals = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    kernel = np.array(
        [[[(s[f] > s[r]) + 0.5 * (s[f] == s[r]) for r in reals] for f in fakes] for s in (a, b)]
    )  # (2, fakes, reals)
    aucs = kernel.mean((1, 2))
    covariance = np.cov(kernel.mean(2)) / len(fakes) + np.cov(kernel.mean(1)) / len(reals)
    z = (aucs[0] - aucs[1]) / np.sqrt([1, -1] @ covariance @ [1, -1])
    return *aucs, 2 * norm.sf(abs(z))


# ----------------------------------------------------------------------------------------- DeLong


def test_delong_is_that_of_brute_force_and_its_aucs_those_of_scikit_learn(two):
    labels, a, b = two
    found = delong(labels, a, b)
    assert found == pytest.approx(by_brute_force(labels, a, b), rel=1e-9)
    assert found[:2] == pytest.approx((roc_auc_score(labels, a), roc_auc_score(labels, b)))
    assert 0.001 < found[2] < 0.2, "neither certain nor nothing"


def test_delong_does_not_care_which_comes_first_nor_about_the_scale(two):
    labels, a, b = two
    assert delong(labels, a, b)[2] == pytest.approx(delong(labels, b, a)[2])
    assert delong(labels, np.exp(a), 3 * b - 1)[2] == pytest.approx(delong(labels, a, b)[2])


def test_the_same_scores_do_not_differ(two):
    labels, a, _ = two
    assert delong(labels, a, a)[2] == 1
    assert delong(labels, a, 2 * a)[2] == 1


def test_detectors_that_are_equally_good_get_uniform_p_values():
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        labels = np.arange(120) % 2
        common = labels + rng.normal(size=120)
        a, b = (common + 0.7 * rng.normal(size=120) for _ in range(2))
        found.append(delong(labels, a, b)[2])
    assert kstest(found, "uniform").pvalue > RARE
    assert binomtest(int((np.array(found) <= 0.05).sum()), 300, 0.05).pvalue > RARE


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [0, 1, 1]])
def test_what_too_few_videos_cannot_show_is_undefined(labels):
    labels = np.array(labels)
    assert np.isnan(delong(labels, np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.1, 0.2]))[2])


def test_a_difference_without_any_spread_is_undefined_not_certain():
    labels = np.array([0, 0, 1, 1])
    perfect, wrong = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.8, 0.9, 0.1, 0.2])
    auc_a, auc_b, p = delong(labels, perfect, wrong)
    assert (auc_a, auc_b) == (1, 0)
    assert np.isnan(p)


# ------------------------------------------------------------------------------- paired bootstrap


def test_the_same_detector_twice_has_no_difference_and_p_1(two):
    labels, a, _ = two
    one = Scored(a, 0.5)
    found = compare(labels, one, one, np.arange(70))
    for _, _, difference in (found.auc_roc, found.accuracy):
        assert (difference.value, difference.low, difference.high) == (0, None, None)
    assert (found.auc_delong_p, found.auc_p, found.accuracy_p) == (1, 1, 1)


def test_a_comparison_is_paired_and_turns_its_sign_with_its_sides(two):
    labels, a, b = two
    there = compare(labels, Scored(a, 0.5), Scored(b, 0.3), np.arange(70))
    back = compare(labels, Scored(b, 0.3), Scored(a, 0.5), np.arange(70))
    difference = there.auc_roc[2]
    assert difference.value == pytest.approx(roc_auc_score(labels, a) - roc_auc_score(labels, b))
    assert back.auc_roc[2].value == pytest.approx(-difference.value)
    assert back.auc_roc[2].low == pytest.approx(-difference.high)
    assert back.auc_p == there.auc_p
    assert there.accuracy[0].value == ((a >= 0.5) == labels).mean()
    assert there.accuracy[1].value == ((b >= 0.3) == labels).mean()
    # An unpaired interval would be as wide as both together.
    apart = np.hypot(*[m.high - m.low for m in there.auc_roc[:2]])
    assert difference.high - difference.low < 0.9 * apart


def test_bootstrap_and_delong_agree_where_nobody_recurs(two):
    labels, a, b = two
    found = compare(labels, Scored(a, 0.5), Scored(b, 0.5), np.arange(70))
    assert found.auc_p == pytest.approx(found.auc_delong_p, abs=0.03)


def test_linked_videos_count_once(two):
    labels, a, b = (np.tile(values, 4) for values in two)
    linked = compare(labels, Scored(a, 0.5), Scored(b, 0.5), np.tile(np.arange(70), 4))
    alone = compare(*[labels[:70], Scored(a[:70], 0.5), Scored(b[:70], 0.5)], np.arange(70))
    widths = [m.auc_roc[2].high - m.auc_roc[2].low for m in (linked, alone)]
    assert widths[0] == pytest.approx(widths[1], rel=0.2)
    assert linked.auc_delong_p < linked.auc_p / 2, "it takes them for strangers"


def test_too_few_groups_give_no_interval_and_no_p(two):
    labels, a, b = two
    found = compare(labels, Scored(a, 0.5), Scored(b, 0.5), np.arange(70) % 5)
    assert (found.auc_p, found.accuracy_p, found.auc_roc[2].low) == (None, None, None)
    said = sentence("chance", found, meaning="good", otherwise="bad")
    assert said.startswith("There are too few groups")


def test_the_sentence_says_which_is_better_or_that_nobody_knows(two):
    labels, a, _ = two
    groups = np.arange(70)

    def said(x, y):
        found = compare(labels, Scored(x, 0.5), Scored(y, 0.5), groups)
        return sentence("it", found, meaning="order matters", otherwise="order may not matter")

    noise = np.random.default_rng(1).normal(size=70)
    assert "is higher than that of the it control" in said(a + 3 * labels, noise)
    assert said(a + 3 * labels, noise).endswith(": order matters.")
    assert "is lower than that of the it control" in said(noise, a + 3 * labels)
    assert "not distinguishable from that of the it control" in said(a, a)
    assert said(a, a).endswith(": order may not matter.")


# --------------------------------------------------------------------------------------- two runs


@pytest.fixture(scope="module")
def small(fabricate, easy_corpus):
    return fabricate(*easy_corpus(24))


@pytest.fixture(scope="module")
def runs(small, fabricate, fast, easy_corpus, tmp_path_factory):
    """Two runs on the same videos, embedded twice: the second time they say little."""
    folder = tmp_path_factory.mktemp("two")
    clips, x = easy_corpus(24)
    rng = np.random.default_rng(1)
    order = rng.permutation(len(clips))
    poor = fabricate([clips[n] for n in order], rng.normal(size=x.shape).astype(np.float32)[order])
    settings = dataclasses.replace(fast, max_epochs=6)
    for name, cache in {"a": small, "b": poor}.items():
        fit(cache, folder / name, settings=settings, n_folds=2, device="cpu")
    return folder / "a", folder / "b"


def test_two_runs_are_compared_video_by_video(runs, run_command):
    done = run_command(evaluate_command, *runs, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["videos"], found["scored"]) == (12, 12)
    for run, side in zip(map(load_run, runs), "ab", strict=True):
        test = evaluate(run, controls=False).metrics[DETECTOR]["test"]
        for metric in ("auc_roc", "accuracy"):
            assert found["comparison"][metric][side]["value"] == pytest.approx(test[metric].value)
    auc = found["comparison"]["auc_roc"]
    assert auc["difference"]["value"] == pytest.approx(auc["a"]["value"] - auc["b"]["value"])
    assert auc["difference"]["value"] > 0.2
    text = run_command(evaluate_command, *runs).stdout
    assert "12 test videos in both" in text
    assert "DeLong p" in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_run_compared_with_itself_has_no_difference(runs):
    run = load_run(runs[0])
    comparison = compare_runs(run, run).comparison
    assert comparison.auc_roc[2].value == 0
    assert comparison.auc_delong_p == 1


def with_cache(run, cache):
    config = dataclasses.replace(run.config, cache=str(cache.folder), cache_sha256=cache.sha256)
    return dataclasses.replace(run, config=config)


def test_other_test_videos_are_refused_with_how_many_are_common(runs, fabricate, easy_corpus):
    clips, x = easy_corpus(24)
    lost = next(n for n, clip in enumerate(clips) if clip.split == "test")
    fewer = fabricate([c for n, c in enumerate(clips) if n != lost], np.delete(x, lost, axis=0))
    run = load_run(runs[0])
    with pytest.raises(SettingsError, match="11 videos are in both, 1 only in the first, 0 only"):
        compare_runs(run, with_cache(run, fewer))


def test_other_labels_are_refused(runs, fabricate, easy_corpus):
    clips, x = easy_corpus(24)
    swapped = [
        dataclasses.replace(clip, label=1 - clip.label) if clip.split == "test" else clip
        for clip in clips
    ]
    run = load_run(runs[0])
    with pytest.raises(SettingsError, match=r"12 of the 12 test videos .* have other labels"):
        compare_runs(run, with_cache(run, fabricate(swapped, x)))


def test_a_run_that_trained_on_the_others_test_videos_is_refused(
    runs, fabricate, easy_corpus, fast, tmp_path, run_command
):
    clips, x = easy_corpus(24)
    turned = {"test": "train", "train": "test"}
    resplit = [
        dataclasses.replace(clip, split=turned.get(clip.split, clip.split)) for clip in clips
    ]
    settings = dataclasses.replace(fast, max_epochs=1)
    fit(
        fabricate(resplit, x),
        tmp_path / "run",
        settings=settings,
        n_folds=2,
        device="cpu",
    )
    done = run_command(evaluate_command, runs[0], tmp_path / "run")
    assert done.exit_code == 4, done.output
    assert "were trained on by" in done.stderr
    assert "hint:" in done.stderr


def test_two_runs_and_a_cache_are_too_much(runs, small, run_command):
    done = run_command(evaluate_command, *runs, "--cache", small.folder)
    assert done.exit_code == 2
    assert "are for one run, not for two" in done.stderr


def test_a_run_that_does_not_say_whom_it_was_trained_on_is_refused(runs, run_command, tmp_path):
    shutil.copytree(runs[0], tmp_path / "run")
    (tmp_path / "run" / "training.csv").unlink()
    done = run_command(evaluate_command, runs[1], tmp_path / "run")
    assert done.exit_code == 4
    assert "training.csv is not there" in done.stderr
