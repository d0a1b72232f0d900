"""torchvision's classifiers of pictures and videos, without the classifier.

Features are what goes into the last layer, which is found by the number of its outputs, not by its
name: every family chooses its own.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision import models

from pipeline.common.errors import SettingsError

IMAGE: tuple[str, ...] = tuple(models.list_models(module=models))
VIDEO: tuple[str, ...] = tuple(models.list_models(module=models.video))
NAMES = IMAGE + VIDEO
WINDOW = 16  # pictures that a network for videos sees at once: what they were all trained on, about
# Families whose position embeddings or windows fit one size of picture alone.
ONE_SIZE = ("vit_", "maxvit_", "mvit_")
INITIALISERS = ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_")


@dataclass(frozen=True)
class Architecture:
    """What a network takes.

    Attributes:
        name: torchvision's.
        preset: the weights that torchvision offers, and how their pictures were prepared.
        window: pictures that it sees at once; 1 for networks of single pictures.
        size: height and width in pixels that pictures have to have, or None for any.
        smallest: pixels, the shortest side that it takes.
        trained_at: height and width that its weights were trained with.
    """

    name: str
    preset: models.WeightsEnum
    window: int
    size: tuple[int, int] | None
    smallest: int
    trained_at: tuple[int, int]

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the pictures that the weights were trained on, per channel, in 0..1."""
        return tuple(self.preset.transforms().mean)

    @property
    def std(self) -> tuple[float, ...]:
        """Likewise."""
        return tuple(self.preset.transforms().std)

    def size_for(self, height: int, width: int) -> tuple[int, int] | None:
        """What pictures of this size are scaled to; None: nothing."""
        wanted = self.size
        if wanted is None and min(height, width) < self.smallest:
            wanted = self.trained_at
        return None if wanted == (height, width) else wanted


def architecture(name: str) -> Architecture:
    """What is known of a network.

    Raises:
        SettingsError: torchvision has no such network.
    """
    if name not in NAMES:
        raise SettingsError(
            f"no backbone {name!r}", "python -m features.embed --list-backbones lists them"
        )
    preset = next(iter(models.get_model_weights(name)))
    side = preset.transforms().crop_size
    trained_at = (side[0], side[-1])
    fixed = name in VIDEO or name.startswith(ONE_SIZE)
    return Architecture(
        name=name,
        preset=preset,
        window=WINDOW if name in VIDEO else 1,
        size=trained_at if fixed else None,
        smallest=max(preset.meta["min_size"]),
        trained_at=trained_at,
    )


def build(kind: Architecture, *, initialise: bool) -> nn.Module:
    """Torchvision's own model, with its classifier, in evaluation mode.

    Args:
        kind: which.
        initialise: draw random weights; else they are whatever memory held, and must be filled.
    """
    options: dict[str, Any] = {}
    if kind.name.startswith("vit_"):
        options["image_size"] = kind.trained_at[0]
    if kind.name in ("googlenet", "inception_v3"):
        # Their weights are of pictures normalised in another way, and they have two more
        # classifiers, which only training uses.
        options |= {"transform_input": True, "init_weights": initialise}
    with contextlib.nullcontext() if initialise else _no_initialisation():
        return models.get_model(kind.name, weights=None, **options).eval()


@contextlib.contextmanager
def _no_initialisation() -> Iterator[None]:
    """Drawing weights that are replaced at once takes most of the time to build a network."""
    kept = {name: getattr(nn.init, name) for name in INITIALISERS}
    for name in kept:
        setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(nn.init, name, function)


def without_classifier(model: nn.Module, kind: Architecture) -> int:
    """Replace the last layer of a model by nothing.

    Args:
        model: as `build` gives it.
        kind: which it is.

    Returns:
        D, the length of its features.
    """
    n_classes = len(kind.preset.meta["categories"])
    named = dict(model.named_modules())
    linear = [
        n for n, m in named.items() if isinstance(m, nn.Linear) and m.out_features == n_classes
    ]
    convolutions = [  # SqueezeNet and S3D classify by a convolution over what is then averaged
        n
        for n, m in named.items()
        if isinstance(m, nn.Conv2d | nn.Conv3d) and m.out_channels == n_classes
    ]
    path = (linear or convolutions)[-1]
    last = named[path]
    parent, _, child = path.rpartition(".")
    setattr(named[parent] if parent else model, child, nn.Identity())
    return int(last.in_features if isinstance(last, nn.Linear) else last.in_channels)  # type: ignore[arg-type]


def random_input(kind: Architecture, n: int) -> torch.Tensor:
    """Noise in the form that a network takes: (n, 3, H, W), or (n, 3, window, H, W)."""
    side = kind.size or (max(128, kind.smallest),) * 2
    time = () if kind.window == 1 else (kind.window,)
    return torch.randn(n, 3, *time, *side)
