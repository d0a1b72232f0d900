"""How strange motion is: an honest quantile among real videos, from a model that saw no fake."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

from features.motion import NAMES
from model.evaluation.controls import ANOMALY as COLUMN
from model.evaluation.controls import EXPLAINED
from model.evaluation.evaluation import evaluate
from model.explanation.anomaly import (
    ANOMALY,
    fit_anomaly,
    load_anomaly,
    read_motion,
    save_anomaly,
)
from model.fitting import fit, training_folds
from model.reports.run_report import write_report
from model.reports.summary import table
from model.training.sequences import Sequences, load_sequences
from pipeline.common.errors import IntegrityError

STEPS = 10
MEAN, CAMERA, JERK = (NAMES.index(name) for name in ("mean", "camera", "jerk"))


def moving(rng, n, *, person=None, shift=0.0):
    """(n, STEPS, K) descriptors that hang together, as those of real clips do; fakes move more."""
    mix = np.random.default_rng(7).normal(size=(len(NAMES), len(NAMES)))
    own = rng.normal(size=(n, 1, len(NAMES))) if person is None else person
    x = 3 + 0.3 * (own + rng.normal(size=(n, STEPS, len(NAMES)))) @ mix
    x[:, :, MEAN] += shift
    x[:, :2, JERK] = 0
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def of_people(clip):
    """Clips of people, `each` a real and a fake one, and their motion."""

    def make(n_people, seed=0, *, each=1, shift=6.0):
        rng = np.random.default_rng(seed)
        clips, motion = [], []
        for n in range(n_people):
            person = rng.normal(size=(1, 1, len(NAMES)))
            for label in (0, 1):
                motion.extend(moving(rng, each, person=person, shift=label * shift))
                for k in range(each):
                    number = 1000 * n + 10 * k + label
                    clips.append(clip(number, label, identities=(f"person:{n}",)))
        return Sequences(None, tuple(clips), {"motion": len(NAMES)}), motion

    return make


@pytest.fixture(scope="module")
def usual(of_people):
    """A model of 40 people, and those who move."""
    data, motion = of_people(40)
    return fit_anomaly(motion, data, training_folds(data, 3, 0))


def test_fakes_that_move_strangely_are_stranger_than_nearly_all_real_videos(usual):
    rng = np.random.default_rng(5)
    quantiles = [usual.of_video([one])[0] for one in moving(rng, 30, shift=6.0)]
    assert np.median(quantiles) > 0.97
    assert np.mean(np.array(quantiles) > 0.9) > 0.9


def test_the_quantiles_of_unseen_real_people_are_uniform(of_people):
    """One new person per corpus, so that they are independent of one another."""
    found, folds = [], training_folds(of_people(24)[0], 3, 0)
    for seed in range(40):
        data, motion = of_people(24, seed)
        model = fit_anomaly(motion, data, folds)
        new = moving(np.random.default_rng([seed, 1]), 1)
        found.append(model.of_video(new)[0])
    assert kstest(found, "uniform").pvalue > 0.05
    assert np.mean(np.array(found) >= 0.9) < 0.2


def test_the_clips_of_a_person_do_not_make_that_person_usual(of_people):
    """However the other clips of a person move, a clip of theirs keeps its distance."""
    data, motion = of_people(12, each=3)
    folds = training_folds(data, 3, 0)
    own = [
        n for n, clip in enumerate(data.clips) if "person:4" in clip.group_keys and not clip.label
    ]
    (fold,) = [n for n, (_, val) in enumerate(folds) if own[0] in val]
    strange = list(motion)
    for n in own:
        strange[n] = motion[n] + np.float32(4)
    before, after = (fit_anomaly(m, data, folds) for m in (motion, strange))
    for name in ("centre", "scale", "mean", "covariance"):
        of_fold = [getattr(model.clips[fold], name) for model in (before, after)]
        assert np.array_equal(*of_fold)
        others = [getattr(model.clips[fold - 1], name) for model in (before, after)]
        assert not np.array_equal(*others), "the other folds learn from this person"
    assert np.sum(after.reference > before.reference[-1]) == len(own), "all of them stay strange"


def test_fakes_change_nothing(of_people):
    data, motion = of_people(12)
    folds = training_folds(data, 3, 0)
    rng = np.random.default_rng(0)
    scrambled = [
        rng.normal(size=one.shape).astype(np.float32) * 50 if clip.label else one
        for one, clip in zip(motion, data.clips, strict=True)
    ]
    a, b = fit_anomaly(motion, data, folds), fit_anomaly(scrambled, data, folds)
    assert np.array_equal(a.reference, b.reference)
    assert np.array_equal(a.distances(motion), b.distances(motion))
    assert len(a.reference) == 12, "real videos, no fakes"


def test_a_fake_among_the_real_ones_would_be_noticed(of_people, monkeypatch):
    """What it learns from is what the labels call real."""
    data, motion = of_people(12)
    folds = training_folds(data, 3, 0)
    monkeypatch.setattr(np, "flatnonzero", lambda mask: np.arange(len(mask)))
    with pytest.raises(AssertionError, match="fake"):
        fit_anomaly(motion, data, folds)


def test_what_drives_it_is_named_with_its_sign_and_its_share(usual):
    still = moving(np.random.default_rng(3), 1, person=np.zeros((1, 1, len(NAMES))))
    for shift, sign in ((8, 1), (-8, -1)):
        clip = still.copy()
        clip[:, :, MEAN] += shift
        name, share, sd = usual.drivers(clip)[0]
        assert (name, np.sign(sd)) == ("mean speed", sign)
        assert abs(sd) > 3
        assert 0.4 < share <= 1
        assert usual.of_video(clip)[1].startswith(f"mean speed {sd:+.1f} sd, ")
    shares = [share for _, share, _ in usual.drivers(still)]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= 0


def test_the_parts_are_the_mahalanobis_distance(usual):
    (density, *_), rng = usual.clips, np.random.default_rng(2)
    x = density.centre + rng.normal(size=(20, 2 * len(NAMES))) * density.scale
    x[:5, 3] = np.nan
    away = (x - density.centre) / density.scale - density.mean
    for row, parts in zip(away, density.parts(x), strict=True):
        known = ~np.isnan(row)
        inverse = np.linalg.inv(density.covariance[np.ix_(known, known)])
        expected = row[known] @ inverse @ row[known] / known.sum()
        assert parts.sum() == pytest.approx(expected, rel=1e-8)
        assert np.all(parts[~known] == 0)


def test_a_burst_within_a_clip_shows_at_its_moments(usual):
    (clip,) = moving(np.random.default_rng(4), 1)
    before = usual.by_moment(clip)
    clip[6, MEAN] += 10
    after = usual.by_moment(clip)
    assert after.shape == (STEPS,)
    assert after.argmax() == 6
    assert after[6] > 2 * before[6]
    assert np.array_equal(np.delete(after, 6), np.delete(before, 6))


def test_an_unknown_camera_is_neither_strange_nor_usual(usual, of_people):
    """A cache stores 0 where it is not known."""
    clips = moving(np.random.default_rng(8), 60)
    unknown = clips.copy()
    unknown[:, :, CAMERA] = 0
    a, b = usual.distances(clips), usual.distances(unknown)
    assert np.isfinite(b).all()
    assert abs(np.median(b / a) - 1) < 0.1
    assert all("camera" not in name for name, *_ in usual.drivers(unknown))
    broken = unknown.copy()
    broken[:, :, CAMERA] = np.nan
    assert np.array_equal(usual.distances(broken), b)
    data, motion = of_people(12)
    never = [one.copy() for one in motion]
    for one in never:
        one[:, CAMERA] = 0
    model = fit_anomaly(never, data, training_folds(data, 3, 0))
    assert np.array_equal(model.distances(clips), model.distances(unknown))


def test_where_nothing_is_known_there_is_no_quantile(usual):
    assert usual.of_video([np.full((STEPS, len(NAMES)), np.nan, np.float32)]) == (None, "")


def test_ties_count_half(usual):
    tied = dataclasses.replace(usual, reference=np.array([1.0, 2.0, 2.0, 3.0]))
    assert [tied.quantile(d) for d in (0.5, 1.0, 1.5, 2.0, 9.0)] == [0, 0.125, 0.25, 0.5, 1]


# -------------------------------------------------------------------------------------- in a run


@pytest.fixture(scope="module")
def run(fabricate, easy_corpus, fast, tmp_path_factory):
    """Flow says nothing, motion does: fakes move more."""
    clips, x = easy_corpus(40, steps=STEPS, shift=0.0)
    rng = np.random.default_rng(0)
    motion = np.concatenate([moving(rng, 1, shift=1.5 * clip.label) for clip in clips])
    cache = fabricate(clips, x, motion=motion)
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = dataclasses.replace(fast, max_epochs=2, sequence_length=STEPS)
    return fit(cache, folder, settings=settings, device="cpu"), cache


def test_what_is_saved_and_loaded_says_the_same(usual, tmp_path):
    save_anomaly(tmp_path, usual)
    first = (tmp_path / ANOMALY).read_bytes()
    loaded = load_anomaly(tmp_path)
    clips = moving(np.random.default_rng(6), 5)
    assert np.array_equal(loaded.distances(clips), usual.distances(clips))
    assert np.array_equal(loaded.by_moment(clips[0]), usual.by_moment(clips[0]))
    assert loaded.of_video(clips) == usual.of_video(clips)
    assert loaded.threshold == usual.threshold
    save_anomaly(tmp_path, loaded)
    assert (tmp_path / ANOMALY).read_bytes() == first


def test_a_run_has_it_and_a_damaged_one_is_refused(run, tmp_path):
    fitted, cache = run
    training = load_sequences(cache, ("motion",), ("train",))
    motion = read_motion(cache, training)
    again = fit_anomaly(motion, training, training_folds(training, 3, 0))
    held = load_anomaly(fitted.folder)
    assert np.array_equal(held.reference, again.reference)
    assert np.array_equal(held.distances(motion), again.distances(motion))
    with pytest.raises(IntegrityError, match="No such file"):
        load_anomaly(tmp_path)
    (tmp_path / ANOMALY).write_bytes((fitted.folder / ANOMALY).read_bytes()[:-500])
    with pytest.raises(IntegrityError, match="damaged"):
        load_anomaly(tmp_path)
    np.savez(tmp_path / ANOMALY, names=np.array([{}], dtype=object))  # a pickle
    with pytest.raises(IntegrityError, match="allow_pickle=False"):
        load_anomaly(tmp_path)


def test_it_stands_beside_the_detector_with_the_auc_of_scikit_learn(run):
    fitted, cache = run
    evaluation = evaluate(fitted, cache, controls=False)
    unseen = load_sequences(cache, ("motion",), ("test",))
    distances = load_anomaly(fitted.folder).distances(read_motion(cache, unseen))
    found = evaluation.metrics[COLUMN]["test"]
    assert found["auc_roc"].value == pytest.approx(roc_auc_score(unseen.labels, distances))
    assert found["auc_roc"].value > 0.7
    threshold = load_anomaly(fitted.folder).threshold
    right = (distances >= threshold) == unseen.labels
    assert found["accuracy"].value == pytest.approx(right.mean())
    assert (found["brier"].value, found["ece"].value) == (None, None), "these are no probabilities"
    page = write_report(fitted, evaluation).read_text()
    assert COLUMN in table(evaluation)
    assert "it never saw a fake" in page and "it never saw a fake" in EXPLAINED[COLUMN]
