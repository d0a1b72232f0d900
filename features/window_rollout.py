"""Attention rollout through windows and pooled tokens: from the cells of a last map to the first.

Swin, MaxViT and MViT attend within windows, or to tokens that were pooled, and then merge tokens.
Blocks before the last map carry what a cell is about to other cells; rollout follows it back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torchvision.models.maxvit import PartitionAttentionLayer
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.models.video.mvit import MultiscaleAttention
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

STAYS = 0.5  # of what a cell is about comes from itself, by the connection past the attention
Grid = tuple[int, int, int]  # moments, height and width in cells
ATTENTION = (
    PartitionAttentionLayer,
    ShiftedWindowAttention,
    ShiftedWindowAttention3d,
    MultiscaleAttention,
)


@dataclass(frozen=True)
class Look:
    """Where the cells behind one layer look, all heads alike.

    Attributes:
        attention: (n, G, Q, K), the shares that Q cells of each of G windows draw on K cells.
        queries: (G, Q) int64, the cells that look, on the grid `after`; -1 is none, but padding.
        keys: (G, K) int64, the cells they look at, on the grid `pooled`; -1 is padding as well.
        before: the grid in front of the layer.
        pooled: that it looks at.
        after: the grid behind it.
    """

    attention: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor
    before: Grid
    pooled: Grid
    after: Grid


def rolled_back(maps: torch.Tensor, looks: Sequence[Look]) -> torch.Tensor:
    """What lies on the cells of a last map, laid out over the cells of the first.

    Half of what lies on a cell stays there, half goes to the cells that it looks at; and where
    cells were merged, equal parts go to each of them. Nothing is lost.

    Args:
        maps: (n, t, h, w), of any sign.
        looks: of the layers in front of that map, from the first on.

    Returns:
        (n, t', h', w'), with the same sums.

    References:
        Abnar and Zuidema, Quantifying attention flow in transformers, 2020.
    """
    grid: Grid = maps.shape[1:]  # type: ignore[assignment]
    lying = maps.flatten(1)
    for look in reversed(looks):
        lying = _spread(lying, grid, look.after)
        of_window = F.pad(lying, (0, 1))[:, look.queries]  # (n, G, Q), the last for what is -1
        going = torch.einsum("ngq,ngqk->ngk", of_window, look.attention).flatten(1)
        arrived = lying.new_zeros(len(lying), look.pooled[0] * look.pooled[1] * look.pooled[2] + 1)
        arrived.index_add_(1, look.keys.flatten() % arrived.shape[1], going)
        stayed = _spread(lying, look.after, look.before)
        arrived = _spread(arrived[:, :-1], look.pooled, look.before)
        lying, grid = torch.lerp(arrived, stayed, STAYS), look.before
    return lying.reshape(-1, *grid)


def _spread(lying: torch.Tensor, coarse: Grid, fine: Grid) -> torch.Tensor:
    """What lies on coarse cells, in equal parts on the fine cells of each: (n, fine cells)."""
    if coarse == fine:
        return lying
    t, h, w = (
        torch.arange(n, device=lying.device) * whole // n
        for whole, n in zip(coarse, fine, strict=True)
    )
    of = ((t[:, None, None] * coarse[1] + h[:, None]) * coarse[2] + w).flatten()
    return (lying / torch.bincount(of, minlength=lying.shape[1]))[:, of]


class Looking(TorchFunctionMode):
    """Collect where the layers of a network look, as far as they are not differentiated.

    Nothing is computed anew: it is the softmax of each layer that is listened to.

    Attributes:
        looks: of each layer, from the first on.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.looks: list[Look] = []
        self._module = module
        self._hooks: list[RemovableHandle] = []
        self._inside: tuple[nn.Module, tuple[Any, ...]] | None = None

    def __enter__(self) -> "Looking":
        layers = [layer for layer in self._module.modules() if isinstance(layer, ATTENTION)]
        self._hooks = [layer.register_forward_pre_hook(self._begin) for layer in layers]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def _begin(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self._inside = layer, args

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._inside and func in (F.softmax, torch.softmax, torch.Tensor.softmax):
            layer, given = self._inside
            self._inside = None
            if not result.requires_grad:  # else it comes behind the last map
                of = _of_pooled if isinstance(layer, MultiscaleAttention) else _of_windows
                self.looks.append(of(layer, given, result))
        return result


def _of_pooled(layer: MultiscaleAttention, given: tuple[Any, ...], attention: torch.Tensor) -> Look:
    """The look of a layer of MViT, whose (n, heads, Q, K) begin with the class token."""
    before: Grid = tuple(given[1])  # type: ignore[assignment]
    after, pooled = (_strided(before, pool) for pool in (layer.pool_q, layer.pool_k))
    cells = attention[:, :, 1:, 1:].mean(1)[:, None]  # of the class token it is not known where
    queries, keys = (
        torch.arange(n, device=attention.device)[None] for n in (cells.shape[2], cells.shape[3])
    )
    return Look(_shares(cells), queries, keys, before, pooled, after)


def _strided(grid: Grid, pool: Any) -> Grid:
    if pool is None:
        return grid
    return tuple(-(-n // stride) for n, stride in zip(grid, pool.pool.stride, strict=True))  # type: ignore[return-value]


def _of_windows(layer: nn.Module, given: tuple[Any, ...], attention: torch.Tensor) -> Look:
    """The look of a layer with windows, (n * G, heads, K, K) or (n, G, heads, K, K)."""
    x = given[0]
    if isinstance(layer, PartitionAttentionLayer):
        grid: Grid = (1, *x.shape[2:])  # (n, C, h, w)
    else:
        grid = (1, *x.shape[1:-1])[-3:]  # (n, h, w, C) or (n, t, h, w, C)
    cells = _windows(layer, x, grid)
    of_heads = attention.reshape(len(x), len(cells), -1, *attention.shape[-2:])
    looked = of_heads.mean(2) * (cells >= 0)[:, None, :]
    return Look(_shares(looked), cells, cells, grid, grid, grid)


def _windows(layer: nn.Module, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Which cells are in each window, by the layer's own doing: (G, K) int64, -1 is padding."""
    numbers = torch.arange(1.0, 1 + grid[0] * grid[1] * grid[2], device=x.device)
    channels_first = isinstance(layer, PartitionAttentionLayer)
    shape = (1, 1, *x.shape[2:]) if channels_first else (1, *x.shape[1:-1], 1)
    with _UntilItComputes(len(numbers)) as given:
        layer.forward(numbers.reshape(shape).expand(1, *x.shape[1:]).contiguous())
    return given.x[..., 0].flatten(0, -2).to(torch.int64) - 1


class _Computes(Exception):
    pass


class _UntilItComputes(TorchFunctionMode):
    """Stop a layer once it has put the numbers of n cells in their places, and keep them."""

    x: torch.Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self._n = n

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # A layer may compute something about places in general first.
        if func in (F.linear, F.layer_norm) and args[0].max() == self._n:
            self.x = args[0]
            raise _Computes
        return func(*args, **(kwargs or {}))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        return kind is _Computes


def _shares(looked: torch.Tensor) -> torch.Tensor:
    """What is looked at, as shares of one; nothing of what only padding looks at."""
    return looked / looked.sum(-1, keepdim=True).clamp(min=torch.finfo(looked.dtype).tiny)
