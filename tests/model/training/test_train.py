"""Training: reproducible, keeps its best epoch, learns what is there and nothing that is not."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from model.evaluation.controls import logistic_regression, mean_pooled
from model.fitting import training_folds
from model.settings import HEADS, TrainingSettings
from model.statistics.metrics import auc_roc
from model.training import train
from model.training.heads import Head, clip_logits
from model.training.sequences import load_sequences
from model.training.train import cross_fit, train_fold
from pipeline.splits import partition


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


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_killed_training_goes_on_to_the_same_weights(noisy, fast, tmp_path, monkeypatch, epochs):
    settings = dataclasses.replace(fast, dropout=0.3, max_epochs=6, patience=6)
    whole = train_fold(noisy, TRAIN, VAL, settings, seed=3)
    done = []
    write = train._Training._save

    def killed(self, target):
        write(self, target)
        done.append(target)
        if len(done) == epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train._Training, "_save", killed)
        train_fold(noisy, TRAIN, VAL, settings, seed=3, checkpoints=tmp_path)
    resumed = train_fold(noisy, TRAIN, VAL, settings, seed=3, checkpoints=tmp_path)
    assert same(resumed.head.state_dict(), whole.head.state_dict())
    assert resumed.history == whole.history
    np.testing.assert_array_equal(resumed.val_logits, whole.val_logits)


@pytest.mark.parametrize("other", ["seed", "settings", "damaged"])
def test_a_checkpoint_of_something_else_is_not_gone_on_with(noisy, fast, tmp_path, other):
    settings = dataclasses.replace(fast, max_epochs=3)
    whole = train_fold(noisy, TRAIN, VAL, settings, seed=3)
    if other == "damaged":
        train_fold(noisy, TRAIN, VAL, settings, seed=3, checkpoints=tmp_path)
        (path,) = tmp_path.glob("*.pt")
        path.write_bytes(b"PK\x03\x04 not a model")
    else:
        changed = dataclasses.replace(settings, dropout=0.1 if other == "settings" else 0.3)
        train_fold(
            noisy, TRAIN, VAL, changed, seed=4 if other == "seed" else 3, checkpoints=tmp_path
        )
    again = train_fold(noisy, TRAIN, VAL, settings, seed=3, checkpoints=tmp_path)
    assert same(again.head.state_dict(), whole.head.state_dict())


def test_a_training_that_has_ended_is_not_repeated(noisy, fast, tmp_path, monkeypatch):
    first = train_fold(noisy, TRAIN, VAL, fast, seed=3, checkpoints=tmp_path)
    monkeypatch.delattr(train._Training, "epoch")
    again = train_fold(noisy, TRAIN, VAL, fast, seed=3, checkpoints=tmp_path)
    assert same(again.head.state_dict(), first.head.state_dict())
    assert again.history == first.history and again.best_epoch == first.best_epoch
    np.testing.assert_array_equal(again.val_logits, first.val_logits)


def test_numbers_that_are_nearly_zero_are_zero_while_it_trains(noisy, fast, monkeypatch):
    tiny, found = torch.tensor([1e-30]), []

    def product():
        return (tiny * torch.tensor([1e-10])).item()  # 1e-40 has fewer bits than others

    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot")
    epoch = train._Training.epoch
    monkeypatch.setattr(
        train._Training, "epoch", lambda self: (found.append(product()), epoch(self))
    )
    train_fold(noisy, TRAIN, VAL, dataclasses.replace(fast, max_epochs=2))
    assert found == [0, 0]
    assert product() > 0, "it is for training alone"


def test_what_is_hardly_better_is_not_better(noisy, sequences, fast):
    easy = sequences(noisy.x.numpy() + 3 * noisy.labels[:, None, None], noisy.labels)
    settings = dataclasses.replace(fast, max_epochs=200, patience=2, learning_rate=1e-2)
    fold = train_fold(easy, TRAIN, VAL, settings)
    losses = [epoch.val_loss for epoch in fold.history]
    assert len(losses) < 200 and fold.best_epoch == len(losses) - 3
    assert min(losses[-2:]) > fold.best.val_loss - train.MIN_IMPROVEMENT
    assert min(losses) < fold.best.val_loss, "it went on to fall, for this test"


def test_what_memory_does_not_hold_is_read_from_a_file(fabricate, easy_corpus, fast):
    cache = fabricate(*easy_corpus(60))
    kept = load_sequences(cache, ("flow", "motion"), ("train",))
    mapped = load_sequences(cache, ("flow", "motion"), ("train",), limit=1000)
    assert mapped.mapped and not kept.mapped
    assert torch.equal(mapped.x, kept.x)
    settings = dataclasses.replace(fast, streams=("flow", "motion"), max_epochs=6)
    folds = training_folds(kept, 2, 0)
    one, other = (cross_fit(data, folds, settings) for data in (kept, mapped))
    for fitted in (one, other):  # in another order, hence not the same
        assert np.mean([fold.best.val_loss for fold in fitted.folds]) < 0.3
    again = cross_fit(mapped, folds, settings)
    np.testing.assert_array_equal(other.out_of_fold, again.out_of_fold)


def test_a_batch_is_the_same_from_a_thread(noisy, fast, monkeypatch):
    """What does not lie on the device is read while the batch before is computed."""
    head = Head(noisy.widths, fast)
    head.standardise_by(noisy.x, torch.arange(20))
    monkeypatch.setattr(train, "_by_blocks", lambda rows: torch.randperm(len(rows)))
    parts = []
    for mapped in (False, True):
        data = dataclasses.replace(noisy, mapped=mapped)
        crops = train._TemporalCrops(data, 4, head, torch.device("cpu"))
        torch.manual_seed(7)
        batches = crops.batches(torch.arange(30), 8)
        parts.append([(n, head.standardised(x) if mapped else x) for n, x in batches])
    for (rows_a, x_a), (rows_b, x_b) in zip(*parts, strict=True):
        assert torch.equal(rows_a, rows_b) and torch.equal(x_a, x_b)
    assert sorted(torch.cat([rows for rows, _ in parts[0]]).tolist()) == list(range(30))


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
def test_an_order_by_blocks_has_every_clip_once_and_keeps_neighbours_near(n):
    torch.manual_seed(0)
    order = train._by_blocks(torch.arange(n))
    assert sorted(order.tolist()) == list(range(n))
    if n == 1000:
        blocks = {tuple(sorted({row // 64 for row in part.tolist()})) for part in order.split(256)}
        assert all(len(some) <= 5 for some in blocks)
        assert (order[1:] < order[:-1]).any()


def test_altered_copies_are_trained_with(sequences, fast):
    """The copy alone tells the classes apart, so that only who sees it learns anything."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    plain = sequences(rng.normal(size=(40, 6, 3)), labels)
    copy = torch.from_numpy(labels[:, None, None] * 4.0 + rng.normal(size=(40, 6, 3))).float()
    both = dataclasses.replace(plain, copies=(copy,))
    shown = dataclasses.replace(plain, x=copy)
    fold = train_fold(both, np.arange(40), np.arange(40), fast)
    with torch.no_grad():
        logits = clip_logits(fold.head.eval(), shown.x, 6).numpy()
    assert auc_roc(labels, logits) > 0.95


# -------------------------------------------------------------------- what is learned, what is not


def unseen_auc(data, identities, train, test, settings, seed=0):
    """AUC on unseen identities, of the ensemble and of the mean-pool baseline."""
    part = data.rows(train)
    folds = partition.folds([identities[n] for n in train], part.labels.tolist(), 3, seed=seed)
    fitted = cross_fit(part, folds, settings, seed=seed)
    with torch.no_grad():
        logits = fitted.ensemble(data.x[test]).double().numpy()
    rest = data.rows(test)
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


@pytest.mark.parametrize("head", [head for head in HEADS if head != "gru"])  # as the LSTM
def test_the_order_of_frames_alone_is_learned_by_temporal_heads(sequences, head):
    rng = np.random.default_rng(0)
    n_people = 32
    ramps = np.sort(rng.normal(size=(n_people, 12, 1)), axis=1) * [1.0, -1.0, 0.5]
    ramps += rng.normal(size=(n_people, 1, 3))
    x = np.stack([ramps, ramps[:, ::-1]], axis=1).reshape(2 * n_people, 12, 3)
    x = x.astype(np.float16)  # a fake is a real clip backwards: its mean is the same, exactly
    who = [(f"person:{n // 2}",) for n in range(2 * n_people)]
    settings = TrainingSettings(
        head=head,
        hidden=16,
        max_epochs=15,
        patience=15,
        learning_rate=2e-2,
        sequence_length=12,
        dropout=0.0,
        streams=("flow",),
    )
    data = sequences(x, np.arange(2 * n_people) % 2)
    found, mean = unseen_auc(data, who, *halves(n_people), settings)
    assert mean == pytest.approx(0.5, abs=1e-9)
    if head in ("mean", "statistics"):  # backwards, all statistics are the same
        assert found == pytest.approx(0.5, abs=0.02)  # of float32, added up in another order
    else:
        assert found > 0.95
