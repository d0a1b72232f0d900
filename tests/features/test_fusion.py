"""Layers that are computed at once give what they give one after the other."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from features import fusion
from features.backbones import load_backbone
from features.fusion import folded, fused

DTYPES = (torch.float32, torch.bfloat16)
able = pytest.mark.skipif(
    not all(map(fusion._can_fuse, DTYPES)), reason="this PyTorch or processor has no such kernels"
)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (16, 64, 64), np.uint8)


def one_by_one(backbone):
    """The same backbone without kernels that do several things."""

    class Plain(nn.Module):  # no graph, so that there is nothing to fuse
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    return dataclasses.replace(backbone, module=Plain(backbone.module))


def kinds(module):
    return [type(layer).__name__ for layer in module.modules()]


@able
@pytest.mark.parametrize(
    ("name", "n_fused"),
    [("resnet18", 17), ("mobilenet_v2", 35), ("r3d_18", 17), ("squeezenet1_1", 25)],
)
def test_in_float32_it_is_the_same_but_for_rounding(name, n_fused, pictures):
    backbone = load_backbone(name, "random:0", "cpu")
    plain = one_by_one(backbone).embed(pictures)
    np.testing.assert_allclose(backbone.embed(pictures), plain, rtol=1e-3, atol=1e-4)
    assert kinds(fused(backbone.module, torch.float32)).count("_Convolution") == n_fused


@able
@pytest.mark.parametrize("name", ["resnet18", "r3d_18", "s3d"])
def test_in_bfloat16_it_is_at_least_as_near_to_float32(name, pictures):
    half = load_backbone(name, "random:0", "cpu", "bfloat16")
    exact = one_by_one(dataclasses.replace(half, precision="float32")).embed(pictures)

    def error(found):
        return np.linalg.norm(found - exact) / np.linalg.norm(exact)

    at_once, plain = half.embed(pictures), one_by_one(half).embed(pictures)
    assert error(at_once) <= 1.1 * error(plain)


@able
def test_a_pool_of_integers_takes_the_same_largest_numbers():
    x = torch.randn(2, 8, 9, 11, generator=torch.Generator().manual_seed(0)).relu().bfloat16()
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    assert torch.equal(fusion._PoolAsIntegers(pool)(x), pool(x))
    assert "_PoolAsIntegers" in kinds(
        load_backbone("resnet18", "random:0", "cpu", "bfloat16")._fast
    )


@able
def test_a_convolution_whose_result_is_used_twice_is_left_alone():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU()

        def forward(self, x):
            y = self.conv(x)
            return self.relu(y) + y

    model = folded(Twice().eval().requires_grad_(False))
    x = torch.randn(1, 3, 5, 5)
    result = fused(model, torch.float32)
    assert "_Convolution" not in kinds(result)
    assert torch.equal(result(x), model(x))


def test_where_there_are_no_such_kernels_nothing_changes(monkeypatch, pictures):
    monkeypatch.setattr(fusion, "_can_fuse", lambda dtype: False)
    backbone = load_backbone("resnet18", "random:0", "cpu")
    assert fused(backbone.module, torch.float32) is backbone.module
    assert np.array_equal(backbone.embed(pictures), one_by_one(backbone).embed(pictures))


def test_kernels_that_compute_something_else_are_not_used(monkeypatch):
    assert isinstance(fusion._can_fuse.__wrapped__(torch.float32), bool)
    monkeypatch.setattr(fusion._Convolution, "forward", lambda self, x, other=None: x)
    assert not fusion._can_fuse.__wrapped__(torch.float32)


def test_the_network_itself_keeps_its_gradients():
    backbone = load_backbone("resnet18", "random:0", "cpu")
    backbone.embed(np.zeros((1, 64, 64), np.uint8))
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    backbone.module(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
