"""Attention rollout of a Vision Transformer: which cells its class token draws on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

IMAGES_PER_BATCH = 2  # ViT-B/16 keeps 100 MB for each, as all blocks are differentiated


def reads_class_token(module: nn.Module) -> bool:
    """Return whether every token attends to all others, as in ViT, not Swin or MViT."""
    return any(isinstance(layer, nn.MultiheadAttention) for layer in module.modules())


def rolled_out(module: nn.Module, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Attribute a weighted sum of an embedding to the cells of an image, to first order.

    Attention times its gradient at the last block is what that block adds to the sum. Its positive
    part in the row of the class token is distributed over the cells by a rollout of the positive
    parts of all blocks (Chefer, Gur, Wolf, Generic attention-model explainability, 2021, equations
    5 and 6), its negative part by one of the negative parts; the map is the difference.

    Args:
        module: a network for which `reads_class_token` is true.
        x: prepared images, (n, 3, H, W) float32.
        weights: weight of each number of an embedding, (n, D).

    Returns:
        (n, 1, h, w) float32, proportional to the weights.
    """
    with torch.enable_grad(), _recorded_attention(module) as attention:
        embeddings = module(x)
    gradients = torch.autograd.grad(embeddings, attention, weights)
    with torch.no_grad():
        parts = [a * g for a, g in zip(attention, gradients, strict=True)]  # (n, heads, L, L)
        maps = _roll_out_positive(parts) - _roll_out_positive([-part for part in parts])
    side = round(maps.shape[1] ** 0.5)
    return maps.reshape(-1, 1, side, side)


def _roll_out_positive(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Distribute the last block's positive part over cells: (n, h * w)."""
    class_token = parts[-1][:, :, 0]  # (n, heads, L)
    total = class_token.clamp(min=0).sum((1, 2))[:, None]
    tiny = torch.finfo(total.dtype).tiny
    scale = class_token.abs().sum((1, 2)).clamp(min=tiny)[:, None, None]
    row = torch.zeros_like(class_token[:, :1])  # (n, 1, L)
    row[..., 0] = 1
    for part in reversed(parts):
        row = row + row @ (part.clamp(min=0).mean(1) / scale)
    cells = row[:, 0, 1:]
    return total * cells / cells.sum(1, keepdim=True).clamp(min=tiny)


@contextmanager
def _recorded_attention(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Record the attention of each layer, (n, heads, L, L)."""
    recorded: list[torch.Tensor] = []

    def attend(
        layer: nn.MultiheadAttention, args: tuple[torch.Tensor, ...], _: object
    ) -> tuple[torch.Tensor, None]:
        attention, output = _attend(layer, args[0], first=not recorded)
        recorded.append(attention)
        return output, None

    layers = [layer for layer in module.modules() if isinstance(layer, nn.MultiheadAttention)]
    hooks = [layer.register_forward_hook(attend) for layer in layers]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _attend(
    layer: nn.MultiheadAttention, x: torch.Tensor, *, first: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the layer with its attention in the graph, of which PyTorch returns a copy."""
    joined = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)  # (n, L, 3 C)
    n, length = x.shape[:2]
    query, key, value = (
        part.reshape(n, length, layer.num_heads, layer.head_dim).transpose(1, 2)
        for part in joined.chunk(3, 2)
    )
    attention = torch.softmax(query @ key.transpose(2, 3) * layer.head_dim**-0.5, -1)
    if first:
        attention.requires_grad_()  # nothing below is differentiated
    return attention, layer.out_proj((attention @ value).transpose(1, 2).flatten(2))
