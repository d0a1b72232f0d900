"""The statistics head finds a rule and leaves out what is undefined; folds choose its strength."""

import dataclasses

import numpy as np
import pytest
import torch

from model.evaluation.controls import SHUFFLED, absent_controls
from model.evaluation.evaluation import DETECTOR, evaluate
from model.evaluation.other_corpus import evaluate_elsewhere
from model.fit import main as fit_command
from model.fitting import fit
from model.run.run import load_run
from model.settings import HeadSettings, TrainingSettings
from model.statistics.metrics import auc_roc
from model.training.heads import Head
from model.training.linear_model import STRENGTHS
from model.training.sequences import join_streams, load_sequences
from model.training.train import cross_fit, train_fold
from pipeline.common.errors import SettingsError

COLUMNS = tuple(
    f"{stream} 4 {name}" for stream in ("flow", "frames") for name in ("turn", "length")
)
LINEAR = TrainingSettings(head="statistics", streams=("trajectory",))
FOLDS = [(np.arange(30, 90), np.arange(30)), (np.arange(60), np.arange(60, 90))]


@pytest.fixture(scope="module")
def restless(sequences):
    """Ninety clips of four numbers; in fakes the second varies more, and its mean is the same."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 2
    x = rng.normal(size=(90, 20, 4)) * [1, 30, 0.01, 1]
    x[labels == 1, :, 1] *= 1.8
    x[:, 0] = np.nan
    x[rng.random(x.shape) < 0.05] = np.nan
    data = sequences(x, labels)
    return dataclasses.replace(data, widths={"trajectory": 4})


@pytest.fixture(scope="module")
def with_trajectories(fabricate, easy_corpus):
    """Make a cache whose fakes turn more, with undefined first steps."""

    def make(columns=COLUMNS, *, streams=("flow", "frames"), spoiled=()):
        clips, x = easy_corpus(24)
        rng = np.random.default_rng(1)
        trajectory = rng.normal(size=(*x.shape[:2], len(columns)))
        trajectory[[clip.label == 1 for clip in clips], :, 0] *= 2.5
        trajectory[:, 0] = np.nan
        trajectory[3, :, 1] = np.nan  # and one that is defined nowhere in a clip
        trajectory[[clip.split in spoiled for clip in clips]] *= 1000
        frames = np.zeros_like(x) if "frames" in streams else None
        return fabricate(clips, 0 * x, frames=frames, trajectory=trajectory, columns=columns)

    return make


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_linear_rule_of_a_statistic_is_found(restless):
    fitted = cross_fit(restless, FOLDS, LINEAR)
    seen = ~np.isnan(fitted.out_of_fold)
    assert auc_roc(restless.labels[seen], fitted.out_of_fold[seen]) > 0.95
    weights = fitted.folds[0].head.branches[0].classify.weight.detach().reshape(5, 4).abs()
    assert weights.sum(0).argmax() == 1, "the number that the rule is about"
    assert weights[0, 1] < weights[1, 1], "its spread, not its mean"


def test_all_folds_have_the_strength_with_the_lowest_mean_validation_loss(restless):
    fitted = cross_fit(restless, FOLDS, LINEAR)
    losses = np.array([[epoch.val_loss for epoch in fold.history] for fold in fitted.folds])
    assert losses.shape == (2, len(STRENGTHS))
    n_statistics = 5 * 4
    assert fitted.strength == STRENGTHS[losses.mean(0).argmin()] / n_statistics
    assert {fold.best_epoch for fold in fitted.folds} == {losses.mean(0).argmin()}
    noise = dataclasses.replace(
        restless, x=torch.randn(restless.x.shape, generator=torch.Generator().manual_seed(0))
    )
    assert cross_fit(noise, FOLDS, LINEAR).strength < fitted.strength


def test_validation_scores_are_those_of_the_head_that_is_kept(restless):
    fold = cross_fit(restless, FOLDS, LINEAR).folds[1]
    y, logits = restless.labels[fold.val], fold.val_logits
    loss = np.mean(np.log1p(np.exp(-np.where(y, 1, -1) * logits)))  # as many real as fake
    assert loss == pytest.approx(fold.best.val_loss)
    assert fold.best.val_auc == pytest.approx(auc_roc(y, logits))


def test_clips_outside_a_fold_do_not_change_it(restless):
    other = dataclasses.replace(restless, x=restless.x.clone())
    other.x[60:] += 1000
    train_rows, val = np.arange(30), np.arange(30, 60)
    one, two = (train_fold(data, train_rows, val, LINEAR) for data in (restless, other))
    assert same(one.head.state_dict(), two.head.state_dict())
    assert one.history == two.history


def test_a_rare_class_counts_as_much_as_a_frequent_one(sequences):
    labels = np.array([1] * 36 + [0] * 4)
    data = sequences(np.ones((40, 6, 3)), labels)  # nothing to learn but the base rate
    logits = train_fold(data, np.arange(40), np.arange(40), LINEAR).val_logits
    assert logits == pytest.approx(np.zeros(40), abs=1e-3)


def test_altered_copies_are_trained_with(sequences):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    plain = sequences(rng.normal(size=(60, 6, 3)), labels)
    copy = torch.from_numpy(labels[:, None, None] * 4.0 + rng.normal(size=(60, 6, 3))).float()
    both = dataclasses.replace(plain, copies=(copy,))
    head = train_fold(both, np.arange(40), np.arange(40, 60), LINEAR).head
    with torch.no_grad():
        assert auc_roc(labels[40:], head(copy[40:]).numpy()) > 0.95


# ---------------------------------------------------------------------------------------- undefined


@pytest.mark.parametrize("kind", ["statistics", "lstm", "mean"])
def test_undefined_steps_of_a_trajectory_are_left_out_and_others_are_not(kind):
    head = Head({"flow": 2, "trajectory": 2}, HeadSettings(kind, 4)).eval()
    torch.manual_seed(0)
    x = torch.randn(30, 12, 4) * 3 + 5
    x[:, 0, 2:] = torch.nan
    x[..., 3] = torch.nan  # in no clip
    head.standardise_by(x, torch.arange(30))
    torch.testing.assert_close(head.mean[2], x[:, 1:, 2].mean())
    torch.testing.assert_close(head.std[2], x[:, 1:, 2].std())
    assert (head.mean[3], head.std[3]) == (0, 1)
    with torch.no_grad():
        assert not head(x).isnan().any()
        x[4, 5, 1] = torch.nan  # an embedding
        assert head(x).isnan().nonzero().flatten().tolist() == [4]


def test_statistics_as_pooling_do_not_hide_an_embedding_without_numbers():
    torch.manual_seed(0)
    head = Head({"flow": 3}, HeadSettings("tcn", 4, pooling="statistics")).eval()
    x = torch.randn(2, 12, 3)
    x[1, 3, 0] = torch.nan
    with torch.no_grad():
        assert head(x).isnan().tolist() == [False, True]
        assert not head(x[:1, :1]).isnan().any(), "one step has no change"


def test_an_embedding_without_numbers_ends_the_fit(restless, sequences):
    x = restless.x.numpy().copy()
    with pytest.raises(ValueError, match="has embeddings that are no numbers"):
        train_fold(sequences(x, restless.labels), *FOLDS[0], LINEAR)


@pytest.mark.parametrize("streams", [("trajectory",), ("flow", "trajectory")])
def test_statistics_as_pooling_are_learned_from(restless, streams, fast):
    settings = dataclasses.replace(
        fast, head="gru", pooling="statistics", max_epochs=20, sequence_length=20, dropout=0.0
    )
    widths = {"trajectory": 4} if len(streams) == 1 else {"trajectory": 2, "flow": 2}
    data = (
        restless
        if len(streams) == 1
        else dataclasses.replace(
            restless,
            widths=widths,
            x=torch.cat([restless.x[..., :2], restless.x[..., 2:].nan_to_num()], 2),
        )
    )
    fitted = cross_fit(data, FOLDS, settings)
    seen = ~np.isnan(fitted.out_of_fold)
    assert auc_roc(data.labels[seen], fitted.out_of_fold[seen]) > 0.85


# ------------------------------------------------------------------------------------------- a run


def test_a_run_of_trajectories_is_fitted_evaluated_and_repeated(
    with_trajectories, run_command, tmp_path
):
    cache = with_trajectories()
    done = run_command(
        fit_command, cache.folder, "-o", tmp_path / "run", "--head", "statistics",
        "--streams", "trajectory", "--sequence-length", 8, "--cases", 0, "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    run = load_run(tmp_path / "run")
    assert run.config.trajectory == COLUMNS
    assert run.config.strength in [c / (5 * len(COLUMNS)) for c in STRENGTHS]
    assert f"regularisation: C {run.config.strength:.3g}, the best on the folds" in done.stdout
    assert run.config.options.streams == ("flow", "frames"), "its columns need both"
    evaluation = evaluate(run)
    assert evaluation.metrics[DETECTOR]["test"]["auc_roc"].value > 0.9
    assert SHUFFLED in evaluation.metrics and "mean-pooled" in evaluation.metrics
    assert "C = " in (tmp_path / "run" / "report.html").read_text()
    again = run_command(
        fit_command, "--from", tmp_path / "run", "-o", tmp_path / "again", "--no-controls",
        "--cases", 0,
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    for name in ("config.json", "predictions.csv", "history.csv"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("run", "again"))
        assert one == other, name
    states = [load_run(tmp_path / folder).ensemble.state_dict() for folder in ("run", "again")]
    assert same(*states)


def test_strength_and_weights_are_final_before_a_test_video_is_read(with_trajectories, tmp_path):
    sound = fit(with_trajectories(), tmp_path / "sound", settings=LINEAR, device="cpu")
    cache = with_trajectories(spoiled=("test", "holdout"))
    run = fit(cache, tmp_path / "spoiled", settings=LINEAR, device="cpu")
    assert same(run.ensemble.state_dict(), sound.ensemble.state_dict())
    for name in ("strength", "temperature", "threshold"):
        assert getattr(run.config, name) == getattr(sound.config, name)


def test_a_cache_without_trajectories_says_how_to_add_them(small):
    with pytest.raises(SettingsError, match="has no trajectory") as caught:
        load_sequences(small, ("flow", "trajectory"), ("train",))
    assert "the features.embed command that made it adds trajectories" in caught.value.hint


def test_trajectories_stand_beside_the_other_streams_and_are_alike_in_copies():
    embedded = {
        "flow-flip": np.array([[1.0], [2.0]], np.float16),
        "trajectory": np.array([[np.nan, 3.0], [4.0, 5.0]], np.float32),
    }
    joined = join_streams(embedded, ("flow", "trajectory"), "flip")
    np.testing.assert_array_equal(joined, np.float32([[1, np.nan, 3], [2, 4, 5]]))


def test_another_corpus_must_have_the_same_columns(with_trajectories, tmp_path):
    run = fit(with_trajectories(), tmp_path / "run", settings=LINEAR, device="cpu")
    other = with_trajectories(COLUMNS[:2], streams=("flow",))
    with pytest.raises(SettingsError, match=r"were 4 \(flow 4 turn to frames 4 length\), there 2"):
        evaluate_elsewhere(run, other)


def test_controls_of_single_streams_are_for_caches_that_have_them(with_trajectories, tmp_path):
    cache = with_trajectories(COLUMNS[:2], streams=("flow",))
    run = fit(cache, tmp_path / "run", settings=LINEAR, device="cpu")
    assert run.config.options.streams == ("flow",)
    assert set(absent_controls(run, cache)) == {"frames only"}
