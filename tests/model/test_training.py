"""Training: reproducible, keeps its best epoch, learns what is there and nothing that is not."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from model.baselines import logistic_regression, mean_pooled
from model.heads import clip_logits
from model.metrics import auc_roc
from model.training import TrainingSettings, cross_fit, train_fold
from pipeline import splits


def rows(*numbers):
    return np.array(numbers, np.int64)


@pytest.fixture(scope="module")
def noisy(sequences):
    """Thirty clips that are hard to tell apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    x = rng.normal(size=(30, 10, 5)) + 0.3 * labels[:, None, None]
    return sequences(x, labels)


TRAIN, VAL = np.arange(20), np.arange(20, 30)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_training_is_the_same_bit_by_bit_for_the_same_seed(noisy, fast):
    first, again, other = (train_fold(noisy, TRAIN, VAL, fast, seed=s) for s in (5, 5, 6))
    assert same(first.head.state_dict(), again.head.state_dict())
    assert first.history == again.history
    np.testing.assert_array_equal(first.val_logits, again.val_logits)
    assert not same(first.head.state_dict(), other.head.state_dict())


def test_training_does_not_depend_on_what_was_drawn_before_and_leaves_no_trace(noisy, fast):
    torch.manual_seed(1)
    first = train_fold(noisy, TRAIN, VAL, fast, seed=5)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second = train_fold(noisy, TRAIN, VAL, fast, seed=5)
    assert same(first.head.state_dict(), second.head.state_dict())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("sequence_length", [4, 99])
def test_the_best_epoch_is_kept(noisy, fast, sequence_length):
    settings = dataclasses.replace(
        fast, learning_rate=0.05, max_epochs=15, patience=15, sequence_length=sequence_length
    )
    fold = train_fold(noisy, TRAIN, VAL, settings, seed=1)
    losses = [epoch.val_loss for epoch in fold.history]
    assert fold.best.val_loss == min(losses) < losses[-1], "it should get worse for this test"
    with torch.no_grad():
        logits = clip_logits(fold.head.eval(), noisy.x[VAL], sequence_length).double().numpy()
    np.testing.assert_array_equal(fold.val_logits, logits)
    y = noisy.labels[VAL]
    loss = np.mean(np.log1p(np.exp(-np.where(y, 1, -1) * logits)))  # as many real as fake
    assert loss == pytest.approx(fold.best.val_loss, rel=1e-5)
    assert fold.best.val_auc == pytest.approx(auc_roc(y, logits))


def test_training_stops_when_it_no_longer_gets_better(noisy, fast):
    settings = dataclasses.replace(fast, learning_rate=0.05, max_epochs=200, patience=3)
    history = train_fold(noisy, TRAIN, VAL, settings).history
    losses = [epoch.val_loss for epoch in history]
    assert len(history) < 200
    assert len(history) - 1 - int(np.argmin(losses)) == 3


def test_a_rare_class_counts_as_much_as_a_frequent_one(sequences, fast):
    labels = np.array([1] * 36 + [0] * 4)
    x = np.ones((40, 6, 3))  # nothing to learn but the base rate
    settings = dataclasses.replace(fast, max_epochs=30, patience=30, dropout=0.0)
    fold = train_fold(sequences(x, labels), np.arange(40), np.arange(40), settings)
    probability = 1 / (1 + np.exp(-fold.val_logits))
    assert probability.mean() == pytest.approx(0.5, abs=0.1)  # 0.9 without weights
    assert fold.history[0].val_loss == pytest.approx(math.log(2), abs=0.1)


def test_standardisation_knows_training_clips_only(noisy, fast, sequences):
    x = noisy.x.numpy().copy()
    x[VAL] += 1000
    shifted = train_fold(sequences(x, noisy.labels), TRAIN, VAL, fast, seed=0)
    torch.testing.assert_close(shifted.head.mean, noisy.x[TRAIN].flatten(0, 1).mean(0))


def test_every_clip_is_scored_by_the_head_that_never_saw_it(noisy, fast):
    folds = [(rows(*range(10, 30)), rows(*range(10))), (rows(*range(10)), rows(*range(10, 28)))]
    fitted = cross_fit(noisy, folds, fast)
    np.testing.assert_array_equal(fitted.out_of_fold[:10], fitted.folds[0].val_logits)
    np.testing.assert_array_equal(fitted.out_of_fold[10:28], fitted.folds[1].val_logits)
    assert np.isnan(fitted.out_of_fold[28:]).all(), "in no validation fold"
    assert fitted.loss == pytest.approx(np.mean([fold.best.val_loss for fold in fitted.folds]))


# -------------------------------------------------------------------- what is learned, what is not


def unseen_auc(data, identities, train, test, settings, seed=0):
    """AUC on unseen identities, of the ensemble and of the mean-pool baseline."""
    part = type(data)(data.x[train], tuple(data.clips[n] for n in train))
    folds = splits.folds([identities[n] for n in train], part.labels.tolist(), 3, seed=seed)
    fitted = cross_fit(part, folds, settings, seed=seed)
    with torch.no_grad():
        logits = fitted.ensemble(data.x[test]).double().numpy()
    rest = type(data)(data.x[test], tuple(data.clips[n] for n in test))
    pooled, _ = logistic_regression(mean_pooled(part), part.labels, folds)
    scores = pooled.predict_proba(mean_pooled(rest))[:, 1]
    return auc_roc(rest.labels, logits), auc_roc(rest.labels, scores)


def halves(n_people):
    """Rows of the first half of the people and of the second, two clips each."""
    return np.arange(n_people), np.arange(n_people, 2 * n_people)


def test_a_pattern_in_time_is_found_on_unseen_people(easy_corpus, sequences, fast):
    clips, x = easy_corpus(48)
    data = sequences(x, [clip.label for clip in clips])
    found, _ = unseen_auc(data, [clip.identities for clip in clips], *halves(48), fast)
    assert found > 0.9


@pytest.mark.slow
def test_random_labels_cannot_be_learned(sequences, fast):
    n_people, aucs = 40, []
    train, test = halves(n_people)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        people = np.arange(2 * n_people) // 2
        x = rng.normal(size=(n_people, 1, 6))[people] + rng.normal(size=(2 * n_people, 12, 6))
        labels = np.concatenate([rng.permutation(np.arange(n_people) % 2) for _ in range(2)])
        who = [(f"person:{n}",) for n in people]
        settings = dataclasses.replace(fast, max_epochs=6)
        aucs.append(unseen_auc(sequences(x, labels), who, train, test, settings, seed)[0])
    # The spread of the AUC of n real and n fake videos under chance, over independent corpora.
    n = n_people // 2
    error = math.sqrt((2 * n + 1) / (12 * n * n) / len(aucs))
    assert abs(np.mean(aucs) - 0.5) < 3 * error, aucs
    assert 0.3 < np.std(aucs) / (error * math.sqrt(len(aucs))) < 2.5, "no more spread than chance"


def test_the_order_of_frames_alone_is_learned_by_the_lstm_and_not_by_the_mean(sequences):
    rng = np.random.default_rng(0)
    n_people = 40
    ramps = np.sort(rng.normal(size=(n_people, 12, 1)), axis=1) * [1.0, -1.0, 0.5]
    ramps += rng.normal(size=(n_people, 1, 3))
    x = np.stack([ramps, ramps[:, ::-1]], axis=1).reshape(2 * n_people, 12, 3)
    x = x.astype(np.float16)  # a fake is a real clip backwards: its mean is the same, exactly
    who = [(f"person:{n // 2}",) for n in range(2 * n_people)]
    settings = TrainingSettings(
        hidden=16, max_epochs=40, patience=40, learning_rate=1e-2, sequence_length=12, dropout=0.0
    )
    data = sequences(x, np.arange(2 * n_people) % 2)
    lstm, mean = unseen_auc(data, who, *halves(n_people), settings)
    assert lstm > 0.95
    assert mean == pytest.approx(0.5, abs=1e-9)
