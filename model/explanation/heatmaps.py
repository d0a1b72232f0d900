"""Where a verdict comes from: what each cell of each picture adds to the log-odds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from features.backbones import Backbone, Pictures
from features.last_map import weighted_maps
from model.run.run import Run
from model.training.heads import Head, clip_logits
from model.training.sequences import columns_of

PLACES = 32  # on the line from the training mean, where a verdict is differentiated
ROWS = 1024  # of copies of a clip at once: bounds the memory
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Slope:
    """The calibrated log-odds of a clip as a linear function of what was embedded.

    Attributes:
        gradient: (L, D) float32, log-odds for a unit of each number.
        added: (L, D) float32, the gradient times how far each number is from its training mean.
    """

    gradient: Floats
    added: Floats

    def of(self, run: Run, stream: str) -> "Slope":
        """The part of one stream."""
        own = columns_of(run.config.widths)[stream]
        return Slope(self.gradient[:, own], self.added[:, own])


def slope_of(run: Run, x: torch.Tensor) -> Slope:
    """A run's verdict on one clip as a linear function: by integrated gradients.

    The gradient is the mean of those along the straight line from the training mean to the clip,
    so that what is added sums to the log-odds, less those of a clip at the training mean. At the
    clip itself a head is mostly sure already, and its gradient tells little.

    Args:
        run: a trained run; all its heads and windows of time count, as in its verdict.
        x: (L, D) float32, the clip.

    References:
        Sundararajan, Taly, Yan, Axiomatic attribution for deep networks, 2017.
    """
    gradient, added = torch.zeros_like(x), torch.zeros_like(x)
    shares = ((torch.arange(PLACES) + 0.5) / PLACES)[:, None, None]
    for head in run.ensemble.heads:
        assert isinstance(head, Head)
        by_x = torch.zeros_like(x)
        for some in shares.split(max(1, ROWS // len(x))):  # type: ignore[no-untyped-call]
            line = torch.lerp(head.mean.expand_as(x), x, some).requires_grad_()  # (n, L, D)
            with torch.enable_grad():
                logits = clip_logits(head, line, run.ensemble.window)
            by_x += torch.autograd.grad(logits.sum(), line)[0].sum(0)
        by_x /= PLACES * len(run.ensemble.heads) * run.config.temperature
        gradient += by_x
        added += by_x * (x - head.mean)
    return Slope(gradient.numpy(), added.numpy())


def heat_of(backbone: Backbone, pictures: Pictures, slope: Slope, every: int = 1) -> Floats:
    """What each cell of each picture adds to the log-odds of being fake, to first order.

    It is measured from the training mean: where the network averages its last map, a cell adds the
    gradient times how far its features are from the mean of the training clips. What the cells of a
    row of the clip sum to is what the row adds. Where it does not average, the same number is
    added to every cell of a row to make that so.

    Args:
        backbone: the network.
        pictures: M of one stream, as they are embedded.
        slope: of that stream.
        every: as of `Backbone.embed`.

    Returns:
        (M, h, w) float32. A row of the clip that is about several pictures is shared out equally
        among them; a network for videos has its own moments.
    """
    maps = weighted_maps(backbone, pictures, slope.gradient, every)  # (L, t, h, w)
    missing = slope.added.sum(1) - maps.sum((1, 2, 3))
    maps += (missing / maps[0].size)[:, None, None, None]
    heat = np.zeros((len(pictures), *maps.shape[2:]), np.float32)
    rows, windows = (of(len(pictures), every) for of in (backbone.rows, backbone.windows))
    for (first, last), window, row in zip(rows, windows, maps, strict=True):
        about = window if len(window) > 1 else np.arange(first, last + 1)
        moments = np.arange(len(about)) * len(row) // len(about)
        shares = np.bincount(moments, minlength=len(row))[moments]
        np.add.at(heat, about, row[moments] / shares[:, None, None])
    return heat
