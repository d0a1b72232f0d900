"""Rollout through windows: by hand on a tiny Swin, and of ones that learned where to look."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import MaxVit, SwinTransformer
from torchvision.models.video import MViT, SwinTransformer3d
from torchvision.models.video.mvit import MSBlockConfig

from features.window_rollout import Look, Looking, rolled_back

WIDTH, HEADS, WINDOW, CELL = 8, 2, 4, 4


def tiny(depths=(2,), seed=0) -> SwinTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SwinTransformer(
            [CELL, CELL], WIDTH, list(depths), [HEADS] * len(depths), [WINDOW, WINDOW]
        )
        for name, parameter in network.named_parameters():
            if "qkv" in name or "bias_table" in name:
                nn.init.normal_(parameter, std=0.7)
    network.head = nn.Identity()
    return network.eval().requires_grad_(False)


def attention_by_hand(layer, x):
    """(h * w, h * w): the mean over heads of what each cell of one map draws on each other one."""
    h, w, width = x.shape
    q, k, _ = F.linear(x.reshape(h * w, width), layer.qkv.weight, layer.qkv.bias).chunk(3, 1)
    # A window does not go on at the other side of the map, although the layer turns the map round.
    shifts = [
        shift if n > size else 0
        for n, size, shift in zip((h, w), layer.window_size, layer.shift_size, strict=True)
    ]
    ys, xs = torch.arange(h * w) // w, torch.arange(h * w) % w
    window = [(n - shift) // WINDOW for n, shift in zip((ys, xs), shifts, strict=True)]
    together = torch.ones(h * w, h * w, dtype=torch.bool)
    for one in window:
        together &= one[:, None] == one[None]
    offsets = [(n[:, None] - n[None]).clamp(1 - WINDOW, WINDOW - 1) for n in (ys, xs)]
    where = (offsets[0] + WINDOW - 1) * (2 * WINDOW - 1) + offsets[1] + WINDOW - 1
    of_heads = []
    for head in range(HEADS):
        part = slice(head * width // HEADS, (head + 1) * width // HEADS)
        scores = q[:, part] @ k[:, part].T / (width / HEADS) ** 0.5
        scores = scores + layer.relative_position_bias_table[where, head]
        of_heads.append(torch.softmax(scores.masked_fill(~together, -torch.inf), 1))
    return sum(of_heads) / HEADS


@pytest.mark.parametrize("shape", [(8, 8), (8, 12)])
def test_what_lies_on_cells_goes_back_as_one_computes_by_hand(shape):
    h, w = shape
    network, random = tiny(), torch.Generator().manual_seed(1)
    picture = torch.randn(1, 3, CELL * h, CELL * w, generator=random)
    last = torch.randn(1, 1, h, w, generator=random)
    with torch.no_grad(), Looking(network) as looking:
        network(picture)
    x = network.features[0](picture)
    lying = last.flatten()
    steps = []
    for block in network.features[1]:
        steps.append(attention_by_hand(block.attn, block.norm1(x)[0]))
        x = block(x)
    for step in reversed(steps):
        lying = 0.5 * lying + 0.5 * lying @ step
    found = rolled_back(last, looking.looks)
    torch.testing.assert_close(found, lying.reshape(1, 1, h, w), rtol=1e-4, atol=1e-5)


def test_nothing_goes_to_where_windows_are_padded_and_nothing_is_lost():
    network, random = tiny((2, 2)), torch.Generator().manual_seed(1)
    picture = torch.randn(2, 3, CELL * 7, CELL * 6, generator=random)  # neither fills windows
    with torch.no_grad(), Looking(network) as looking:
        network(picture)
    last = torch.randn(2, 1, 4, 3, generator=random)
    found = rolled_back(last, looking.looks)
    assert found.shape == (2, 1, 7, 6)
    torch.testing.assert_close(found.sum((1, 2, 3)), last.sum((1, 2, 3)), rtol=1e-4, atol=1e-5)
    assert (rolled_back(last.abs(), looking.looks) > 0).all()


def small_swin3d():
    return SwinTransformer3d([2, 4, 4], WIDTH, [2, 2], [2, 2], [2, 4, 4])  # in 4 x 28 x 24


def small_maxvit():
    return MaxVit((32, 32), 16, 4, [16, 32], [1, 1], 8, 0.0)


def small_mvit():
    def block(n_in, n_out, stride, stride_of_keys):
        return MSBlockConfig(2, n_in, n_out, [3] * 3, [3] * 3, stride, stride_of_keys)

    blocks = [block(16, 32, [1, 1, 1], [1, 4, 4]), block(32, 32, [1, 2, 2], [1, 2, 2])]
    return MViT((32, 32), 4, blocks, True, False, True, True)


@pytest.mark.parametrize(
    ("make", "shape", "last", "first"),
    [
        (small_swin3d, (4, 28, 24), (2, 4, 3), (2, 7, 6)),
        (small_maxvit, (32, 32), (1, 4, 4), (1, 8, 8)),
        (small_mvit, (4, 32, 32), (2, 4, 4), (2, 8, 8)),
    ],
)
def test_every_family_gives_back_all_that_lay_on_its_last_map(make, shape, last, first):
    random = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make().eval().requires_grad_(False)
    with torch.no_grad(), Looking(network) as looking:
        network(torch.randn(2, 3, *shape, generator=random))
    for look in looking.looks:
        shares = look.attention[:, look.queries >= 0].sum(-1)
        torch.testing.assert_close(shares, torch.ones_like(shares))
    lying = torch.randn(2, *last, generator=random)
    found = rolled_back(lying, looking.looks)
    assert found.shape == (2, *first)
    torch.testing.assert_close(found.sum((1, 2, 3)), lying.sum((1, 2, 3)), rtol=1e-4, atol=1e-5)
    assert (rolled_back(lying.abs(), looking.looks) > 0).all()


def test_what_lies_on_merged_cells_is_shared_out_among_them():
    stays = Look(
        torch.eye(6)[None, None],
        torch.arange(6)[None],
        torch.arange(6)[None],
        (1, 2, 3),
        (1, 2, 3),
        (1, 2, 3),
    )
    merged = torch.tensor([[[[8.0, 4.0]]]])  # the first of two rows and two columns, the other one
    found = rolled_back(merged, [stays])
    assert found.tolist() == [[[[2, 2, 2], [2, 2, 2]]]]


@pytest.mark.slow
def test_a_patch_that_a_swin_learned_to_find_is_hottest_although_its_last_map_forgot_where():
    """On pictures that it did not learn from; a cell of its last map is one in 64."""
    (learned, cells), (new, where) = (
        planted(np.random.default_rng(seed), n) for seed, n in ((0, 512), (1, 64))
    )
    labels = torch.from_numpy((cells >= 0).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = SwinTransformer(
            [2, 2], 24, [2, 2], [2, 4], [4, 4], stochastic_depth_prob=0.0, num_classes=1
        )
        steps = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(200):
            some = torch.randperm(len(learned))[:32]
            steps.zero_grad()
            logits = network(learned[some])[:, 0]
            F.binary_cross_entropy_with_logits(logits, labels[some]).backward()
            steps.step()
    weights = network.head.weight.detach()
    network.head = nn.Identity()
    network.eval().requires_grad_(False)
    shown = new[torch.from_numpy(where >= 0)]
    with torch.no_grad():
        with Looking(network) as looking:
            network(shown)
        last = network.norm(network.features(shown)) @ weights[0]  # which the network averages
    back = rolled_back(last[:, None], looking.looks)
    assert back.shape == (len(shown), 1, 16, 16)
    back = F.avg_pool2d(back, 2)
    hits = [
        np.mean(maps.flatten(1).argmax(1).numpy() == where[where >= 0]) for maps in (last, back)
    ]
    assert hits[1] > 0.5 > hits[0] + 0.25


def planted(rng, n, side=32, cell=4):
    """(n, 3, side, side) noise with a bright cell in every other, and which one, or -1."""
    x, across = rng.normal(size=(n, 3, side, side)), side // cell
    cells = np.where(np.arange(n) % 2, rng.integers(0, across**2, n), -1)
    for picture, at in zip(x, cells, strict=True):
        if at >= 0:
            top, left = (cell * k for k in divmod(at, across))
            picture[:, top : top + cell, left : left + cell] += 2.5
    return torch.from_numpy(x.astype(np.float32)), cells
