"""How far heat can be believed: cover the hottest cells, and see what the verdict does."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from features.backbones import Backbone, Pictures
from features.embedding import half
from model.explanation.explanation import Faithfulness
from model.run.run import Run
from model.training.sequences import join_streams

SHARE = 0.2  # of the cells of each map that are covered
DRAWS = 3  # of random cells
Covered = npt.NDArray[np.bool_]


def faithfulness_of(
    run: Run,
    backbone: Backbone,
    embedded: Mapping[str, npt.NDArray[Any]],
    stream: str,
    pictures: Pictures,
    heat: npt.NDArray[np.float32],
) -> Faithfulness:
    """Cover the cells that speak most for the verdict, and as many random ones.

    Args:
        run: a trained run.
        backbone: the network.
        embedded: the clip, as of `features.embedding.embed_clip`.
        stream: whose heat it is.
        pictures: M of that stream.
        heat: (M, h, w).
    """
    whole = log_odds(run, embedded)
    sign = towards(run, whole)

    def fall(order: npt.NDArray[np.float64]) -> float:
        shown = cover(pictures, most(order, SHARE))
        found = half(backbone.embed(shown, run.config.options.every))
        return sign * (whole - log_odds(run, {**embedded, stream: found}))

    rng = np.random.default_rng(0)
    return Faithfulness(
        SHARE,
        fall(sign * heat.astype(np.float64)),
        float(np.mean([fall(rng.random(heat.shape)) for _ in range(DRAWS)])),
    )


def towards(run: Run, log_odds: float) -> int:
    """Which way a verdict lies: 1 if a clip of these log-odds is called fake, else -1."""
    probability = run.probabilities(np.array(log_odds * run.config.temperature))
    return 1 if probability >= run.config.threshold else -1


def log_odds(run: Run, embedded: Mapping[str, npt.NDArray[Any]]) -> float:
    """The calibrated log-odds of being fake of one embedded clip."""
    x = torch.from_numpy(join_streams(embedded, run.config.streams))
    with torch.inference_mode():
        return float(run.ensemble(x[None]).double()) / run.config.temperature


def most(order: npt.NDArray[np.float64], share: float) -> Covered:
    """(M, h, w) bool: the highest of each map, that share of its cells, rounded."""
    flat = order.reshape(len(order), -1)
    ranks = flat.argsort(1, kind="stable").argsort(1)
    n = round(share * flat.shape[1])
    return (ranks >= flat.shape[1] - n).reshape(order.shape)


def cover(pictures: Pictures, cells: Covered) -> Pictures:
    """Cover cells of pictures: what is there keeps its mean colour and brightness, not its detail.

    Args:
        pictures: (M, H, W) or (M, H, W, 3) uint8.
        cells: (M, h, w) bool, which ones.
    """
    height, width = pictures.shape[1:3]
    covered = []
    for picture, of_picture in zip(pictures, cells, strict=True):
        mask = cv2.resize(
            of_picture.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
        )
        mask = mask if picture.ndim == 2 else mask[..., None]
        means = cv2.resize(picture, cells.shape[:0:-1], interpolation=cv2.INTER_AREA)
        smooth = cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)
        covered.append(np.rint(picture + mask * (smooth.astype(np.float32) - picture)))
    return np.array(covered).astype(np.uint8)
