"""Half the precision is used only where it changes nothing that counts."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from features.backbones import MIN_SIMILARITY, checked, load_backbone
from features.embedding import checked_on, embed
from features.settings import Options
from pipeline.cache import Cache
from pipeline.common.errors import SettingsError
from tests.features.conftest import load_small_backbone


@pytest.fixture(scope="module")
def maps():
    """Smooth pictures as flow maps are, no two alike."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 200, (6, 4, 4)), np.ones((1, 16, 16)))
    return (coarse + rng.integers(0, 56, (6, 64, 64))).astype(np.uint8)


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_half_precision_is_kept_where_embeddings_stay_the_same(maps, resnet18, caplog):
    half, exact = dataclasses.replace(resnet18, precision="bfloat16"), resnet18
    assert checked(half, maps).precision == "bfloat16"
    assert cosine(half.embed(maps), exact.embed(maps)).min() >= MIN_SIMILARITY
    assert not np.array_equal(half.embed(maps), exact.embed(maps))
    assert caplog.text == ""


def test_a_network_that_is_too_coarse_computes_in_float32_and_that_is_said(maps, resnet18, caplog):
    half = dataclasses.replace(resnet18, precision="bfloat16")

    class Coarse(torch.nn.Module):
        """Rounds to few bits what is computed in bfloat16, as a bad kernel might."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            found = self.inner(x)
            return torch.round(found * 2) / 2 if torch.is_autocast_enabled("cpu") else found

    with caplog.at_level(logging.WARNING):
        found = checked(dataclasses.replace(half, module=Coarse(half.module)), maps)
    assert found.precision == "float32"
    assert "resnet18 computes in float32, which is slower" in caplog.text


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t"])  # nothing in them can be fused
def test_weights_that_are_cast_once_give_what_autocast_gives(name, maps):
    half = dataclasses.replace(load_small_backbone(name), precision="bfloat16")
    shown = np.ascontiguousarray(maps[:2])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = half.module(half.prepare(shown, half.windows(len(shown)))).float()
    np.testing.assert_array_equal(half.embed(shown), expected)


def test_what_is_not_a_number_is_too_coarse(maps, mobilenet):
    half = dataclasses.replace(mobilenet, precision="bfloat16")

    class Broken(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :8] * (torch.nan if torch.is_autocast_enabled("cpu") else 1)

    assert checked(dataclasses.replace(half, module=Broken()), maps).precision == "float32"


def test_auto_is_what_this_machine_computes_in():
    auto = load_backbone("mobilenet_v2", "random:0", "cpu", "auto", depths=())
    assert load_backbone("mobilenet_v2", "random:0", "cpu", "auto").precision == "float32"
    has_it = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert auto.precision == ("bfloat16" if has_it else "float32")
    with pytest.raises(SettingsError, match="no precision 'int8'"):
        load_backbone("mobilenet_v2", "random:0", "cpu", "int8")


def test_the_precision_is_part_of_a_cache(clips, resnet18, tmp_path):
    half = dataclasses.replace(resnet18, precision="bfloat16")
    options = Options(streams=("flow",))
    half = checked_on(half, clips, options)
    assert half.precision == "bfloat16"
    embed(clips, tmp_path / "out", half, options)
    assert Cache(tmp_path / "out").settings["precision"] == "bfloat16"
    exact = dataclasses.replace(half, precision="float32")
    with pytest.raises(SettingsError, match="precision was 'bfloat16', now 'float32'"):
        embed(clips, tmp_path / "out", exact, options)


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(maps, mobilenet, caplog):
    backbone = mobilenet
    expected = backbone.embed(maps)

    class Small(torch.nn.Module):
        """Has memory for two pictures at once."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            if len(x) > 2:
                raise torch.OutOfMemoryError
            return self.inner(x)

    small = dataclasses.replace(backbone, module=Small(backbone.module))
    with caplog.at_level(logging.WARNING):
        found = small.embed(maps)
    np.testing.assert_allclose(found, expected, atol=3e-4 * np.abs(expected).max())
    assert caplog.text.count("out of memory") == small.halvings > 0
    small.embed(maps)  # and it is remembered
    assert caplog.text.count("out of memory") == small.halvings

    class Nothing(torch.nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        dataclasses.replace(backbone, module=Nothing()).embed(maps)
