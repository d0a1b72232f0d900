"""Controls: trained as the detector is, and exposing what gives a corpus away."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import model.evaluation.controls
from model.evaluate import main as evaluate_command
from model.evaluation.controls import (
    ALONE,
    EXPLAINED,
    MEAN_POOL,
    METADATA,
    SHUFFLED,
    UNUSUAL_SCORES,
    shuffled,
)
from model.evaluation.evaluation import DETECTOR, evaluate
from model.fit import main as fit_command
from model.fitting import fit, training_folds
from model.reports.run_report import write_report
from model.reports.summary import CHANCE, headline, table
from model.settings import TrainingSettings
from model.statistics.metrics import SIGNIFICANT, all_metrics
from model.training.sequences import Sequences
from model.training.train import cross_fit

pytestmark = pytest.mark.usefixtures("numbers_only")
FLOW, FRAMES = ALONE["flow"], ALONE["frames"]

NEVER_SAW_A_FAKE = [name for score, name in UNUSUAL_SCORES.items() if score != "trajectory"]


def auc(evaluation, name):
    return evaluation.metrics[name]["test"]["auc_roc"]


def p_value(evaluation, name=DETECTOR):
    return evaluation.metrics[name]["test"]["auc_p_value"].value


# ------------------------------------------------------------------------------- what they expose


@pytest.fixture(scope="module")
def backwards(clip):
    """A fake is a real clip backwards: the order of frames alone tells them apart."""
    rng = np.random.default_rng(0)
    n_people = 40
    ramps = np.sort(rng.normal(size=(n_people, 12, 1)), axis=1) * [1.0, -1.0, 0.5]
    ramps += rng.normal(size=(n_people, 1, 3))
    x = np.stack([ramps, ramps[:, ::-1]], axis=1).reshape(2 * n_people, 12, 3)
    clips = [
        clip(n, n % 2, "test" if n < n_people else "train", identities=(f"person:{n // 2}",))
        for n in range(2 * n_people)
    ]
    return clips, x.astype(np.float32)


@pytest.mark.slow
def test_where_only_order_tells_shuffled_time_is_at_chance(backwards, fabricate, tmp_path):
    settings = TrainingSettings(
        head="lstm",
        hidden=16,
        max_epochs=25,
        patience=25,
        learning_rate=1e-2,
        sequence_length=12,
        dropout=0.0,
        streams=("flow",),
    )
    cache = fabricate(*backwards)
    run = fit(cache, tmp_path / "run", settings=settings, device="cpu")
    evaluation = evaluate(run, cache)
    assert auc(evaluation, DETECTOR).value > 0.95
    assert p_value(evaluation) < 0.01
    assert auc(evaluation, SHUFFLED).low < 0.5 < auc(evaluation, SHUFFLED).high
    assert p_value(evaluation, SHUFFLED) > SIGNIFICANT
    assert abs(auc(evaluation, MEAN_POOL).value - 0.5) < 1e-3
    order, _ = evaluation.verdicts
    assert "higher than that of the shuffled time control" in order
    assert order.endswith("the order of frames carries something.")
    assert order in headline(evaluation)
    assert order in write_report(run, evaluation).read_text()


@pytest.fixture(scope="module")
def printed(fitted):
    """What the command says of an easy corpus."""
    done = CliRunner().invoke(evaluate_command, [str(fitted.folder)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_where_order_says_nothing_the_verdict_says_so(printed):
    """Fakes swing more: that shows in any order."""
    text = " ".join(printed.split())
    assert "not distinguishable from that of the shuffled time control" in text
    assert "nothing here shows that the order of frames carries anything" in text


def test_where_only_metadata_tell_that_control_shows_it(easy_corpus, fabricate, quick, tmp_path):
    clips, x = easy_corpus(24, shift=0.0)
    clips = [
        dataclasses.replace(clip, bit_rate=2e6 if clip.label else 1e6, n_bytes=900_000)
        for clip in clips
    ]
    cache = fabricate(clips, x)
    run = fit(cache, tmp_path / "run", settings=quick, device="cpu")
    evaluation = evaluate(run)
    assert auc(evaluation, METADATA).value == 1
    assert p_value(evaluation, METADATA) <= SIGNIFICANT
    assert p_value(evaluation) > SIGNIFICANT
    page = write_report(run, evaluation).read_text()
    for text in (headline(evaluation), table(evaluation), page):
        assert CHANCE in text
    assert "the corpus gives itself away" in page


def test_frames_that_tell_are_not_taken_for_motion(easy_corpus, fabricate, quick, tmp_path):
    clips, x = easy_corpus(16)
    noise = np.random.default_rng(0).normal(size=x.shape)
    cache = fabricate(clips, noise.astype(np.float32), frames=x)
    settings = dataclasses.replace(quick, max_epochs=10, streams=("flow", "frames"))
    run = fit(cache, tmp_path / "run", settings=settings, device="cpu")
    evaluation = evaluate(run)
    assert evaluation.absent == {}
    assert auc(evaluation, FRAMES).value > 0.9
    assert abs(auc(evaluation, FLOW).value - 0.5) < 0.35
    assert auc(evaluation, DETECTOR).value > 0.8


def test_random_labels_are_called_chance(clip, fast):
    """Everybody recurs, and looks like themselves; labels are drawn person by person."""
    settings, chance, inside = dataclasses.replace(fast, max_epochs=2), [], []
    people = np.arange(120) // 3
    train, test = np.flatnonzero(people % 2 == 0), np.flatnonzero(people % 2)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(40, 1, 6))[people] + rng.normal(size=(120, 12, 6))
        x = torch.from_numpy(x.astype(np.float32))
        labels = rng.permutation(np.arange(40) % 2)[people]
        clips = [clip(n, int(labels[n]), identities=(f"person:{people[n]}",)) for n in train]
        training = Sequences(x[train], tuple(clips), {"flow": 6})
        fitted = cross_fit(training, training_folds(training, 3, seed), settings, seed=seed)
        with torch.no_grad():
            logits = fitted.ensemble(x[test]).double().numpy()
        found = all_metrics(labels[test], logits, 0.0, people[test])
        chance.append(found["auc_p_value"].value > SIGNIFICANT)
        inside.append(found["auc_roc"].low <= 0.5 <= found["auc_roc"].high)
    # Of eight true statements three or more fail six times in a thousand.
    assert np.sum(chance) > 5
    assert np.sum(inside) > 5


# -------------------------------------------------------------------------- how they are trained


@pytest.mark.slow
def test_one_stream_alone_is_what_a_run_on_it_would_be(easy_corpus, fabricate, quick, tmp_path):
    clips, x = easy_corpus(16, shift=0.5)
    noise = np.random.default_rng(0).normal(size=x.shape)
    cache = fabricate(clips, x, frames=noise)
    both, alone = (
        evaluate(
            fit(
                cache,
                tmp_path / name,
                settings=dataclasses.replace(quick, streams=streams),
                device="cpu",
                max_fpr=0.1,
            )
        )
        for name, streams in {"both": ("flow", "frames"), "alone": ("flow",)}.items()
    )
    as_control, as_detector = both.metrics[FLOW]["test"], alone.metrics[DETECTOR]["test"]
    assert as_control == as_detector
    assert alone.absent == {FLOW: "that is the detector itself"}


def test_what_is_not_embedded_is_said_not_to_be(fitted, printed):
    assert f"no control {FRAMES}: frames is not embedded" in printed
    page = (fitted.folder / "report.html").read_text()
    assert "not there, frames is not embedded" in page
    for name in (SHUFFLED, MEAN_POOL, METADATA):
        assert EXPLAINED[name] in page


def test_controls_can_be_left_out(easy_corpus, fabricate, run_command, tmp_path, monkeypatch):
    cache, out = fabricate(*easy_corpus(16)), tmp_path / "run"
    options = ["--streams", "flow", "--max-epochs", 1, "--device", "cpu", "--no-controls"]
    monkeypatch.setattr(model.evaluation.controls, "cross_fit", None)  # nothing may be trained
    done = run_command(fit_command, cache.folder, "-o", out, *options)
    assert done.exit_code == 0, done.output
    done = run_command(evaluate_command, out, "--no-controls")
    assert done.exit_code == 0, done.output
    found = json.loads((out / "metrics.json").read_text())
    assert set(found["controls"]) == {MEAN_POOL, METADATA, *NEVER_SAW_A_FAKE}
    assert found["absent_controls"][SHUFFLED] == "not asked for"


@pytest.mark.slow
def test_controls_see_no_test_video_before_they_are_final(easy_corpus, fabricate, quick, tmp_path):
    clips, x = easy_corpus(16, shift=0.5)
    found = []
    for name, holdout in {"same": 0.0, "other": 5.0}.items():
        y = x.copy()
        y[[clip.split == "holdout" for clip in clips]] += holdout
        cache = fabricate(clips, y)
        run = fit(cache, tmp_path / name, settings=quick, device="cpu")
        found.append(evaluate(run).metrics[SHUFFLED])
    assert found[0]["test"] == found[1]["test"]
    assert found[0]["holdout"] != found[1]["holdout"]


# ---------------------------------------------------------------------------------- shuffled time


def test_each_clip_is_shuffled_in_an_order_of_its_own(sequences):
    x = np.arange(20 * 8 * 3, dtype=np.float32).reshape(20, 8, 3)
    data = sequences(x, [0, 1] * 10)
    found = shuffled(data, 0)
    orders = (found.x[:, :, 0] - data.x[:, :1, 0]).long() // 3  # which moment stands where
    assert torch.equal(found.x, data.x[torch.arange(20)[:, None], orders]), "whole moments move"
    assert torch.equal(orders.sort(1).values, torch.arange(8).expand(20, -1)), "none is lost"
    assert len({tuple(order.tolist()) for order in orders}) > 15
    assert found.clips == data.clips


def test_shuffles_are_those_of_the_seed(sequences):
    data = sequences(np.random.default_rng(0).normal(size=(6, 9, 2)), [0, 1] * 3)
    assert torch.equal(shuffled(data, 3).x, shuffled(data, 3).x)
    assert not torch.equal(shuffled(data, 3).x, shuffled(data, 4).x)


def test_training_clips_come_in_several_orders_and_so_do_their_copies(sequences):
    data = sequences(np.random.default_rng(0).normal(size=(6, 9, 2)), [0, 1] * 3)
    data = dataclasses.replace(data, copies=(-data.x,))
    found = shuffled(data, 0, orders=3)
    assert len(found.copies) == 5
    originals = [found.x, *found.copies[1::2]]
    for n, x in enumerate(originals):
        assert torch.equal(x.sort(1).values, data.x.sort(1).values)
        assert all(not torch.equal(x, other) for other in originals[:n])
    for copy in found.copies[::2]:
        assert torch.equal(copy.sort(1).values, (-data.x).sort(1).values)
