"""Faithfulness of heatmaps: how the verdict changes if the hottest cells are covered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from features.backbones import Backbone, Images
from features.embedding import half
from features.trajectory import Trajectory
from model.run.run import Run
from model.training.sequences import join_streams

COVERED_SHARE = 0.2  # of the cells of each map
RANDOM_DRAWS = 3


@dataclass(frozen=True)
class Faithfulness:
    """Fall of a verdict's log-odds when a share of the cells of each map is covered."""

    share: float  # 0..1
    hottest: float  # the hottest cells are covered
    random: float  # as many random cells are, mean of several draws


def faithfulness_of(
    run: Run,
    backbone: Backbone,
    embedded: Mapping[str, npt.NDArray[Any]],
    stream: str,
    pictures: Images,
    heat: npt.NDArray[np.float32],
    begin: Callable[[], Trajectory] | None = None,
) -> Faithfulness:
    """Measure the effect of covering cells of M pictures with heatmaps (M, h, w) of a stream.

    ``begin`` begins a trajectory of the clip, if the run uses that of the stream. The same cells
    are then covered at all moments, as a cover that moves would be motion.
    """
    whole = log_odds(run, embedded)
    sign = verdict_sign(run, whole)
    names = run.config.trajectory
    columns = [n for n, name in enumerate(names) if name.startswith(f"{stream} ")]

    def fall(order: npt.NDArray[np.float64]) -> float:
        if begin:
            order = np.broadcast_to(order.mean(0), order.shape)
        covered = blur_cells(pictures, highest_cells(order, COVERED_SHARE))
        clip = covered, begin() if begin else None
        ((vectors, trajectory),) = backbone.embed_each([clip], run.config.options.every)
        changed = {**embedded, stream: half(vectors)}
        if trajectory:
            changed["trajectory"] = embedded["trajectory"].copy()
            changed["trajectory"][:, columns] = trajectory.table()
        return sign * (whole - log_odds(run, changed))

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
    """Mask the share of cells with the highest values of each map, (M, h, w)."""
    flat = values.reshape(len(values), -1)
    ranks = flat.argsort(1, kind="stable").argsort(1)
    n = round(share * flat.shape[1])
    return (ranks >= flat.shape[1] - n).reshape(values.shape)


def blur_cells(pictures: Images, cells: npt.NDArray[np.bool_]) -> Images:
    """Blur masked cells, (M, h, w), of pictures, (M, H, W) or (M, H, W, 3) uint8.

    They keep their mean colour and brightness, not their detail.
    """
    size = pictures.shape[2:0:-1]  # width, height
    covered = []
    for picture, mask_of_cells in zip(pictures, cells.astype(np.float32), strict=True):
        mask = cv2.resize(mask_of_cells, size, interpolation=cv2.INTER_NEAREST)
        mask = mask if picture.ndim == 2 else mask[..., None]
        means = cv2.resize(picture, cells.shape[:0:-1], interpolation=cv2.INTER_AREA)
        smooth = cv2.resize(means, size, interpolation=cv2.INTER_LINEAR)
        covered.append(np.rint(picture + mask * (smooth.astype(np.float32) - picture)))
    return np.array(covered).astype(np.uint8)
