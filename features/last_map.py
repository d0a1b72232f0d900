"""Attribution of an embedding to the cells of a network's last map: gradient times activation.

The last map is the last result of a network that lies on a grid and of which more than one cell
reaches the embedding, such as the input of a final average pool. Vision Transformers use
`features.rollout` instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from features.backbones import Backbone, Images
from features.rollout import IMAGES_PER_BATCH, reads_class_token, rolled_out

N_CANDIDATES = 48  # last results to search; the longest block has 30
Grid = tuple[int, int, int]  # moments, height and width in cells


def weighted_maps(
    backbone: Backbone, images: Images, weights: npt.NDArray[np.float32], every: int = 1
) -> npt.NDArray[np.float32]:
    """Attribute the weighted sum of each embedding to cells, in float32, to first order.

    HiResCAM (Draelos and Carin, 2020): the gradient with respect to the map times the map, summed
    over channels. It is Grad-CAM (Selvaraju et al., 2017) where a network averages its last map.

    Args:
        backbone: the network.
        images: as for `Backbone.embed`.
        weights: weight of each number of each embedding, (T', D).
        every: see `Backbone.rows`.

    Returns:
        (T', t, h, w) float32, cells of the last map, or patches of a Vision Transformer; t is 1 for
        an image network.
    """
    backbone = replace(backbone, precision="float32")
    windows = backbone.windows(len(images), every)
    uses_rollout = reads_class_token(backbone.module)
    if uses_rollout:
        windows_per_batch = IMAGES_PER_BATCH
    else:
        windows_per_batch = max(1, backbone.batch // backbone.kind.window)
        call, grid = _find_last_map(backbone, images, windows)
    maps = []
    for start in range(0, len(windows), windows_per_batch):
        batch = slice(start, start + windows_per_batch)
        with torch.no_grad():
            x = backbone.prepare(images, windows[batch])
        by = torch.from_numpy(weights[batch]).to(x)
        if uses_rollout:
            part = rolled_out(backbone.module, x, by)
        else:
            part = _gradient_times_activation(backbone.module, call, grid, x, by)
        maps.append(part.cpu().numpy())
    return np.concatenate(maps)


def _gradient_times_activation(
    module: nn.Module, call: int, grid: Grid, x: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    with torch.enable_grad(), _DifferentiateFrom(call) as tap:
        embeddings = module(x)
    (gradient,) = torch.autograd.grad(embeddings, tap.leaf, weights)
    return _cells(gradient * tap.leaf.detach(), grid)


def _find_last_map(
    backbone: Backbone, images: Images, windows: npt.NDArray[np.int64]
) -> tuple[int, Grid]:
    """Return the call that computes the last map, and its grid."""
    with torch.no_grad():
        x = backbone.prepare(images, windows[:1])
        # A batch of two, as any axis may have the length 1.
        x = torch.cat([x, x.flip(-1)])
        with _RecordGrids(x, backbone.kind.window > 1) as record:
            backbone.module(x)
    candidates = sorted(record.grids)[-N_CANDIDATES:]
    with torch.enable_grad(), _DifferentiateFrom(candidates[0], keep=candidates) as tap:
        embeddings = backbone.module(x)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(embeddings.shape, generator=generator).to(embeddings)
    candidates = [call for call in candidates if tap.results[call].requires_grad]
    gradients = torch.autograd.grad(
        embeddings, [tap.results[call] for call in candidates], weights, allow_unused=True
    )
    for call, gradient in zip(reversed(candidates), reversed(gradients), strict=True):
        grid = record.grids[call]
        if gradient is not None and (_cells(gradient.abs(), grid)[0] > 0).sum() > 1:
            return call, grid
    raise RuntimeError(f"no map of cells was found in {backbone.name}")


def _cells(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Sum (N, C, h, w), (N, C, t, h, w) or tokens (N, L, C) over channels: (N, t, h, w)."""
    if x.ndim > 3:
        return x.sum(1).reshape(-1, *grid)
    return x.sum(2)[:, -int(np.prod(grid)) :].reshape(-1, *grid)  # a class token comes first


class _CountCalls(TorchFunctionMode):
    """Number the calls that return a tensor; a network makes the same ones each time."""

    def __init__(self) -> None:
        super().__init__()
        self._n_calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self._n_calls += 1
            return self.on_result(self._n_calls - 1, result)
        return result

    def on_result(self, call: int, result: torch.Tensor) -> torch.Tensor:
        """Return the tensor that replaces a result."""
        raise NotImplementedError


class _RecordGrids(_CountCalls):
    """Record the calls whose results lie on a grid, when a network runs on x."""

    def __init__(self, x: torch.Tensor, videos: bool) -> None:
        super().__init__()
        self.grids: dict[int, Grid] = {}
        self._n, self._videos = len(x), videos
        self._aspect = x.shape[-2] / x.shape[-1]
        self._latest: Grid = (1, 1, 1)

    def on_result(self, call: int, result: torch.Tensor) -> torch.Tensor:
        if result.ndim and len(result) == self._n:
            if result.ndim == 4 + self._videos:
                self._latest = (1, 1, *result.shape[2:])[-3:]  # type: ignore[assignment]
                self._record(call, self._latest)
            elif result.ndim == 3:
                self._record(call, self._grid_of_tokens(result.shape[1]))
        return result

    def _record(self, call: int, grid: Grid | None) -> None:
        if grid is None or grid[1] * grid[2] == 1:
            return
        # Axes in another proportion than the image are no height and width.
        if abs(grid[1] - grid[2] * self._aspect) <= max(1, self._aspect):
            self.grids[call] = grid

    def _grid_of_tokens(self, n: int) -> Grid | None:
        """Return the grid of n tokens; the first may be a class token."""
        moments, height, width = self._latest
        for n_cells in (n, n - 1):
            if n_cells == moments * height * width:
                return self._latest
            side = round((n_cells / moments) ** 0.5)  # MViT pools squares
            if self._videos and n_cells == moments * side**2:
                return moments, side, side
        return None


class _DifferentiateFrom(_CountCalls):
    """Make the result of one call a leaf, and keep the results of some calls."""

    leaf: torch.Tensor

    def __init__(self, call: int, keep: Sequence[int] = ()) -> None:
        super().__init__()
        self.results: dict[int, torch.Tensor] = {}  # by call
        self._call, self._keep = call, frozenset(keep)

    def on_result(self, call: int, result: torch.Tensor) -> torch.Tensor:
        if call == self._call:
            self.leaf = result.detach().requires_grad_()
            result = self.leaf.clone()  # the next layer may write into it
        if call in self._keep:
            self.results[call] = result
        return result
