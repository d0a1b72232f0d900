"""Depths of a network: the last results of its stages, found by structure.

A network computes maps, vectors on a grid of cells, and coarsens the grid between its stages. A
depth is the last result on each grid among the outermost modules that pass three grids or more.
Where all results lie on one grid, as in ViT, depths are quarters of the longest row of blocks.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from features.architectures import Architecture
from pipeline.common.errors import SettingsError

MIN_GRIDS = 3  # below it a network has one stage, and its blocks count
N_BLOCKS = 4  # depths of such a network
N_DEFAULT = 4  # last depths
Grid = tuple[int, int, int]  # moments, height and width in cells


@dataclass(frozen=True)
class Depth:
    """The result of one module, as vectors on a grid of cells."""

    number: int  # from the input, 1 is the finest
    path: str  # of the module
    grid: Grid  # for input of the size that the network was trained at
    channels: int | None  # axis of the channels; None: tokens in rows

    def __str__(self) -> str:
        return f"{self.number} ({self.grid[1]}x{self.grid[2]})"

    def cells(self, result: torch.Tensor) -> torch.Tensor:
        """Return a batch of results as (n, h, w, C); moments of a video network join channels."""
        if self.channels is None:  # a class token comes first
            tokens = result[:, result.shape[1] - math.prod(self.grid) :]
            result = tokens.reshape(len(tokens), *self.grid, -1)  # (n, t, h, w, C)
        else:
            result = result.movedim(self.channels, -1)
        return result if result.ndim == 4 else result.movedim(1, 3).flatten(3)


def find_depths(model: nn.Module, kind: Architecture) -> list[Depth]:
    """Return all depths of a network, from the input on; an empty list if it has no maps."""
    found = _results_on_grids(model, kind)
    for level in sorted({path.count(".") for path in found}):
        last: dict[tuple[int, ...], str] = {}  # on each grid the outermost result, then the last
        for path in sorted(found, key=lambda path: -path.count(".")):  # stable
            if path.count(".") <= level:
                last[found[path][1][1:]] = path
        if len(last) >= MIN_GRIDS:
            paths = sorted(last.values(), key=list(found).index)
            break
    else:
        rows: dict[str, list[str]] = defaultdict(list)
        for path in found:
            rows[path.rpartition(".")[0]].append(path)
        blocks = max(rows.values(), key=len, default=[])
        ends = range(1, N_BLOCKS + 1) if blocks else ()
        paths = list(dict.fromkeys(blocks[-(-len(blocks) * n // N_BLOCKS) - 1] for n in ends))
    return [
        Depth(n, path, grid=found[path][1], channels=found[path][0])
        for n, path in enumerate(paths, 1)
    ]


def chosen_depths(
    depths: Sequence[Depth], numbers: Sequence[int] | None, name: str
) -> tuple[Depth, ...]:
    """Return depths by number, by default the last `N_DEFAULT`."""
    if numbers is None:
        return tuple(depths[-N_DEFAULT:])
    if unknown := [number for number in numbers if not 1 <= number <= len(depths)]:
        listed = ", ".join(map(str, depths))
        raise SettingsError(
            f"{name} has no depth {unknown[0]}",
            f"its depths, by their cells: {listed}" if depths else "it has no maps: --depths none",
        )
    return tuple(depths[number - 1] for number in sorted(set(numbers)))


class WithMaps(nn.Module):
    """A network that also returns its results at some depths; it shares the network's weights."""

    def __init__(self, model: nn.Module, depths: Sequence[Depth]) -> None:
        super().__init__()
        tensors = (*model.parameters(), *model.buffers())
        self.model = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
        self._kept = []
        for depth in depths:
            parent, _, name = depth.path.rpartition(".")
            kept = _Kept(self.model.get_submodule(depth.path))
            setattr(self.model.get_submodule(parent), name, kept)
            self._kept.append(kept)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return embeddings, (n, D), and the result at each depth as its module returns it."""
        embeddings = self.model(x)
        return embeddings, *(kept.result for kept in self._kept)


class _Kept(nn.Module):
    """A module that remembers its result, also while the network is traced."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.result: Any = None

    def forward(self, *args: Any) -> Any:
        result = self.module(*args)
        self.result = result[0] if isinstance(result, tuple) else result  # MViT adds its grid
        return result


@torch.no_grad()
def _results_on_grids(model: nn.Module, kind: Architecture) -> dict[str, tuple[int | None, Grid]]:
    """Return path → axis of channels, and grid, of modules whose results lie on a grid."""
    # A batch of two, as any axis may have the length 1.
    frames = (kind.window,) if kind.window > 1 else ()
    x = torch.zeros(2, 3, *frames, *kind.trained_at)
    found: dict[str, tuple[int | None, Grid]] = {}

    def note(path: str, result: Any) -> None:
        found.pop(path, None)  # the last call counts
        if on_grid := _grid_of(result, videos=bool(frames)):
            found[path] = on_grid

    hooks = [
        module.register_forward_hook(lambda _, __, result, path=path: note(path, result))
        for path, module in model.named_modules()
        if path
    ]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _grid_of(result: Any, *, videos: bool) -> tuple[int | None, Grid] | None:
    """Return the axis of channels and the grid of a result for two square inputs."""
    sides: tuple[int, ...] | None = None
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], tuple):
        result, sides = result
    if not isinstance(result, torch.Tensor) or result.ndim < 3 or len(result) != 2:
        return None
    channels: int | None = None
    if result.ndim == 4 + videos:
        channels = 1 if result.shape[-1] == result.shape[-2] else -1
        sides = result.shape[2:] if channels == 1 else result.shape[1:-1]
    elif result.ndim == 3 and not videos:
        roots = [math.isqrt(n) for n in (result.shape[1], result.shape[1] - 1)]
        sides = next(((r, r) for r in roots if result.shape[1] - r * r in (0, 1)), None)
    elif result.ndim != 3:
        return None
    if sides is None:
        return None
    moments, height, width = (1, *sides)[-3:]
    return (channels, (moments, height, width)) if height == width > 1 else None
