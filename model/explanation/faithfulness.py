"""Faithfulness of heatmaps: how the verdict changes if the hottest cells are covered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from features.backbones import Backbone, Images
from features.embedding import half
from model.run.run import Run
from model.training.sequences import join_streams

COVERED_SHARE = 0.2  # of the cells of each map
RANDOM_DRAWS = 3


@dataclass(frozen=True)
class Faithfulness:
    """Fall of a clip's log-odds when its hottest cells are covered, and when random cells are.

    Attributes:
        share: share of the cells of each map that are covered, 0..1.
        hottest: fall of the verdict's log-odds when the hottest cells are covered.
        random: the same when as many random cells are covered, mean of several draws.
    """

    share: float
    hottest: float
    random: float


def faithfulness_of(
    run: Run,
    backbone: Backbone,
    embedded: Mapping[str, npt.NDArray[Any]],
    stream: str,
    pictures: Images,
    heat: npt.NDArray[np.float32],
) -> Faithfulness:
    """Measure the effect of covering the cells that speak most for the verdict, and random ones.

    Args:
        run: a trained run.
        backbone: the run's backbone.
        embedded: the clip, from `features.embedding.embed_clip`.
        stream: stream of the heatmaps.
        pictures: M pictures of that stream, as they are embedded.
        heat: heatmaps, (M, h, w).
    """
    whole = log_odds(run, embedded)
    sign = verdict_sign(run, whole)

    def fall(order: npt.NDArray[np.float64]) -> float:
        covered = blur_cells(pictures, highest_cells(order, COVERED_SHARE))
        vectors = half(backbone.embed(covered, run.config.options.every))
        return sign * (whole - log_odds(run, {**embedded, stream: vectors}))

    rng = np.random.default_rng(0)
    return Faithfulness(
        COVERED_SHARE,
        fall(sign * heat.astype(np.float64)),
        float(np.mean([fall(rng.random(heat.shape)) for _ in range(RANDOM_DRAWS)])),
    )


def verdict_sign(run: Run, log_odds: float) -> int:
    """Return 1 if a clip of these calibrated log-odds is called fake, else -1."""
    probability = run.probabilities(np.array(log_odds * run.config.temperature))
    return 1 if probability >= run.config.threshold else -1


def log_odds(run: Run, embedded: Mapping[str, npt.NDArray[Any]]) -> float:
    """Return the calibrated log-odds of being fake of one embedded clip."""
    x = torch.from_numpy(join_streams(embedded, run.config.streams))
    with torch.inference_mode():
        return float(run.ensemble(x[None]).double()) / run.config.temperature


def highest_cells(values: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.bool_]:
    """Return a mask, (M, h, w), of the share of cells with the highest values of each map."""
    flat = values.reshape(len(values), -1)
    ranks = flat.argsort(1, kind="stable").argsort(1)
    n = round(share * flat.shape[1])
    return (ranks >= flat.shape[1] - n).reshape(values.shape)


def blur_cells(pictures: Images, cells: npt.NDArray[np.bool_]) -> Images:
    """Blur cells of pictures: they keep their mean colour and brightness, not their detail.

    Args:
        pictures: (M, H, W) or (M, H, W, 3) uint8.
        cells: mask, (M, h, w).
    """
    height, width = pictures.shape[1:3]
    covered = []
    for picture, mask_of_cells in zip(pictures, cells, strict=True):
        mask = cv2.resize(
            mask_of_cells.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
        )
        mask = mask if picture.ndim == 2 else mask[..., None]
        means = cv2.resize(picture, cells.shape[:0:-1], interpolation=cv2.INTER_AREA)
        smooth = cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)
        covered.append(np.rint(picture + mask * (smooth.astype(np.float32) - picture)))
    return np.array(covered).astype(np.uint8)
