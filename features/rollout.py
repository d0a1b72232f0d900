"""Attention rollout of a Vision Transformer: which tokens its class token draws on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

AT_ONCE = 2  # pictures: all blocks are differentiated, a ViT-B/16 keeps 100 MB for each


def reads_class_token(module: nn.Module) -> bool:
    """Whether a network attends to all tokens alike, as torchvision's ViT does.

    Windows and pooled tokens, as of Swin, MaxViT and MViT, have attention of their own kinds.
    """
    return any(isinstance(layer, nn.MultiheadAttention) for layer in module.modules())


def rolled_out(module: nn.Module, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What each token adds to the weighted sum of an embedding, to first order.

    Gradient times attention at the last block is what its attention adds to the sum. What is above
    zero there, summed over what the class token looks at, is laid out over the cells by a rollout
    of gradient times attention above zero through all blocks; what is below zero by one of what is
    below zero; and the map is the difference. So how it lies comes from the rollout, while what it
    sums to is what the last attention adds. The rollout is of weights scaled to change the sum by
    one in all, so that twice the weights are twice the map.

    Args:
        module: a network of which `reads_class_token` is true.
        x: (n, 3, H, W) float32, as it takes them.
        weights: (n, D), of each embedding's numbers.

    Returns:
        (n, 1, h, w) float32.

    References:
        Chefer, Gur, Wolf, Generic attention-model explainability, 2021, equations 5 and 6.
    """
    with torch.enable_grad(), _attention(module) as looked:
        embeddings = module(x)
    gradients = torch.autograd.grad(embeddings, looked, weights)
    with torch.no_grad():
        parts = [a * g for a, g in zip(looked, gradients, strict=True)]  # (n, heads, L, L)
        maps = _over_cells(parts) - _over_cells([-part for part in parts])
    side = round(maps.shape[1] ** 0.5)
    return maps.reshape(-1, 1, side, side)


def _over_cells(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """What is above zero of gradient times attention, laid out over the cells: (n, h * w)."""
    of_class = parts[-1][:, :, 0]  # (n, heads, L)
    total = of_class.clamp(min=0).sum((1, 2))[:, None]
    tiny = torch.finfo(total.dtype).tiny
    scale = of_class.abs().sum((1, 2)).clamp(min=tiny)[:, None, None]
    row = torch.zeros_like(of_class[:, :1])  # (n, 1, L), the row of the class token alone
    row[..., 0] = 1
    for part in reversed(parts):
        row = row + row @ (part.clamp(min=0).mean(1) / scale)
    cells = row[:, 0, 1:]
    return total * cells / cells.sum(1, keepdim=True).clamp(min=tiny)


@contextmanager
def _attention(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what each layer's heads look at, (n, heads, L, L), from the first layer on."""
    looked: list[torch.Tensor] = []

    def attend(
        layer: nn.MultiheadAttention, args: tuple[torch.Tensor, ...], _: object
    ) -> tuple[torch.Tensor, None]:
        found, output = _attend(layer, args[0], first=not looked)
        looked.append(found)
        return output, None

    layers = [layer for layer in module.modules() if isinstance(layer, nn.MultiheadAttention)]
    hooks = [layer.register_forward_hook(attend) for layer in layers]
    try:
        yield looked
    finally:
        for hook in hooks:
            hook.remove()


def _attend(
    layer: nn.MultiheadAttention, x: torch.Tensor, *, first: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's own computation, with its attention at hand: torch gives only a copy of it."""
    joined = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)  # (n, L, 3 C)
    n, length = x.shape[:2]
    query, key, value = (
        part.reshape(n, length, layer.num_heads, layer.head_dim).transpose(1, 2)
        for part in joined.chunk(3, 2)
    )
    looked = torch.softmax(query @ key.transpose(2, 3) * layer.head_dim**-0.5, -1)
    if first:
        looked.requires_grad_()  # nothing is differentiated below
    return looked, layer.out_proj((looked @ value).transpose(1, 2).flatten(2))
