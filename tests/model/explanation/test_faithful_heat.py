"""A verdict that truly depends on a place: covering the hottest cells takes it away, on new people.

Pairs of equal real clips, of which one has a flickering chequered patch in a random cell.
"""

import dataclasses

import cv2
import numpy as np
import torch

from features.backbones import load_backbone
from model.explanation.faithfulness import faithfulness_of
from model.explanation.heatmaps import heat_of, slope_of
from model.fitting import training_folds
from model.run.run import Run, load_run
from model.settings import TrainingSettings
from model.training.train import cross_fit

SIDE, CELL, STEPS = 224, 32, 2
ACROSS = SIDE // CELL
LEARNED = ("again", "brother", "help", "bird", "milk", "book", "learn")  # three people
NEW = ("eat", "night", "hungry")  # two others
DRAWS = 2  # places in each clip


def frames_of(path):
    """(STEPS, SIDE, SIDE, 3) uint8, from the middle of a video."""
    video = cv2.VideoCapture(str(path))
    video.set(cv2.CAP_PROP_POS_FRAMES, 10)
    frames = [cv2.resize(video.read()[1], (SIDE, SIDE)) for _ in range(STEPS)]
    return np.stack(frames)[..., ::-1]


def patched(frames, cell, rng):
    frames, (y, x) = frames.copy(), (CELL * n for n in cell)
    board = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((4, 4), int))
    for frame in frames:
        frame[y : y + CELL, x : x + CELL] = (board * rng.integers(150, 255))[..., None]
    return frames


def pairs(folder, words, rng):
    """Real and fake by turns, and the cell of each fake's patch."""
    clips, cells = [], []
    for word in words:
        frames = frames_of(folder / "people" / f"asl_{word}.mkv")
        for _ in range(DRAWS):
            cells.append(rng.integers(0, ACROSS, 2).tolist())
            clips += [frames, patched(frames, cells[-1], rng)]
    return clips, cells


def test_covering_the_hottest_cells_takes_the_verdict_away(fitted, sequences, sample_videos):
    rng = np.random.default_rng(0)
    backbone = load_backbone("squeezenet1_1", "random:0", "cpu")
    learned, _ = pairs(sample_videos, LEARNED, rng)
    x = backbone.embed(np.concatenate(learned)).reshape(len(learned), STEPS, -1)
    data = sequences(x, [n % 2 for n in range(len(learned))])
    shape = TrainingSettings(head="lstm", streams=("flow",), max_epochs=30, sequence_length=STEPS)
    trained = cross_fit(data, training_folds(data, 2, 0), shape)
    config = load_run(fitted.folder).config
    config = dataclasses.replace(
        config,
        widths={"flow": x.shape[-1]},
        temperature=1.0,
        embedding=config.embedding | {"every": 1},
    )
    run = Run(fitted.folder, config, trained.ensemble)
    clips, cells = pairs(sample_videos, NEW, rng)
    hits, found = [], []
    for pictures, cell in zip(clips[1::2], cells, strict=True):
        x = backbone.embed(pictures)
        heat = heat_of(backbone, pictures, slope_of(run, torch.from_numpy(x)))
        hottest = np.unravel_index(heat.sum(0).argmax(), heat.shape[1:])
        away = (np.array(hottest) + 0.5) / heat.shape[1] - (np.array(cell) + 0.5) / ACROSS
        hits.append(abs(away).max() < 1.5 / ACROSS)
        embedded = {"flow": x, "rows": backbone.rows(STEPS)}
        found.append(faithfulness_of(run, backbone, embedded, "flow", pictures, heat))
    fell, random = (np.array([getattr(f, way) for f in found]) for way in ("hottest", "random"))
    assert np.mean(hits) > 0.7, "chance is 9 of 49 cells"
    assert np.mean(fell > random) > 0.8
    assert fell.mean() > 3 * abs(random.mean())
