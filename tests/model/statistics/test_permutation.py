"""Chance: no more and no less often called significant than it is, whoever is in the videos."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import binomtest, kstest, mannwhitneyu
from sklearn.metrics import roc_auc_score

import model.statistics.permutation
from model.statistics.metrics import auc_roc, with_intervals
from model.statistics.permutation import permutation_p_value

# Two-sided, of a true statement: such a test fails once in a thousand seeds.
RARE = 1e-3


def linked_scores(rng, labels, groups, alike):
    """Scores without any signal; ``alike`` is the share of their variance that a group has."""
    of_group = rng.normal(size=groups.max() + 1)
    return np.sqrt(alike) * of_group[groups] + np.sqrt(1 - alike) * rng.normal(size=len(labels))


def with_auc_interval(labels, scores, groups):
    def auc(rows):
        return {"auc": auc_roc(labels[rows], scores[rows])}

    return with_intervals(auc, groups)["auc"]


def by_video(rng):
    groups = np.arange(60)
    return rng.permutation(groups % 2), groups


def pairs_of_both(rng):
    """Real and fake of each person."""
    return np.tile([0, 1], 30), np.repeat(np.arange(30), 2)


def whole_people(rng):
    """Six videos of each of 24 people, who are all fake or all real."""
    return np.repeat(rng.permutation(np.arange(24) % 2), 6), np.repeat(np.arange(24), 6)


def mixed(rng):
    """Labels drawn alone, so that some groups of two to four have both and some have one."""
    groups = np.repeat(np.arange(40), rng.integers(2, 5, 40))
    return rng.integers(0, 2, len(groups)), groups


LINKS = [by_video, pairs_of_both, whole_people, mixed]


@pytest.fixture(scope="module")
def null():
    """P-values of two hundred corpora without any signal."""

    def of(links, alike=0.8):
        found = []
        for seed in range(200):
            rng = np.random.default_rng(seed)
            labels, groups = links(rng)
            found.append(
                permutation_p_value(labels, linked_scores(rng, labels, groups, alike), groups)
            )
        return np.array(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.statistics.permutation, "PERMUTATIONS", 400)
        yield {links.__name__: of(links) for links in LINKS}


@pytest.mark.parametrize("links", [links.__name__ for links in LINKS])
def test_random_labels_give_uniform_p_values_however_videos_are_linked(links, null):
    found = null[links]
    assert kstest(found, "uniform").pvalue > RARE
    assert binomtest(int((found <= 0.05).sum()), len(found), 0.05).pvalue > RARE


def test_a_test_that_takes_linked_videos_for_strangers_finds_too_much():
    """The reason for this one: the rank sum test on people who are all fake or all real."""
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels, groups = whole_people(rng)
        scores = linked_scores(rng, labels, groups, 0.8)
        found.append(mannwhitneyu(scores[labels == 1], scores[labels == 0]).pvalue)
    assert (np.array(found) <= 0.05).mean() > 0.2


@pytest.mark.parametrize("links", [by_video, whole_people], ids=["alone", "linked"])
def test_intervals_of_random_labels_contain_one_half(links):
    inside = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels, groups = links(rng)
        auc = with_auc_interval(labels, linked_scores(rng, labels, groups, 0.8), groups)
        inside.append(auc.low <= 0.5 <= auc.high)
    assert np.mean(inside) > 0.85  # 95% but for few groups; videos as strangers would give 0.6


@pytest.mark.parametrize("links", LINKS)
def test_a_signal_is_found(links):
    rng = np.random.default_rng(0)
    labels, groups = links(rng)
    scores = linked_scores(rng, labels, groups, 0.3) + 2 * labels
    assert permutation_p_value(labels, scores, groups) < 0.01
    assert permutation_p_value(labels, -scores, groups) < 0.01, "either side of 0.5"


def test_without_links_it_is_the_rank_sum_test():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 50)
    scores = (rng.normal(size=50) + 0.8 * labels).round(1)
    exact = mannwhitneyu(scores[labels == 1], scores[labels == 0]).pvalue
    assert 0.01 < exact < 0.3
    error = np.sqrt(exact * (1 - exact) / model.statistics.permutation.PERMUTATIONS)
    assert permutation_p_value(labels, scores, np.arange(50)) == pytest.approx(exact, abs=5 * error)


def test_every_arrangement_by_hand():
    """A mixed pair, three people with two videos of one class, and one alone, whose label stays."""
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])
    labels = np.array([0, 1, 0, 0, 1, 1, 0, 0, 1])
    scores = np.array([0.1, 0.9, 0.2, 0.3, 0.8, 0.7, 0.4, 0.6, 0.95])
    aucs = [
        roc_auc_score([*pair, *np.repeat(people, 2), 1], scores)
        for pair in permutations([0, 1])
        for people in permutations([0, 1, 0])
    ]
    observed = abs(roc_auc_score(labels, scores) - 0.5)
    exact = np.mean([abs(auc - 0.5) >= observed - 1e-9 for auc in aucs])
    found = permutation_p_value(labels, scores, groups)
    assert found == pytest.approx(
        exact, abs=5 * np.sqrt(exact / model.statistics.permutation.PERMUTATIONS)
    )


def test_the_same_seed_gives_the_same_p_value_in_blocks_of_any_size(monkeypatch):
    rng = np.random.default_rng(0)
    labels, groups = mixed(rng)
    scores = linked_scores(rng, labels, groups, 0.5)
    first = permutation_p_value(labels, scores, groups, seed=1)
    assert first != permutation_p_value(labels, scores, groups, seed=2)
    monkeypatch.setattr(model.statistics.permutation, "KEYS_AT_ONCE", 700)
    assert permutation_p_value(labels, scores, groups, seed=1) == first


def test_the_order_of_videos_and_the_names_of_groups_do_not_matter_much():
    rng = np.random.default_rng(0)
    labels, groups = mixed(rng)
    scores = linked_scores(rng, labels, groups, 0.5)
    order = rng.permutation(len(labels))
    there = permutation_p_value(labels, scores, groups)
    back = permutation_p_value(labels[order], scores[order], 100 - groups[order])
    assert there == pytest.approx(back, abs=0.06)


def test_one_class_has_no_p_value():
    assert np.isnan(permutation_p_value(np.ones(4, int), np.arange(4.0), np.arange(4)))


def test_groups_that_nothing_can_change_places_with_prove_nothing():
    labels, groups = np.array([0, 1, 1]), np.array([0, 1, 1])
    assert permutation_p_value(labels, np.array([0.1, 0.8, 0.9]), groups) == 1
