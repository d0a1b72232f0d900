"""A planted patch, and a planted moment: the heat and the moments find them, and nobody else's."""

import dataclasses

import numpy as np
import pytest
import torch

from features.backbones import load_backbone
from features.last_map import weighted_maps
from features.motion import NAMES
from model.explanation.anomaly import fit_anomaly
from model.explanation.faithfulness import faithfulness_of, highest_cells
from model.explanation.heatmaps import heat_of, slope_of
from model.explanation.occlusion_over_time import (
    BAND,
    Band,
    by_moment,
    contributions,
    fit_band,
    load_band,
    save_band,
    span_length,
    span_probabilities,
)
from model.fitting import training_folds
from model.run.run import Run, load_run
from model.settings import HeadSettings, TrainingSettings
from model.training.heads import Ensemble, Head
from model.training.train import cross_fit
from pipeline.common.errors import IntegrityError

SIDE, CELL, STEPS = 128, 32, 6
GRID = 7  # cells of the network's last map of such a picture, in a row


def clip_of(rng, cell=None):
    """(STEPS, SIDE, SIDE) uint8: noise, and a checked patch in one cell if it is fake."""
    pictures = rng.integers(90, 120, (STEPS, SIDE, SIDE))
    if cell is not None:
        y, x = (CELL * n for n in cell)
        pictures[:, y : y + CELL, x : x + CELL] = np.kron(
            np.indices((8, 8)).sum(0) % 2, np.ones((4, 4), int)
        ) * rng.integers(150, 220, (STEPS, 1, 1))
    return pictures.astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Planted:
    run: Run
    backbone: object
    new: list  # (pictures, embeddings, cell) of fakes nobody trained on


@pytest.fixture(scope="module")
def planted(fitted, sequences):
    """Fakes have a patch in a random cell; heads are trained on that."""
    rng = np.random.default_rng(0)
    backbone = load_backbone("squeezenet1_1", "random:0", "cpu")
    clips, cells = [], []
    for n in range(28):
        cells.append(tuple(rng.integers(0, 4, 2).tolist()) if n % 2 else None)
        clips.append(clip_of(rng, cells[-1]))
    x = backbone.embed(np.concatenate(clips)).reshape(len(clips), STEPS, -1)
    data = sequences(x[:20], [n % 2 for n in range(20)])
    shape = TrainingSettings(head="mean", streams=("flow",), max_epochs=25, sequence_length=STEPS)
    trained = cross_fit(data, training_folds(data, 2, 0), shape)
    config = load_run(fitted.folder).config
    config = dataclasses.replace(
        config,
        widths={"flow": x.shape[-1]},
        temperature=1.0,
        embedding=config.embedding | {"every": 1},
    )
    new = [(clips[n], x[n], cells[n]) for n in range(21, 28, 2)]
    return Planted(Run(fitted.folder, config, trained.ensemble), backbone, new)


def log_odds(run, x):
    with torch.inference_mode():
        return float(run.ensemble(torch.from_numpy(x)[None]).double()) / run.config.temperature


def heat(planted, pictures, x):
    slope = slope_of(planted.run, torch.from_numpy(x))
    return heat_of(planted.backbone, pictures, slope)


def test_heat_lies_where_the_patch_was_planted(planted):
    """Within a cell of the map around it, as the network sees across the borders of its cells."""
    middles = (np.arange(GRID) + 0.5) * SIDE / GRID
    for pictures, x, cell in planted.new:
        found = heat(planted, pictures, x)
        assert found.shape == (STEPS, GRID, GRID)
        near = [abs(middles - (n + 0.5) * CELL) < CELL / 2 + SIDE / GRID for n in cell]
        inside = np.outer(*near)
        summed = found.sum(0)
        assert summed[inside].mean() > summed[~inside].mean()
        assert inside.mean() < 0.4


def test_heat_is_complete_where_the_network_averages_and_the_head_is_linear(planted):
    """It sums to the log-odds, less those of a clip like the mean of the training clips."""
    for pictures, x, _ in planted.new:
        usual = [
            head(head.mean.expand(1, STEPS, -1)).item() / len(planted.run.ensemble.heads)
            for head in planted.run.ensemble.heads
        ]
        expected = log_odds(planted.run, x) - sum(usual)
        assert heat(planted, pictures, x).sum() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", ["lstm", "gru", "tcn", "transformer"])
def test_what_rows_add_sums_to_the_verdict_beside_the_training_mean(fitted, kind):
    """Though the heads are steep, and some numbers farther out than they are looked at."""
    run = timed(fitted, kind, window=10)
    for head in run.ensemble.heads:
        head.branches[0].classify[1].weight.data *= 50
    x = 3 * torch.from_numpy(np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32))
    x[5, 1] = 30
    usual = run.ensemble.heads[0].mean.expand_as(x).numpy()
    expected = log_odds(run, x.numpy()) - log_odds(run, usual)
    slope = slope_of(run, x)
    assert abs(expected) > 0.1
    assert slope.added.sum() == pytest.approx(expected, rel=0.02, abs=0.02)
    x_beside = (x - run.ensemble.heads[0].mean).numpy()
    np.testing.assert_allclose(slope.gradient * x_beside, slope.added, rtol=1e-3, atol=1e-5)


def test_a_cell_adds_its_share_of_features_beside_the_training_mean(planted):
    """Before anything is made complete, the map is already: it only lacks the mean."""
    pictures, x, _ = planted.new[0]
    slope = slope_of(planted.run, torch.from_numpy(x))
    maps = weighted_maps(planted.backbone, pictures, slope.gradient).sum((1, 2, 3))
    np.testing.assert_allclose(maps, (slope.gradient * x).sum(1), rtol=1e-3, atol=1e-4)


def test_covering_what_decides_takes_more_of_the_verdict_than_random_cells(planted):
    """Given the cell that is known to decide as the hottest one."""
    for pictures, x, cell in planted.new:
        embedded = {"flow": x, "rows": planted.backbone.rows(STEPS)}
        known = np.zeros((STEPS, SIDE // CELL, SIDE // CELL), np.float32)
        known[:, cell[0], cell[1]] = 1
        run, backbone = planted.run, planted.backbone
        found = faithfulness_of(run, backbone, embedded, "flow", pictures, known)
        assert found.hottest > found.random
        assert found.hottest > 0


def test_a_row_about_several_pictures_is_shared_out_among_them(planted):
    pictures, _, _ = planted.new[0]
    x = planted.backbone.embed(pictures, every=4)
    slope = slope_of(planted.run, torch.from_numpy(x))
    found = heat_of(planted.backbone, pictures, slope, every=4)
    assert found.shape == (STEPS, GRID, GRID)
    assert all(np.array_equal(found[0], found[n]) for n in (1, 2, 3))
    assert np.array_equal(found[4], found[5])
    assert not np.array_equal(found[0], found[4])
    np.testing.assert_allclose(found.sum(), slope.added.sum(), rtol=1e-3)


def test_the_most_are_that_many_of_each_map():
    order = np.random.default_rng(0).random((5, 4, 4))
    chosen = highest_cells(order, 0.25)
    assert (chosen.sum((1, 2)) == 4).all()
    for values, mask in zip(order, chosen, strict=True):
        assert values[mask].min() > values[~mask].max()


# ------------------------------------------------------------------------------------------- when


def timed(fitted, kind="mean", length=24, window=24) -> Run:
    """A run whose heads say fake where the first number is high, whatever the others are."""
    torch.manual_seed(0)
    heads = [Head({"flow": 3}, HeadSettings(kind)) for _ in range(2)]
    if kind == "mean":
        for head in heads:
            head.branches[0].classify[1].weight.data = torch.tensor([[20.0, 0.0, 0.0]])
    config = dataclasses.replace(load_run(fitted.folder).config, widths={"flow": 3})
    return Run(fitted.folder, config, Ensemble(heads, window).eval())


def by_spans(run, x):
    ensemble = run.ensemble
    return span_probabilities(ensemble, x, ensemble.crop_length, run.config.temperature)


@pytest.mark.parametrize("at", [2, 11, 21])
def test_a_planted_moment_is_found_by_leaving_it_out_and_by_itself(fitted, at):
    run, x = timed(fitted), torch.zeros(24, 3)
    x[at, 0] = 2.0
    for found in (contributions(run, x), by_spans(run, x)):
        assert found.shape == (24,)
        best = np.flatnonzero(found > found.max() - 1e-9)
        assert at in best, "the stretch around it has it, and so have its neighbours"
        assert len(best) < 2 * span_length(24, 24)
        assert found.max() > found.min()


@pytest.mark.parametrize("kind", ["lstm", "tcn", "transformer"])
def test_leaving_out_is_what_the_verdict_loses_at_the_training_mean(fitted, kind):
    run = timed(fitted, kind, window=10)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32))
    found = contributions(run, x)
    for row in (0, 12, 23):
        start = int(np.clip(row - 4, 0, 24 - 8))
        without = x.clone()
        without[start : start + 8] = run.ensemble.heads[0].mean
        expected = log_odds(run, x.numpy()) - log_odds(run, without.numpy())
        assert found[row] == pytest.approx(expected, abs=1e-4)


def test_a_stretch_is_a_quarter_but_no_longer_than_heads_know():
    assert span_length(100, 64) == 25
    assert span_length(100, 16) == 16
    assert span_length(20, 64) == 8
    assert span_length(5, 64) == 5


def test_rows_go_back_to_their_moments():
    rows = np.array([[0, 3], [2, 5]])
    found = by_moment(np.array([1.0, 3.0]), rows, 8)
    assert found.tolist() == [1, 1, 2, 2, 3, 3, 3, 3]


# ------------------------------------------------------------------------------------------- band


@pytest.fixture(scope="module")
def people(easy_corpus, sequences):
    """Clips of an easy corpus with motion, and the heads of its folds."""
    clips, x = easy_corpus(12)
    data = dataclasses.replace(sequences(x, [c.label for c in clips]), clips=tuple(clips))
    rng = np.random.default_rng(0)
    motion = [1 + rng.random((x.shape[1], len(NAMES))).astype(np.float32) for _ in clips]
    return data, motion, training_folds(data, 3, 0)


def band_of(run, data, motion, folds, fast):
    trained = cross_fit(data, folds, fast)
    run = Run(run.folder, run.config, trained.ensemble)
    return fit_band(run, data, trained.folds, motion, fit_anomaly(motion, data, folds)), trained


def test_the_band_is_of_real_clips_and_heads_that_did_not_see_them(fitted, people, fast):
    data, motion, folds = people
    run = load_run(fitted.folder)
    band, trained = band_of(run, data, motion, folds, fast)
    found = []
    for fold, (train, val) in zip(trained.folds, folds, strict=True):
        assert not set(train) & set(val)
        alone = Run(run.folder, run.config, Ensemble([fold.head], 12).eval())
        found += [by_spans(alone, data.x[n]) for n in val if data.labels[n] == 0]
    assert len(found) == 12, "all that are real, each once"
    assert band.moments == pytest.approx(np.quantile(np.concatenate(found), band.quantiles))
    assert list(band.anomaly) == sorted(band.anomaly)


def test_moments_are_as_strange_as_the_band_says(fitted, people, fast):
    data, motion, folds = people
    band, _ = band_of(load_run(fitted.folder), data, motion, folds, fast)
    low, median, high = (band.anomaly[band.quantiles.index(q)] for q in (0.05, 0.5, 0.95))
    found = band.stranger_than(np.array([0.0, low, median, high, 99.0, np.nan]))
    assert found[:5] == pytest.approx([0, 0.05, 0.5, 0.95, 1])
    assert np.isnan(found[5])


def test_the_band_does_not_look_at_fakes(fitted, people, fast):
    data, motion, folds = people
    run = load_run(fitted.folder)
    trained = cross_fit(data, folds, fast)
    run = Run(run.folder, run.config, trained.ensemble)
    anomaly = fit_anomaly(motion, data, folds)
    before = fit_band(run, data, trained.folds, motion, anomaly)
    x = data.x.clone()
    x[torch.from_numpy(np.flatnonzero(data.labels))] = 99
    other = [m * 9 if label else m for m, label in zip(motion, data.labels, strict=True)]
    changed = dataclasses.replace(data, x=x)
    assert fit_band(run, changed, trained.folds, other, anomaly) == before


def test_a_run_has_its_band_and_a_damaged_one_is_refused(fitted, tmp_path):
    band = load_band(fitted.folder)
    assert (band.quantiles[0], band.quantiles[100], band.quantiles[-1]) == (0, 0.5, 1)
    assert list(band.anomaly) == sorted(band.anomaly)
    with pytest.raises(IntegrityError, match="No such file"):
        load_band(tmp_path)
    save_band(tmp_path, band)
    assert load_band(tmp_path) == band
    assert isinstance(band, Band)
    whole = (tmp_path / BAND).read_text()
    for damaged in (whole[:-9], "[]", whole.replace("moments", "minutes"), '{"quantiles": [0.5]}'):
        (tmp_path / BAND).write_text(damaged)
        with pytest.raises(IntegrityError, match="damaged"):
            load_band(tmp_path)
