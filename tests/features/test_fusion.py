"""Layers that are computed at once give what they give one after the other."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from features import fusion
from features.fusion import folded, fused
from tests.features.conftest import load_small_backbone

DTYPES = (torch.float32, torch.bfloat16)
able = pytest.mark.skipif(
    not all(map(fusion._kernels_work, DTYPES)),
    reason="there are no such kernels here",
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
    [("resnet18", 17), ("mobilenet_v2", 35), ("r3d_18", 17)],
)
def test_in_float32_it_is_the_same_but_for_rounding(name, n_fused, pictures):
    backbone = load_small_backbone(name)
    plain = one_by_one(backbone).embed(pictures)
    np.testing.assert_allclose(backbone.embed(pictures), plain, rtol=1e-3, atol=1e-4)
    assert kinds(fused(backbone.module, torch.float32)).count("_FusedConvolution") == n_fused


@able
@pytest.mark.parametrize("name", ["resnet18", "r3d_18"])
def test_in_bfloat16_it_is_at_least_as_near_to_float32(name, pictures):
    half = dataclasses.replace(load_small_backbone(name), precision="bfloat16")
    exact = one_by_one(dataclasses.replace(half, precision="float32")).embed(pictures)

    def error(found):
        return np.linalg.norm(found - exact) / np.linalg.norm(exact)

    at_once, plain = half.embed(pictures), one_by_one(half).embed(pictures)
    assert error(at_once) <= 1.1 * error(plain)


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
    assert "_FusedConvolution" not in kinds(result)
    assert torch.equal(result(x), model(x))


def test_where_there_are_no_such_kernels_nothing_changes(monkeypatch, resnet18, pictures):
    monkeypatch.setattr(fusion, "_kernels_work", lambda dtype: False)
    backbone = dataclasses.replace(resnet18)
    assert fused(backbone.module, torch.float32) is backbone.module
    assert np.array_equal(backbone.embed(pictures), one_by_one(backbone).embed(pictures))


def test_kernels_that_compute_something_else_are_not_used(monkeypatch):
    assert isinstance(fusion._kernels_work.__wrapped__(torch.float32), bool)
    monkeypatch.setattr(fusion._FusedConvolution, "forward", lambda self, x, addend=None: x)
    assert not fusion._kernels_work.__wrapped__(torch.float32)


def test_the_network_itself_keeps_its_gradients(resnet18):
    backbone = resnet18
    backbone.embed(np.zeros((1, 64, 64), np.uint8))
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    backbone.module(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
