"""Scores that never saw a fake: STALL and D3 by hand, honest quantiles, and what they find."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal

from features.motion import NAMES
from model.evaluation.controls import UNUSUAL_SCORES
from model.evaluation.evaluation import evaluate
from model.explanation.anomaly import (
    ANOMALY,
    UNUSUAL_QUANTILE,
    load_anomaly,
    read_motion,
    save_anomaly,
)
from model.explanation.stall import Gaussian, Stall, fit_gaussian, log_likelihoods, steps_of
from model.explanation.unusual import (
    COMBINED,
    SCORES,
    USUAL,
    fit_unusual,
    is_unusual,
    load_unusual,
    save_unusual,
    steadiness,
    thinned,
    unlikelihood,
)
from model.fitting import fit, training_folds
from model.predict import main as predict_command
from model.prediction.predict_videos import Prediction, backbone_of, predict, sentence
from model.run.run import load_run
from model.training.sequences import load_sequences

STEPS, RATE, D = 60, 24.0, 8  # of a clip: rows, rows per second, features
COLUMNS = ["flow 1 length", "flow 1 turn", "frames 1 cell_turn_mean"]
PLANTED = {"freeze": "d3", "jitter": "stall", "turns": "trajectory"}  # → the score that finds it


def rows_of(n, every=1):
    first = np.arange(n) * every
    return np.stack([first, first + every - 1], axis=1)


# ------------------------------------------------------------------------------------ by hand


def test_d3_is_the_spread_of_the_change_of_length():
    """Steps of 1, 2, 1 and 3: they change by 1, -1 and 2."""
    z = np.array([[0.0, 0], [1, 0], [1, 2], [0, 2], [0, 5]])
    mean = (1 - 1 + 2) / 3
    spread = (((1 - mean) ** 2 + (-1 - mean) ** 2 + (2 - mean) ** 2) / 3) ** 0.5
    assert steadiness(z) == pytest.approx(-spread)
    assert steadiness(np.zeros((5, 2))) == 0, "nothing is steadier than a still"
    assert np.isnan(steadiness(z[:3])), "two steps have one change"
    assert not np.isnan(steadiness(z[:4]))


def test_a_gaussian_is_that_of_its_covariance():
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 2)))[0].T  # (2, 4)
    gaussian = Gaussian(np.arange(4.0), axes, np.array([4.0, 2.0]), np.array(0.5))
    covariance = 4 * np.outer(axes[0], axes[0]) + 2 * np.outer(axes[1], axes[1])
    covariance += 0.5 * (np.eye(4) - axes.T @ axes)
    x = np.random.default_rng(1).normal(size=(6, 4))
    expected = multivariate_normal(np.arange(4.0), covariance).logpdf(x)
    assert gaussian.log_likelihood(x) == pytest.approx(expected)


def test_stall_takes_the_likeliest_frame_and_the_unlikeliest_step():
    """In two dimensions: frames around the origin, steps along the first axis."""
    frames = Gaussian(np.zeros(2), np.array([[1.0, 0]]), np.array([4.0]), np.array(1.0))
    steps = Gaussian(np.zeros(2), np.array([[1.0, 0]]), np.array([1.0]), np.array(0.25))
    z = np.array([[2.0, 0], [4, 0], [4, 3], [4, 3]])  # right, up, and nowhere
    assert steps_of(z).tolist() == [[1, 0], [0, 1]]
    frame, step = log_likelihoods([frames], [steps], z)
    log_normal = -np.log(2 * np.pi)  # of two dimensions
    assert frame == pytest.approx(log_normal - np.log(4) / 2 - (2**2 / 4) / 2)
    assert step == pytest.approx(log_normal - np.log(0.25) / 2 - (1 / 0.25) / 2)
    stall = Stall((frames,), (steps,), np.array([-9.0, -2, 0]), np.array([-3.0, -2, -1, 0]))
    # one of three frames is less likely, and none of four steps
    assert unlikelihood(stall, np.array([-5.0, -4.0])) == pytest.approx(1 - (1 / 3 + 0) / 2)
    assert np.isnan(log_likelihoods([frames], [steps], np.ones((3, 2)))).all(), "it has no step"


def test_a_gaussian_of_few_clips_is_finite_everywhere():
    rng = np.random.default_rng(0)
    for x in (rng.normal(size=(3, 2048)), rng.normal(size=(500, 3)), np.ones((9, 5))):
        found = fit_gaussian(x).log_likelihood(np.concatenate([x, x[:1] + 5]))
        assert np.isfinite(found).all()
        assert found[-1] < found[:-1].min()


# ------------------------------------------------------------------------------------ the time step


@pytest.mark.parametrize(("rate", "stride"), [(24, 3), (25, 3), (30, 4), (12, 2), (60, 8), (8, 1)])
def test_a_clip_is_thinned_to_equal_steps_of_about_an_eighth_of_a_second(rate, stride):
    z = np.arange(60.0)[:, None]
    found = thinned(z, rows_of(60), rate)[:, 0]
    assert found.tolist() == list(range(0, 60, stride))
    assert 1 / 11 < stride / rate <= 1 / 6


def test_rows_that_are_too_far_apart_are_refused():
    assert len(thinned(np.ones((60, 1)), rows_of(60), 5.0)) == 0
    assert len(thinned(np.ones((60, 1)), rows_of(60, every=8), 25.0)) == 0
    assert len(thinned(np.ones((1, 1)), rows_of(1), 25.0)) == 0


def walk(rng, n, *, per_second, smooth=0.3, speed=None):
    """Embeddings of a clip, (n, D), that drift within `smooth` seconds, a drift per clip."""
    fine = 240  # per second
    kernel = np.exp(-0.5 * (np.arange(-1, 1, 1 / fine) / smooth) ** 2)
    length = int(np.ceil(n * fine / per_second)) + len(kernel)
    noise = rng.normal(size=(length, D)) * np.linspace(2, 0.3, D)
    path = np.stack([np.convolve(column, kernel, "valid") for column in noise.T], axis=1)
    path = path[np.arange(n) * fine // int(per_second)] / np.sqrt((kernel**2).sum())
    return 3 + (rng.uniform(0.7, 1.4) if speed is None else speed) * path


def test_half_the_frame_rate_changes_stall_and_d3_little():
    rng = np.random.default_rng(2)
    clips = [walk(rng, 240, per_second=24) for _ in range(40)]
    gaussians = (
        fit_gaussian(np.concatenate([z[::3] for z in clips])),
        fit_gaussian(np.concatenate([steps_of(z[::3]) for z in clips])),
    )
    values = []
    for skip in (1, 2):
        of_rate = [thinned(z[::skip], rows_of(240 // skip), RATE / skip) for z in clips]
        likely = [log_likelihoods(gaussians[:1], gaussians[1:], z) for z in of_rate]
        values.append((np.array([steadiness(z) for z in of_rate]), np.array(likely)))
    (d3, likely), (d3_half, likely_half) = values
    # 24 frames/s become 8, and 12 become 6: of smooth paths lengths grow by 4/3, their changes by
    # its square at most.
    assert 1 < np.median(d3_half / d3) < (4 / 3) ** 2
    assert np.corrcoef(d3, d3_half)[0, 1] > 0.8
    assert np.abs(np.median(likely_half - likely, axis=0)).max() < 0.5 * likely.std(0).min()
    same = [thinned(z[::2], rows_of(120), 15.0) for z in clips]
    assert all(
        np.array_equal(one, thinned(z, rows_of(240), 30.0))
        for one, z in zip(same, clips, strict=True)
    )


# ------------------------------------------------------------------------------------ in a corpus


def people(fabricate, clip, n, *, seed=0, planted="", split="train", label=0, first=0):
    """A cache of a clip per person; `planted` is what is wrong with all of them."""
    rng = np.random.default_rng(seed)
    clips = [
        clip(first + k, label, split, fps=RATE, identities=(f"person:{first + k}",))
        for k in range(n)
    ]
    return clips, [one_clip(rng, planted) for _ in range(n)]


def one_clip(rng, planted=""):
    frames = walk(rng, STEPS, per_second=RATE, speed=1e-3 if planted == "freeze" else None)
    if planted == "jitter":
        frames[:, -1] += 4 * rng.choice([-1, 1], STEPS)  # where real ones hardly go
    trajectory = rng.normal(30, 5, (STEPS, len(COLUMNS))) + rng.normal(0, 3, len(COLUMNS))
    trajectory += 40 * (planted == "turns")
    trajectory[0] = np.nan
    motion = 3 + rng.normal(size=(STEPS, len(NAMES))) + rng.normal(0, 0.5, len(NAMES))
    return frames, trajectory, motion


def cache_of_clips(fabricate, clips, arrays, **settings):
    frames, trajectory, motion = (np.stack(part) for part in zip(*arrays, strict=True))
    return fabricate(
        clips,
        frames,
        frames=frames,
        motion=motion,
        trajectory=trajectory,
        columns=COLUMNS,
        **settings,
    )


@pytest.fixture(scope="module")
def real(fabricate, clip):
    """Sixty real people, of whom a run learns, and two hundred others."""
    clips, arrays = people(fabricate, clip, 60)
    more, others = people(fabricate, clip, 200, seed=1, split="test", first=1000)
    return cache_of_clips(fabricate, [*clips, *more], [*arrays, *others])


@pytest.fixture(scope="module")
def usual(real):
    data = load_sequences(real, ("motion",), ("train",))
    return fit_unusual(real, data, training_folds(data, 3, 0), read_motion(real, data))


def test_quantiles_of_unseen_real_videos_are_uniform(usual, real):
    assert usual.names == SCORES
    unseen = [clip for clip in real.clips if clip.split == "test"]
    values = usual.of_videos(real, unseen)
    assert set(values) == {*SCORES, COMBINED}
    of_videos = [
        usual.quantiles({name: values[name][n] for name in SCORES}) for n in range(len(unseen))
    ]
    for name in (*SCORES, COMBINED):
        found = np.array([one[name] for one in of_videos])
        assert kstest(found, "uniform").statistic < 0.22, name  # 60 and 200 videos: 5% at 0.2
        assert np.mean(found > UNUSUAL_QUANTILE) < 0.15, name
    assert np.mean([is_unusual(one) for one in of_videos]) < 0.15


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found_by_its_score(planted, usual):
    rng = np.random.default_rng(9)
    found = [usual.of_video([embedded(one_clip(rng, planted))], RATE) for _ in range(20)]
    assert np.median([one[PLANTED[planted]] for one in found]) > 0.95
    assert np.median([one["motion"] for one in found]) < 0.8, "that is as ever"


def embedded(arrays):
    frames, trajectory, motion = arrays
    return {"frames": frames, "trajectory": trajectory, "motion": motion, "rows": rows_of(STEPS)}


def test_what_cannot_be_known_is_left_out(usual):
    clip = embedded(one_clip(np.random.default_rng(3)))
    assert set(usual.of_video([clip], 5.0)) == {"motion", "trajectory", COMBINED}, "rows too far"
    unknown = clip | {"trajectory": np.full((STEPS, 3), np.nan)}
    assert set(usual.of_video([unknown], RATE)) == {"motion", "stall", "d3", COMBINED}
    nothing = unknown | {"motion": np.full((STEPS, len(NAMES)), np.nan)}
    assert usual.of_video([nothing], 5.0) == {}
    assert usual.trajectory.drivers([clip["trajectory"]])[0][0] in [
        f"{kind}{column}".replace("_", " ") for column in COLUMNS for kind in ("", "variation of ")
    ]


def test_fakes_change_nothing(fabricate, clip):
    clips, arrays = people(fabricate, clip, 30)
    fakes, of_fakes = people(fabricate, clip, 30, seed=1, label=1, first=1000)
    fits = []
    for scale in (1, 50):
        scaled = [tuple(scale * part for part in one) for one in of_fakes]
        cache = cache_of_clips(fabricate, [*clips, *fakes], [*arrays, *scaled])
        data = load_sequences(cache, ("motion",), ("train",))
        folds = training_folds(data, 3, 0)
        fits.append(fit_unusual(cache, data, folds, read_motion(cache, data)))
    a, b = fits
    for name in (*SCORES, COMBINED):
        assert np.array_equal(a.reference(name), b.reference(name))
        assert len(a.reference(name)) == 30, "real videos, no fakes"
    one = embedded(arrays[0])
    assert a.of_clip(one, RATE) == b.of_clip(one, RATE)


def test_what_is_saved_and_loaded_says_the_same_and_an_old_run_knows_motion(usual, tmp_path):
    save_unusual(tmp_path, usual)
    first = (tmp_path / ANOMALY).read_bytes()
    loaded, clip = load_unusual(tmp_path), embedded(one_clip(np.random.default_rng(6)))
    assert loaded.of_video([clip], RATE) == usual.of_video([clip], RATE)
    assert (loaded.names, loaded.streams) == (usual.names, {"flow", "frames"})
    save_unusual(tmp_path, loaded)
    assert (tmp_path / ANOMALY).read_bytes() == first
    save_anomaly(tmp_path, load_anomaly(tmp_path))  # as runs of earlier versions have it
    old = load_unusual(tmp_path)
    assert (old.names, old.streams) == (("motion",), set())
    quantiles = old.of_video([clip], RATE)
    assert quantiles == {"motion": usual.of_video([clip], RATE)["motion"]}
    assert is_unusual(quantiles) == (quantiles["motion"] > UNUSUAL_QUANTILE)


def test_each_is_a_control_beside_a_detector(fabricate, clip, fast, tmp_path):
    sides = {"train": (40, 0), "test": (30, 500)}
    clips, arrays = [], []
    for split, (n, first) in sides.items():
        for label in (0, 1):
            more = people(
                fabricate,
                clip,
                n,
                seed=first + label,
                planted="turns" if label else "",
                split=split,
                label=label,
                first=first + 100 * label,
            )
            clips += more[0]
            arrays += more[1]
    cache = cache_of_clips(fabricate, clips, arrays)
    settings = dataclasses.replace(fast, max_epochs=1)
    run = fit(cache, tmp_path / "run", settings=settings, device="cpu")
    evaluation = evaluate(run, cache, controls=False)
    auc = {
        name: evaluation.metrics[control]["test"]["auc_roc"].value
        for name, control in UNUSUAL_SCORES.items()
    }
    assert auc["trajectory"] > 0.95
    assert all(0.25 < auc[name] < 0.75 for name in ("motion", "stall", "d3"))
    written = json.loads((run.folder / "metrics.json").read_text())["controls"]
    assert written["trajectories"]["test"]["auc_roc"]["value"] == auc["trajectory"]
    assert written["STALL"]["test"]["brier"]["value"] is None, "these are no probabilities"


# ------------------------------------------------------------------------------------ on new videos


def test_a_verdict_has_them_beside_it_and_only_anomaly_asks_no_detector(
    chain, in_process, run_command, tmp_path
):
    held = next(clip for clip in chain.cache.clips if clip.split == "test")
    path = chain.videos[held.video]
    run = load_run(chain.folder)
    backbone = backbone_of(run, str(chain.weights), "cpu")
    (both,) = predict(run, [path], backbone, pool=in_process)
    assert both.verdict in ("real", "fake")
    assert both.unusual["motion"] == both.anomaly
    unusual = load_unusual(chain.folder)
    clips = [clip for clip in chain.cache.clips if clip.video == held.video]
    values = unusual.of_videos(chain.cache, clips)
    expected = unusual.quantiles({name: values[name][0] for name in unusual.available(chain.cache)})
    assert both.unusual == pytest.approx(expected), "as of the cache"
    assert "stall" in expected
    assert "\n  real training videos that are less unusual: motion " in sentence(both)
    arguments = (chain.folder, path, "--weights", chain.weights, "--device", "cpu", "--jobs", 1)
    done = run_command(predict_command, *arguments, "--only", "anomaly", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["probability"], found["threshold"], found["streams"]) == (None, None, {})
    assert found["verdict"] in ("usual", "unusual")
    assert found["unusual"] == pytest.approx(both.unusual)
    refused = run_command(predict_command, *arguments, "--only", "anomaly", "--report", tmp_path)
    assert refused.exit_code == 2
    assert "--report explains the verdict of a detector, and --only anomaly" in refused.stderr
    table = tmp_path / "results.csv"
    for only, code in (((), 0), (("--only", "anomaly"), 2)):
        done = run_command(predict_command, *arguments, "-o", table, *only)
        assert done.exit_code == code, done.output
    assert "holds results of the detector" in done.stderr


def test_the_sentence_of_a_video_without_a_detector_claims_no_fake():
    quantiles = {"motion": 0.5, "d3": 0.999, COMBINED: 0.7}
    found = sentence(Prediction("a.mp4", USUAL, None, None, 1, "", "", 0.5, "", unusual=quantiles))
    assert found == (
        "a.mp4: usual, 70% of real training videos are less unusual (called unusual above 95%, "
        "which does not say whether it is fake)\n  by score: motion 50%, d3 99%, combined 70%"
    )
