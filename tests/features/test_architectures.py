"""Every classifier of torchvision gives what it hands to its last layer, and states its length."""

import numpy as np
import pytest
import torch
from torch import nn

from features.architectures import (
    IMAGE,
    NAMES,
    VIDEO,
    WINDOW,
    architecture,
    without_classifier,
)
from features.backbones import Backbone, load_backbone
from features.catalogue import catalogue, entries
from features.embed import main as embed_command
from features.fusion import folded
from features.weights import build
from tests.features.conftest import built_for_smaller, smaller

# One of each kind, and one of each other family; larger ones of a family share all of their code.
QUICK = ("resnet18", "squeezenet1_1", "vit_b_32", "swin_t", "googlenet", "r3d_18")
SLOW = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_v2_s", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "swin_v2_t", "vgg11_bn", "mvit_v1_b", "mvit_v2_s", "r2plus1d_18", "s3d",
    "swin3d_t",
)  # fmt: skip


# Weights are taken from here: to draw hundreds of millions of them takes longer than all the rest.
NOISE = torch.randn(2**21 + 14, generator=torch.Generator().manual_seed(0)) * 0.02


def seeded(kind):
    """torchvision's model with small random weights, the same every time."""
    model = build(kind, initialise=False)
    n_used = 0
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            for part in parameter.data.view(-1).split(len(NOISE) // 2):
                start = n_used % (len(NOISE) // 2)
                part.copy_(NOISE[start : start + len(part)])
                n_used += len(part) + 1
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    return model


def what_the_classifier_gets(model, x):
    """What the last layer of torchvision's own model receives, averaged over space and time."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)]
    outputs = [getattr(m, "out_features", None) or m.out_channels for m in layers]
    last = [m for m, n in zip(layers, outputs, strict=True) if n == (400 if x.ndim == 5 else 1000)]
    heard = []
    hook = last[-1].register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    with torch.inference_mode():
        scores = model(x)
    hook.remove()
    assert scores.shape[-1] in (400, 1000)
    return heard[0].flatten(2).mean(2) if heard[0].ndim > 2 else heard[0]


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def test_a_clip_is_embedded_as_torchvisions_own_model_sees_it_before_it_classifies(name):
    kind = smaller(architecture(name))
    with built_for_smaller():
        model = seeded(kind)
    height, width = kind.size or (max(kind.min_side, 64),) * 2
    rng = np.random.default_rng(1)
    clip = rng.integers(0, 256, (kind.window, height, width, 3), np.uint8)
    x = (clip.astype(np.float32) / 255 - np.float32(kind.mean)) / np.float32(kind.std)
    x = torch.from_numpy(x.transpose(3, 0, 1, 2)[None].copy())  # (1, 3, window, H, W)
    expected = what_the_classifier_gets(model, x if kind.window > 1 else x[:, :, 0]).numpy()
    dimension = without_classifier(model, kind)
    device = torch.device("cpu")
    backbone = Backbone(name, "file", "", dimension, kind, folded(model), device)
    found = backbone.embed(clip)
    assert found.shape == (1, dimension) == expected.shape
    # Folded batch norms round differently; through the deepest networks four digits are left.
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-4 * np.abs(expected).max())
    assert expected.std() > 0
    stated = {row["name"]: int(row["dimension"]) for row in entries()}
    assert stated[name] == dimension


@pytest.mark.slow
def test_the_catalogue_states_the_length_of_every_embedding():
    for row in entries():
        kind = architecture(row["name"])
        regnet = kind.name.startswith("regnet_")  # computes its widths by tensors
        with torch.device("cpu" if regnet else "meta"):  # shapes without memory
            model = build(kind, initialise=False)
        assert without_classifier(model, kind) == int(row["dimension"]), row["name"]


def test_the_catalogue_names_all_that_torchvision_has(run_command):
    assert [row["name"] for row in entries()] == list(NAMES)
    done = run_command(embed_command, "--list-backbones")
    assert done.exit_code == 0
    assert done.output == catalogue() + "\n"
    assert "resnet18" in done.output and "swin3d_b" in done.output
    assert all(float(row["milliseconds"]) > 0 < float(row["parameters"]) for row in entries())


def test_pictures_too_small_for_a_network_are_scaled_to_what_it_was_trained_at():
    for name in ("vit_b_32", "swin_v2_t", "inception_v3"):
        kind = architecture(name)
        assert kind.size_for(64, 64) == kind.trained_at
    backbone = load_backbone("swin_t", "random:0", "cpu")
    rng = np.random.default_rng(0)
    assert backbone.embed(rng.integers(0, 256, (1, 64, 48), np.uint8)).shape == (
        1,
        backbone.dimension,
    )


def test_pictures_that_a_network_takes_are_not_scaled():
    assert architecture("resnet18").size_for(224, 224) is None
    assert architecture("resnet18").size_for(128, 320) is None
    assert architecture("vit_b_16").size_for(224, 224) is None
    assert architecture("vit_b_16").size_for(256, 256) == (224, 224)
    assert architecture("r3d_18").size_for(224, 224) == (112, 112)


def test_networks_are_of_pictures_or_video_network():
    assert len(set(NAMES)) == len(IMAGE) + len(VIDEO) >= 85
    assert {architecture(name).window for name in IMAGE} == {1}
    assert {architecture(name).window for name in VIDEO} == {WINDOW}
    assert architecture("r3d_18").mean[0] == pytest.approx(0.43216)
    assert architecture("efficientnet_v2_l").mean == (0.5, 0.5, 0.5)


# --------------------------------------------------------------------------------------- windows


@pytest.fixture(scope="module")
def clip():
    return np.random.default_rng(0).integers(0, 256, (40, 32, 32), np.uint8)


def test_a_network_of_videos_sees_windows_that_slide_over_a_clip(video_network, clip):
    rows = video_network.rows(40)
    np.testing.assert_array_equal(rows, [[0, 15], [8, 23], [16, 31], [24, 39]])
    found = video_network.embed(clip)
    assert found.shape == (4, 512)
    alone = video_network.embed(clip[8:24])
    np.testing.assert_allclose(found[1], alone[0], atol=3e-4 * np.abs(alone).max())
    assert np.abs(found[1:] - found[0]).max() > 1e-3
    np.testing.assert_array_equal(video_network.rows(40, every=12), [[0, 15], [12, 27], [24, 39]])


def test_a_clip_shorter_than_a_window_is_one_window_whose_last_picture_stands(video_network, clip):
    np.testing.assert_array_equal(video_network.rows(10), [[0, 9]])
    filled = np.concatenate([clip[:10], np.repeat(clip[9:10], 6, axis=0)])
    np.testing.assert_array_equal(video_network.embed(clip[:10]), video_network.embed(filled))


def test_the_order_of_pictures_in_a_window_counts(video_network, clip):
    assert np.abs(video_network.embed(clip[:16]) - video_network.embed(clip[15::-1])).max() > 1e-3


def test_every_so_many_pictures_are_embedded(mobilenet, clip):
    np.testing.assert_array_equal(mobilenet.rows(8, every=3), [[0, 2], [3, 5], [6, 7]])
    whole, some = mobilenet.embed(clip[:8]), mobilenet.embed(clip[:8], every=3)
    np.testing.assert_allclose(some, whole[::3], atol=3e-4 * np.abs(whole).max())
