"""The last map of a network, found by structure: each family has its own."""

import numpy as np
import pytest

from features.last_map import weighted_maps
from tests.features.conftest import load_small_backbone


def pictures(n, side=64):
    coarse = np.random.default_rng(0).integers(0, 200, (n, side // 8, side // 8, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("resnet18", (1, 2, 2)),
        ("efficientnet_b0", (1, 2, 2)),
        ("swin_t", (1, 2, 2)),
        ("vit_b_32", (1, 4, 4)),
        *(
            pytest.param(name, grid, marks=pytest.mark.slow)
            for name, grid in {
                "convnext_tiny": (1, 2, 2),
                "maxvit_t": (1, 2, 2),
                "s3d": (2, 2, 2),
                "mvit_v2_s": (8, 2, 2),
                "swin3d_t": (8, 2, 2),
            }.items()
        ),
    ],
)
def test_every_family_gives_maps_of_its_own_grid(name, grid):
    backbone = load_small_backbone(name)
    shown = pictures(max(2, backbone.kind.window))
    rows = len(backbone.rows(len(shown)))
    by = np.random.default_rng(1).normal(size=(rows, backbone.dimension)).astype(np.float32)
    found = weighted_maps(backbone, shown, by)
    assert found.shape == (rows, *grid)
    assert np.isfinite(found).all()
    assert found.reshape(rows, -1).std(1).min() > 0, "cells differ"


def test_twice_the_weights_are_twice_the_map(resnet18):
    shown, by = pictures(2), np.random.default_rng(1).normal(size=(2, 512)).astype(np.float32)
    found, double = (weighted_maps(resnet18, shown, n * by) for n in np.float32([1, 2]))
    np.testing.assert_allclose(double, 2 * found, rtol=1e-3, atol=1e-5 * abs(found).max())


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_where_a_network_averages_its_map_the_cells_sum_to_the_embedding(name):
    backbone, shown = load_small_backbone(name), pictures(3, 96)
    by = np.random.default_rng(1).normal(size=(2, backbone.dimension)).astype(np.float32)
    summed = weighted_maps(backbone, shown, by, every=2).sum((1, 2, 3))
    expected = (by * backbone.embed(shown, every=2)).sum(1)
    np.testing.assert_allclose(summed, expected, rtol=1e-3, atol=1e-4 * abs(expected).max())


def test_a_network_of_videos_has_its_own_moments(video_network):
    shown = pictures(16, 32)
    by = np.random.default_rng(1).normal(size=(1, 512)).astype(np.float32)
    found = weighted_maps(video_network, shown, by)
    assert found.shape == (1, 2, 2, 2)
    summed, expected = found.sum((1, 2, 3)), (by * video_network.embed(shown)).sum(1)
    np.testing.assert_allclose(summed, expected, rtol=1e-3, atol=1e-4 * abs(expected).max())
