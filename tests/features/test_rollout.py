"""Attention rollout: by hand on a tiny transformer, and of one that learned where to look."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from features.last_map import weighted_maps
from features.rollout import reads_class_token, rolled_out
from tests.features.conftest import load_small_backbone

SIDE, CELL = 32, 8
HEADS, WIDTH = 2, 16


def tiny(layers=2, seed=0) -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VisionTransformer(SIDE, CELL, layers, HEADS, WIDTH, 32, num_classes=1)
        for layer in network.modules():
            if isinstance(layer, nn.MultiheadAttention):
                nn.init.normal_(layer.in_proj_weight, std=0.5)
    return network.eval()


def features_of(network) -> VisionTransformer:
    network.heads = nn.Identity()
    return network.requires_grad_(False)


def by_hand(network, x, weights):
    """One picture: blocks written out, whole matrices rolled out from the first block on."""
    tokens = network.conv_proj(x).flatten(2).transpose(1, 2)[0]
    t = torch.cat([network.class_token[0], tokens]) + network.encoder.pos_embedding[0]
    looked = []
    for block in network.encoder.layers:
        y, own = block.ln_1(t), block.self_attention
        q, k, v = (y @ w.T + b for w, b in _thirds(own))
        of_heads = []
        for n in range(HEADS):
            part = slice(n * WIDTH // HEADS, (n + 1) * WIDTH // HEADS)
            scores = q[:, part] @ k[:, part].T / (WIDTH / HEADS) ** 0.5
            looked.append(torch.softmax(scores, 1).requires_grad_())
            of_heads.append(looked[-1] @ v[:, part])
        t = t + F.linear(torch.cat(of_heads, 1), own.out_proj.weight, own.out_proj.bias)
        t = t + block.mlp(block.ln_2(t))
    embedding = network.encoder.ln(t)[0]
    gradients = torch.autograd.grad(embedding @ weights, looked)
    parts = [(a * g).detach() for a, g in zip(looked, gradients, strict=True)]
    last = torch.stack([part[0] for part in parts[-HEADS:]])
    found = torch.zeros(len(t) - 1)
    for sign in (1, -1):
        rolled = torch.eye(len(t))
        for start in range(0, len(parts), HEADS):
            mean = sum((sign * p).clamp(min=0) for p in parts[start : start + HEADS]) / HEADS
            rolled = rolled + mean / last.abs().sum() @ rolled
        cells = rolled[0, 1:]
        found += sign * (sign * last).clamp(min=0).sum() * cells / cells.sum()
    return embedding.detach(), found.reshape(SIDE // CELL, SIDE // CELL), last.sum()


def _thirds(layer):
    return zip(layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True)


@pytest.mark.parametrize("layers", [1, 3])
def test_it_is_what_one_computes_by_hand(layers):
    network, random = features_of(tiny(layers)), torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, SIDE, SIDE, generator=random)
    weights = torch.randn(3, WIDTH, generator=random)
    found = rolled_out(network, x, weights)
    assert found.shape == (3, 1, SIDE // CELL, SIDE // CELL)
    for n in range(3):
        embedding, expected, total = by_hand(network, x[n : n + 1], weights[n])
        torch.testing.assert_close(network(x[n : n + 1])[0], embedding, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[n, 0], expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found[n].sum(), total, rtol=1e-3, atol=1e-5)


def test_twice_the_weights_are_twice_the_map_and_turned_ones_turn_it():
    network, random = features_of(tiny()), torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, SIDE, SIDE, generator=random)
    weights = torch.randn(2, WIDTH, generator=random)
    once = rolled_out(network, x, weights)
    torch.testing.assert_close(rolled_out(network, x, 2 * weights), 2 * once)
    torch.testing.assert_close(rolled_out(network, x, -weights), -once)
    assert not rolled_out(network, x, 0 * weights).any()


def test_a_patch_that_a_transformer_learned_to_find_is_hottest():
    """On pictures that it did not learn from, far more often than chance: one in sixteen.

    Not always: a cell that speaks for the verdict is looked at by heads that speak against it, too.
    """
    learned, new = (planted(np.random.default_rng(seed), n) for seed, n in ((0, 128), (1, 64)))
    hits = [hit_rate(seed, learned, new) for seed in range(3)]
    assert np.mean(hits) > 5 / 16
    assert min(hits) > 3 / 16


def hit_rate(seed, learned, new):
    """How often the hottest cell is that of the patch, of a network that was trained on others."""
    pictures, cells = learned
    labels = torch.from_numpy((cells >= 0).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VisionTransformer(SIDE, CELL, 2, HEADS, WIDTH, 32, num_classes=1)
        steps = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(60):
            steps.zero_grad()
            F.binary_cross_entropy_with_logits(network(pictures)[:, 0], labels).backward()
            steps.step()
    weights = network.heads.head.weight.detach()[0]
    pictures, cells = new
    is_fake = cells >= 0
    shown = pictures[torch.from_numpy(is_fake)]
    found = rolled_out(features_of(network.eval()), shown, weights.expand(len(shown), -1))
    return (found.flatten(1).argmax(1).numpy() == cells[is_fake]).mean()


def planted(rng, n):
    """(n, 3, SIDE, SIDE) noise with a bright cell in every other, and which one, or -1."""
    x, across = rng.normal(size=(n, 3, SIDE, SIDE)), SIDE // CELL
    cells = np.where(np.arange(n) % 2, rng.integers(0, across**2, n), -1)
    for picture, cell in zip(x, cells, strict=True):
        if cell >= 0:
            top, left = (CELL * k for k in divmod(cell, across))
            picture[:, top : top + CELL, left : left + CELL] += 2
    return torch.from_numpy(x.astype(np.float32)), cells


@pytest.mark.parametrize(("name", "rolled"), [("vit_b_32", True), ("swin_t", False)])
def test_only_who_reads_a_class_token_is_rolled_out(name, rolled):
    backbone = load_small_backbone(name)
    assert reads_class_token(backbone.module) == rolled
    if rolled:  # and nothing stays behind in the network
        shown = np.random.default_rng(0).integers(0, 255, (1, 64, 64), np.uint8)
        before = backbone.embed(shown)
        found = weighted_maps(backbone, shown, np.ones((1, backbone.dimension), np.float32))
        assert found.shape == (1, 1, 4, 4)
        assert np.array_equal(backbone.embed(shown), before)
