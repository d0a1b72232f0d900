"""Heat of trajectories: the cell that moves wrong is the hottest, and cells sum to the columns."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from features.backbones import load_backbone
from features.embedding import embed_clip
from features.settings import Options
from features.trajectory import COLUMNS, column_names
from model.explanation.anomaly import load_anomaly
from model.explanation.explain import explain_clip
from model.explanation.heatmaps import resized, slope_of
from model.explanation.trajectory_heat import MAX_SIDE
from model.run.run import Run, load_run
from model.settings import HeadSettings, TrainingSettings
from model.training.heads import Ensemble, Head
from model.training.sequences import join_streams

SIDE, STEPS, CELL = 112, 14, 28


@pytest.fixture(scope="module")
def network():
    return load_backbone("squeezenet1_1", "random:0", "cpu")


def clip_of(patch, seed=0):
    """A scene that pans, in which the patch of this row and column flickers."""
    rng = np.random.default_rng(seed)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (200, 200, 3)).astype(np.float32), (0, 0), 4)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    frames = np.stack([wide[40 : 40 + SIDE, 20 + n : 20 + n + SIDE] for n in range(STEPS)])
    y, x = (CELL * n for n in patch)
    frames[:, y : y + CELL, x : x + CELL] = rng.integers(0, 255, (STEPS, CELL, CELL, 3))
    return {
        "frames": frames,
        "flow": np.zeros((STEPS - 1, SIDE, SIDE), np.uint8),
        "flow_range": np.zeros((STEPS - 1, 2), np.float32),
        "timestamps": np.arange(STEPS) / 25,
        "camera": np.zeros((STEPS - 1, 6), np.float32),
    }


@pytest.fixture(scope="module")
def usual_motion(fitted):
    return load_anomaly(fitted.folder)


@pytest.fixture(scope="module")
def run(fitted, network):
    """A detector by hand: longer and sharper steps of cells are fake."""
    options = Options(streams=("frames",))
    x = np.stack([embed_clip(clip_of((n, n)), network, options)["trajectory"] for n in range(3)])
    columns = tuple(column_names(("frames",), network.depths))
    head = Head({"trajectory": len(columns)}, HeadSettings("statistics"))
    head.standardise_by(torch.from_numpy(x), torch.arange(3))
    with torch.no_grad():
        weights = torch.zeros(5, len(columns), dtype=torch.float64)
        for n, name in enumerate(columns):
            if name.endswith(("cell_length_mean", "cell_turn_mean", "face_length", " change")):
                weights[0, n] = 1.0
        head.branches[0].classify.weight.copy_(weights.flatten())
        head.branches[0].classify.bias.zero_()
    config = load_run(fitted.folder).config
    config = dataclasses.replace(
        config,
        widths={"trajectory": len(columns)},
        training=TrainingSettings(head="statistics", streams=("trajectory",)),
        trajectory=columns,
        temperature=2.0,
        threshold=0.0,  # everything is fake: heat towards fake is covered
        embedding=config.embedding | {"every": 1, "streams": ["frames"]},
    )
    return Run(fitted.folder, config, Ensemble([head], config.training.crop_length).eval())


@pytest.mark.parametrize("patch", [(0, 1), (2, 2), (3, 0)])
def test_the_cell_that_flickers_alone_is_the_hottest(patch, run, network, usual_motion):
    found = explain_clip(run, clip_of(patch), network, anomaly=usual_motion, faithfulness=True)
    heat = found.heat["frames"]
    assert heat.shape[0] == STEPS - 1 and max(heat.shape[1:]) <= MAX_SIDE
    hottest = np.unravel_index(heat.sum(0).argmax(), heat.shape[1:])
    place = (np.array(hottest) + 0.5) / heat.shape[1:] * SIDE / CELL
    assert (np.abs(place - np.array(patch) - 0.5) < 0.75).all()
    faithful = found.faithfulness["frames"]
    assert faithful.hottest > max(0, 2 * faithful.random), "log-odds"


def test_cells_add_up_to_what_the_columns_add(run, network, usual_motion):
    arrays = clip_of((1, 1))
    heat = explain_clip(run, arrays, network, anomaly=usual_motion).heat["frames"]
    embedded = embed_clip(arrays, network, run.config.options)
    slope = slope_of(run, torch.from_numpy(join_streams(embedded, ("trajectory",))))
    assert np.isfinite(slope.added).all() and np.isfinite(heat).all()
    np.testing.assert_allclose(heat.sum((1, 2)), slope.added.sum(1), atol=1e-4)
    assert (heat[0] == 0).all(), "the first picture has no step"


def test_maps_keep_their_sums_on_other_grids():
    maps = np.random.default_rng(0).normal(size=(2, 14, 14)).astype(np.float32)
    for size in ((28, 28), (7, 7)):
        other = resized(maps, size)
        assert other.shape == (2, *size)
        np.testing.assert_allclose(other.sum((1, 2)), maps.sum((1, 2)), rtol=1e-4)
    assert len(COLUMNS) == 13
