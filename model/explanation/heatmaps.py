"""Heatmaps: the contribution of each cell of each picture to the log-odds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from features.backbones import Backbone, Images
from features.last_map import weighted_maps
from model.run.run import Run
from model.training.heads import Head, clip_logits
from model.training.sequences import columns_of

GRADIENT_STEPS = 32  # points between training mean and clip
ROWS_AT_ONCE = 1024  # of copies of a clip; bounds the memory
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Slope:
    """Calibrated log-odds of a clip as a linear function of its embedding."""

    gradient: Floats  # log-odds per unit of each number, (L, D)
    added: Floats  # log-odds: gradient times the number's distance from its training mean, (L, D)

    def for_stream(self, run: Run, stream: str) -> "Slope":
        """Return the part of one stream."""
        columns = columns_of(run.config.widths)[stream]
        return Slope(self.gradient[:, columns], self.added[:, columns])


def slope_of(run: Run, x: torch.Tensor) -> Slope:
    """Linearise a run's verdict on one clip, (L, D) float32, by integrated gradients.

    Gradients are averaged along the straight line from the training mean to the clip, so that the
    contributions sum to the log-odds, less those of a clip at the training mean. At the clip itself
    a head is mostly saturated, and its gradient carries little.

    References:
        Sundararajan, Taly, Yan, Axiomatic attribution for deep networks, 2017.
    """
    gradient, added = torch.zeros_like(x), torch.zeros_like(x)
    shares = ((torch.arange(GRADIENT_STEPS) + 0.5) / GRADIENT_STEPS)[:, None, None]
    for head in run.ensemble.heads:
        assert isinstance(head, Head)
        by_x = torch.zeros_like(x)
        for batch in shares.split(max(1, ROWS_AT_ONCE // len(x))):  # type: ignore[no-untyped-call]
            line = torch.lerp(head.mean.expand_as(x), x, batch).requires_grad_()  # (n, L, D)
            with torch.enable_grad():
                logits = clip_logits(head, line, run.ensemble.crop_length)
            by_x += torch.autograd.grad(logits.sum(), line)[0].sum(0)
        by_x /= GRADIENT_STEPS * len(run.ensemble.heads) * run.config.temperature
        gradient += by_x
        added += by_x * (x - head.mean).nan_to_num()  # where undefined, trajectories add nothing
    return Slope(gradient.numpy(), added.numpy())


def heat_of(backbone: Backbone, pictures: Images, slope: Slope, every: int = 1) -> Floats:
    """Return the contribution of each cell of M pictures to the log-odds, (M, h, w) float32.

    Where the network averages its last map, a cell contributes the gradient times the difference of
    its features from the training mean, and the cells of a row of the clip sum to the row's
    contribution. Where it does not, one constant per row is added to all cells to make that so. A
    row about several pictures is divided equally among them; a network for videos has its own
    moments.
    """
    maps = weighted_maps(backbone, pictures, slope.gradient, every)  # (L, t, h, w)
    spread_rest(maps, slope.added.sum(1))
    return by_picture(maps, backbone, len(pictures), every)


def resized(maps: Floats, size: tuple[int, int]) -> Floats:
    """Resample maps (n, h, w) to another grid, keeping their sums."""
    share = np.prod(maps.shape[1:]) / np.prod(size)
    return F.interpolate(torch.from_numpy(maps)[:, None], size, mode="area")[:, 0].numpy() * share


def spread_rest(maps: Floats, added: Floats) -> None:
    """Add a constant to the cells of each row, (L, t, h, w), so that they sum to ``added``."""
    missing = added - maps.sum((1, 2, 3))
    maps += (missing / maps[0].size)[:, None, None, None]


def by_picture(maps: Floats, backbone: Backbone, n_pictures: int, every: int) -> Floats:
    """Divide maps of rows, (L, t, h, w), among the pictures that they are about: (M, h, w)."""
    heat = np.zeros((n_pictures, *maps.shape[2:]), np.float32)
    rows, windows = (of(n_pictures, every) for of in (backbone.rows, backbone.windows))
    for (first, last), window, row in zip(rows, windows, maps, strict=True):
        about = window if len(window) > 1 else np.arange(first, last + 1)
        moments = np.arange(len(about)) * len(row) // len(about)
        shares = np.bincount(moments, minlength=len(row))[moments]
        np.add.at(heat, about, row[moments] / shares[:, None, None])
    return heat
