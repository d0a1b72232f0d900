"""The last map of cells inside a frozen network, and what each cell adds to a weighted embedding.

That map is found by structure, not by name: it is the last result of a computation that lies on a
grid and of which more than one cell still reaches the embedding. Behind an average pool that is
what is averaged. Transformers carry things from cell to cell, which is followed back: those that
attend to all cells by `features.rollout`, others by `features.window_rollout`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from features.backbones import Backbone, Pictures
from features.rollout import AT_ONCE, reads_class_token, rolled_out
from features.window_rollout import Grid, Looking, rolled_back

LOOKED_AT = 48  # results from the end, among which the last map is; the longest block has 30


def weighted_maps(
    backbone: Backbone,
    pictures: Pictures,
    weights: npt.NDArray[np.float32],
    every: int = 1,
) -> npt.NDArray[np.float32]:
    """What each cell of the last map adds to the weighted sum of an embedding, to first order.

    The gradient with respect to the map times the map, summed over channels: HiResCAM, which is
    Grad-CAM wherever a network averages its last map. Nothing is differentiated below that map, so
    that memory stays that of a batch. For transformers with windows or pooled tokens (Swin, MaxViT,
    MViT) it is `rolled_back` to the first tokens; those of which every token attends to all others
    get `rolled_out` instead.

    Args:
        backbone: the network; computed in float32.
        pictures: N of them, as of `Backbone.embed`.
        weights: (T', D), of each embedding's numbers.
        every: as of `Backbone.embed`.

    Returns:
        (T', t, h, w) float32; t is 1 for a network of single pictures. The cells are those of the
        last map, or of a transformer's first.

    References:
        Selvaraju et al., Grad-CAM, 2017; Draelos and Carin, Use HiResCAM instead of Grad-CAM, 2020.
    """
    backbone = replace(backbone, precision="float32")
    windows = backbone.windows(len(pictures), every)
    of_batch: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    if reads_class_token(backbone.module):
        at_once = AT_ONCE
        of_batch = functools.partial(rolled_out, backbone.module)
    else:
        at_once = max(1, backbone.batch // backbone.kind.window)
        call, grid = _last_map(backbone, pictures, windows)
        of_batch = functools.partial(_at_last_map, backbone.module, call, grid)
    parts = []
    for start in range(0, len(windows), at_once):
        some = slice(start, start + at_once)
        with torch.no_grad():
            x = backbone.prepared(pictures, windows[some])
        parts.append(of_batch(x, torch.from_numpy(weights[some]).to(x)).cpu().numpy())
    return np.concatenate(parts)


def _at_last_map(
    module: nn.Module, call: int, grid: Grid, x: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Gradient times activation of the last map, rolled back: (n, t, h, w)."""
    with torch.enable_grad(), Looking(module) as looking, _Leaf(call) as tap:
        embeddings = module(x)
    (gradient,) = torch.autograd.grad(embeddings, tap.leaf, weights)
    with torch.no_grad():
        return rolled_back(_cells(gradient * tap.leaf, grid), looking.looks)


def _last_map(
    backbone: Backbone, pictures: Pictures, windows: npt.NDArray[np.int64]
) -> tuple[int, Grid]:
    """The number of the call that gives the last map, and its grid."""
    with torch.no_grad():
        x = backbone.prepared(pictures, windows[:1])
        # Two of them, so that what has the pictures first can be told from what has not.
        x = torch.cat([x, x.flip(-1)])
        with _Watch(x, backbone.kind.window > 1) as watch:
            backbone.module(x)
    found = sorted(watch.grids)[-LOOKED_AT:]
    with torch.enable_grad(), _Leaf(found[0], keep=found) as tap:
        embeddings = backbone.module(x)
    random = torch.Generator().manual_seed(0)
    by = torch.randn(embeddings.shape, generator=random).to(embeddings)
    kept = [call for call in found if tap.kept[call].requires_grad]
    gradients = torch.autograd.grad(
        embeddings, [tap.kept[call] for call in kept], by, allow_unused=True
    )
    for call, gradient in zip(reversed(kept), reversed(gradients), strict=True):
        grid = watch.grids[call]
        if gradient is not None and (_cells(gradient.abs(), grid)[0] > 0).sum() > 1:
            return call, grid
    raise RuntimeError(f"no map of cells was found in {backbone.name}")


def _cells(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Sum over channels: (N, t, h, w), of (N, C, h, w), (N, C, t, h, w) or tokens (N, L, C)."""
    if x.ndim > 3:
        return x.sum(1).reshape(-1, *grid)
    return x.sum(2)[:, -int(np.prod(grid)) :].reshape(-1, *grid)  # a class token comes first


class _Calls(TorchFunctionMode):
    """Count the computations that give a tensor; the same network makes the same ones."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self._calls += 1
            return self.seen(self._calls - 1, result)
        return result

    def seen(self, call: int, result: torch.Tensor) -> torch.Tensor:
        """What the network goes on with in place of this result."""
        raise NotImplementedError


class _Watch(_Calls):
    """Note the results that lie on a grid."""

    def __init__(self, x: torch.Tensor, videos: bool) -> None:
        super().__init__()
        self.grids: dict[int, Grid] = {}
        self._n, self._videos = len(x), videos
        self._aspect = x.shape[-2] / x.shape[-1]
        self._last: Grid = (1, 1, 1)

    def seen(self, call: int, result: torch.Tensor) -> torch.Tensor:
        if result.ndim and len(result) == self._n:
            if result.ndim == 4 + self._videos:
                self._last = (1, 1, *result.shape[2:])[-3:]  # type: ignore[assignment]
                self._note(call, self._last)
            elif result.ndim == 3:
                self._note(call, self._of_tokens(result.shape[1]))
        return result

    def _note(self, call: int, grid: Grid | None) -> None:
        if grid is None or grid[1] * grid[2] == 1:
            return
        if abs(grid[1] - grid[2] * self._aspect) <= max(1, self._aspect):  # else no picture
            self.grids[call] = grid

    def _of_tokens(self, n: int) -> Grid | None:
        """The grid of n tokens, of which the first may be that of the class."""
        moments, height, width = self._last
        for cells in (n, n - 1):
            if cells == moments * height * width:
                return self._last
            side = round((cells / moments) ** 0.5)  # a video transformer pools a square
            if self._videos and cells == moments * side**2:
                return moments, side, side
        return None


class _Leaf(_Calls):
    """Begin to differentiate at one result."""

    leaf: torch.Tensor

    def __init__(self, call: int, keep: Sequence[int] = ()) -> None:
        super().__init__()
        self.kept: dict[int, torch.Tensor] = {}
        self._call, self._keep = call, frozenset(keep)

    def seen(self, call: int, result: torch.Tensor) -> torch.Tensor:
        if call == self._call:
            self.leaf = result.detach().requires_grad_()
            result = self.leaf.clone()  # what comes next may write into it
        if call in self._keep:
            self.kept[call] = result
        return result
