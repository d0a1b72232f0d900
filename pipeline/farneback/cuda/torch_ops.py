"""Farneback's flow in plain PyTorch, for many frames at once, on any device.

It avoids matrix products and convolutions, whose order of summation could depend on the number of
frames: the cut into batches does not show.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pipeline.farneback.parameters import (
    Expansion,
    Parameters,
    border_weights,
    expansion,
    level_sizes,
    smoothing_taps,
)

REACH = 5  # of the expansion, pixels on either side
WINDOW = 15
REGULARISATION = 1e-3


@dataclass(frozen=True)
class Level:
    """Size and weights of a level of the pyramid."""

    height: int
    width: int
    first_row: torch.Tensor  # (h,) int64, first frame row of each sum
    rows: torch.Tensor  # (h, taps)
    first_column: torch.Tensor  # (w,) int64
    columns: torch.Tensor  # (w, taps)
    border: torch.Tensor  # (h, w) weights


class Tables:
    """Tables for a frame size, on a device."""

    def __init__(
        self, height: int, width: int, parameters: Parameters, device: torch.device
    ) -> None:
        self.iterations = parameters.iterations
        self.expansion: Expansion = expansion(parameters.poly_n, parameters.poly_sigma)
        self.levels = []
        for number, (h, w) in enumerate(level_sizes(height, width, parameters)):
            taps = (*smoothing_taps(height, h, number), *smoothing_taps(width, w, number))
            border = torch.outer(*map(torch.from_numpy, (border_weights(h), border_weights(w))))
            first_row, rows, first_column, columns = (torch.from_numpy(t).to(device) for t in taps)
            self.levels.append(
                Level(h, w, first_row, rows, first_column, columns, border.to(device))
            )


def expand(frames: torch.Tensor, tables: Tables) -> list[torch.Tensor]:
    """Expand frames, (N, H, W) uint8, at each level to r3, r2, r5, r4, r6, (N, 5, h, w) float32."""
    images = frames.float()
    return [_expand(_shrink(images, level), tables.expansion) for level in tables.levels]


def _shrink(images: torch.Tensor, level: Level) -> torch.Tensor:
    """Blur and resize (N, H, W) to (N, h, w) by sums of rows and of columns."""
    tall = images.new_zeros(())
    for t in range(level.rows.shape[1]):
        tall = tall + images[:, level.first_row + t] * level.rows[:, t, None]
    small = images.new_zeros(())
    for t in range(level.columns.shape[1]):
        small = small + tall[:, :, level.first_column + t] * level.columns[:, t]
    return small


def _expand(images: torch.Tensor, e: Expansion) -> torch.Tensor:
    mean, slope, curve = _moments(images, e, dim=1)
    m, x, xx = _moments(mean, e, dim=2)
    y, xy, _ = _moments(slope, e, dim=2)
    yy, _, _ = _moments(curve, e, dim=2)
    coefficients = (
        y * e.ig11,
        x * e.ig11,
        m * e.ig03 + yy * e.ig33,
        m * e.ig03 + xx * e.ig33,
        xy * e.ig55,
    )
    return torch.stack(coefficients, dim=1)


def _moments(
    images: torch.Tensor, e: Expansion, dim: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return sums along an axis weighted by g, x g and x² g; borders repeat."""
    n = images.shape[dim]
    padding = (0, 0, REACH, REACH) if dim == 1 else (REACH, REACH, 0, 0)
    padded = F.pad(images[:, None], padding, mode="replicate")[:, 0]
    mean = images * float(e.g[0])
    slope, curve = torch.zeros_like(mean), torch.zeros_like(mean)
    for k in range(1, REACH + 1):
        before, after = (padded.narrow(dim, REACH + shift, n) for shift in (-k, k))
        mean = mean + (before + after) * float(e.g[k])
        slope = slope + (after - before) * float(e.xg[k])
        curve = curve + (before + after) * float(e.xxg[k])
    return mean, slope, curve


def flow(one: Sequence[torch.Tensor], two: Sequence[torch.Tensor], tables: Tables) -> torch.Tensor:
    """Return the flow between P pairs of expanded frames, (P, 2, H, W) float32 in pixels."""
    field: torch.Tensor | None = None
    for level, first, second in reversed(list(zip(tables.levels, one, two, strict=True))):
        size = (level.height, level.width)
        if field is None:
            field = first.new_zeros(len(first), 2, *size)
        else:
            field = 2 * F.interpolate(field, size=size, mode="bilinear", align_corners=False)
        for _ in range(tables.iterations):
            field = _solve(_window_mean(_matrices(first, second, field, level)))
    assert field is not None
    return field


def _matrices(
    first: torch.Tensor, second: torch.Tensor, field: torch.Tensor, level: Level
) -> torch.Tensor:
    """Return G11, G12, G22, h1, h2 of every pixel, (P, 5, h, w); see `farneback.cpu.iteration`."""
    P, (h, w) = len(first), (level.height, level.width)
    dx, dy = field[:, 0], field[:, 1]
    x = torch.arange(w, device=field.device, dtype=torch.float32) + dx
    y = torch.arange(h, device=field.device, dtype=torch.float32)[:, None] + dy
    left, top = x.floor(), y.floor()
    within = (left >= 0) & (left < w - 1) & (top >= 0) & (top < h - 1)  # (P, h, w)
    wx, wy = (x - left)[:, None], (y - top)[:, None]
    corner = (top.clamp(0, h - 2).nan_to_num() * w + left.clamp(0, w - 2).nan_to_num()).long()
    flat, corner = second.reshape(P, 5, h * w), corner.reshape(P, 1, h * w)

    def at(offset: int) -> torch.Tensor:
        index = (corner + offset).expand(P, 5, h * w)
        return flat.gather(2, index).reshape(P, 5, h, w)

    both = wx * wy
    there = (1 - wx - (wy - both)) * at(0) + (wx - both) * at(1)
    there = there + (wy - both) * at(w) + both * at(w + 1)
    outside = torch.cat([torch.zeros_like(first[:, :2]), first[:, 2:]], dim=1)
    there = torch.where(within[:, None], there, outside)
    a11 = (first[:, 2] + there[:, 2]) * 0.5
    a22 = (first[:, 3] + there[:, 3]) * 0.5
    a12 = (first[:, 4] + there[:, 4]) * 0.25
    b1 = (first[:, 0] - there[:, 0]) * 0.5 + a11 * dy + a12 * dx
    b2 = (first[:, 1] - there[:, 1]) * 0.5 + a12 * dy + a22 * dx
    a11, a22, a12, b1, b2 = (value * level.border for value in (a11, a22, a12, b1, b2))
    matrices = (
        a11 * a11 + a12 * a12,
        (a11 + a22) * a12,
        a22 * a22 + a12 * a12,
        a11 * b1 + a12 * b2,
        a12 * b1 + a22 * b2,
    )
    return torch.stack(matrices, dim=1)


def _window_mean(matrices: torch.Tensor) -> torch.Tensor:
    """Return means over 15 x 15 pixels; borders repeat."""
    half = WINDOW // 2
    padded = F.pad(matrices, (half, half, half, half), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, (WINDOW, 1), 1), (1, WINDOW), 1)


def _solve(means: torch.Tensor) -> torch.Tensor:
    g11, g12, g22, h1, h2 = means.unbind(1)
    inverse = 1 / (g11 * g22 - g12 * g12 + REGULARISATION)
    return torch.stack([(g11 * h2 - g12 * h1) * inverse, (g22 * h1 - g12 * h2) * inverse], dim=1)


def maps(field: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return magnitude maps, (P, H, W) uint8, and ranges, (P, 2) float32, of (P, 2, H, W) flow."""
    magnitude = (field * field).sum(1).sqrt()
    ranges = torch.stack([magnitude.amin((1, 2)), magnitude.amax((1, 2))], dim=1)
    low, high = ranges[:, 0, None, None], ranges[:, 1, None, None]
    contrast = high - low
    scale = torch.where(contrast > 0, 255 / contrast, torch.zeros_like(contrast))
    return ((magnitude - low) * scale).round().clamp(0, 255).to(torch.uint8), ranges
