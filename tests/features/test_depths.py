"""Depths: the ends of stages of every family of networks, by structure."""

import pytest
import torch

from features.architectures import architecture, without_classifier
from features.backbones import load_backbone
from features.depths import WithMaps, chosen_depths, find_depths
from features.fusion import folded, fused
from features.weights import build
from pipeline.common.errors import SettingsError

ENDS = {  # of stages, as torchvision's code names them
    "mobilenet_v2": ["features.1", "features.3", "features.6", "features.13", "features"],
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "densenet121": [
        "features.relu0",
        *(f"features.denseblock{n}" for n in (1, 2, 3)),
        "features",
    ],
    "efficientnet_b0": ["features.1", "features.2", "features.3", "features.5", "features"],
    "googlenet": ["conv1", "conv3", "inception3b", "inception4e", "inception5b"],
    "squeezenet1_1": ["features.1", "features.4", "features.7", "features"],
    "shufflenet_v2_x0_5": ["conv1", "maxpool", "stage2", "stage3", "conv5"],
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{n}" for n in (1, 2, 3)), "trunk_output"],
    "convnext_tiny": ["features.1", "features.3", "features.5", "features"],
    "swin_t": ["features.1", "features.3", "features.5", "permute"],
    "maxvit_t": ["stem", *(f"blocks.{n}" for n in range(4))],
    "vit_b_16": [f"encoder.layers.encoder_layer_{n}" for n in (2, 5, 8, 11)],
    "r3d_18": ["layer1", "layer2", "layer3", "layer4"],
    "mvit_v1_b": ["conv_proj", "blocks.2", "blocks.13", "blocks.15"],
    "swin3d_t": ["pos_drop", "features.2", "features.4", "norm"],
}
QUICK = ("mobilenet_v2", "resnet18", "vit_b_16")


def network(name):
    kind = architecture(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(kind, initialise=True).requires_grad_(False)
    without_classifier(model, kind)
    return model, kind


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ENDS],
)
def test_depths_are_the_ends_of_stages_and_keeping_them_changes_nothing(name):
    model, kind = network(name)
    depths = find_depths(model, kind)
    assert [depth.path for depth in depths] == ENDS[name]
    assert [depth.number for depth in depths] == list(range(1, len(depths) + 1))
    cells = [depth.grid[1] * depth.grid[2] for depth in depths]
    assert cells == sorted(cells, reverse=True)
    frames = (kind.window,) if kind.window > 1 else ()
    x = torch.randn(1, 3, *frames, *kind.trained_at, generator=torch.Generator().manual_seed(0))
    heard = {}
    for depth in depths:
        module = model.get_submodule(depth.path)
        module.register_forward_hook(
            lambda _, __, result, n=depth.number: heard.update(
                {n: result[0] if isinstance(result, tuple) else result}
            )
        )
    with torch.no_grad():
        expected = model(x)
        embeddings, *maps = fused(folded(WithMaps(network(name)[0], depths)), torch.float32)(x)
    torch.testing.assert_close(embeddings, expected, rtol=1e-3, atol=1e-3)
    for depth, found in zip(depths, maps, strict=True):
        of_cells = depth.cells(found)
        assert of_cells.shape[:3] == (1, *depth.grid[1:])
        scale = heard[depth.number].abs().max()
        torch.testing.assert_close(
            of_cells, depth.cells(heard[depth.number]), rtol=0, atol=float(1e-3 * scale)
        )


def test_tokens_lie_where_the_image_has_them():
    """A patch that alone is lit is the cell that differs most at the first depth of ViT."""
    model, kind = network("vit_b_16")
    first = find_depths(model, kind)[0]
    dark = torch.zeros(1, 3, 224, 224)
    lit = dark.clone()
    lit[..., 32:48, 160:176] = 5  # patch of row 2, column 10
    with torch.no_grad():
        _, before = WithMaps(model, [first])(dark)
        _, after = WithMaps(model, [first])(lit)
    moved = (first.cells(after) - first.cells(before)).norm(dim=3)[0]
    assert divmod(int(moved.argmax()), 14) == (2, 10)


def test_depths_are_chosen_by_number():
    depths = find_depths(*network("mobilenet_v2"))
    assert [d.number for d in chosen_depths(depths, None, "it")] == [2, 3, 4, 5]
    assert [d.number for d in chosen_depths(depths, (4, 2, 4), "it")] == [2, 4]
    assert load_backbone("mobilenet_v2", "random:0", "cpu", depths=()).with_maps is None
    with pytest.raises(SettingsError, match="mobilenet_v2 has no depth 6") as caught:
        load_backbone("mobilenet_v2", "random:0", "cpu", depths=(2, 6))
    assert "4 (14x14), 5 (7x7)" in str(caught.value.hint)
