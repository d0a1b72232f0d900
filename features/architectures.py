"""torchvision's classifiers of images and videos: what they take, and how they lose the classifier.

The classifier is found by its number of outputs, not by its name, which differs between families.
"""

from dataclasses import dataclass

from torch import nn
from torchvision import models

from pipeline.common.errors import SettingsError

IMAGE: tuple[str, ...] = tuple(models.list_models(module=models))
VIDEO: tuple[str, ...] = tuple(models.list_models(module=models.video))
NAMES = IMAGE + VIDEO
WINDOW = 16  # images that a video network sees at once: about what all of them were trained on
ONE_SIZE_FAMILIES = ("vit_", "maxvit_", "mvit_")  # position embeddings or windows fit one size


@dataclass(frozen=True)
class Architecture:
    """A network of torchvision and the images that it takes.

    Attributes:
        name: in torchvision.
        preset: torchvision's weights, with the preprocessing of their training images.
        window: images that it sees at once; 1 for image networks.
        size: required height and width in pixels; None for any.
        min_side: smallest side that it takes, in pixels.
        trained_at: height and width that its weights were trained with.
    """

    name: str
    preset: models.WeightsEnum
    window: int
    size: tuple[int, int] | None
    min_side: int
    trained_at: tuple[int, int]

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the training images per channel, in 0..1."""
        return tuple(self.preset.transforms().mean)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the training images per channel, in 0..1."""
        return tuple(self.preset.transforms().std)

    def size_for(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the size that images of this size are resized to; None to leave them."""
        size = self.size
        if size is None and min(height, width) < self.min_side:
            size = self.trained_at
        return None if size == (height, width) else size


def architecture(name: str) -> Architecture:
    """Look up a network.

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
    return Architecture(
        name=name,
        preset=preset,
        window=WINDOW if name in VIDEO else 1,
        size=trained_at if name in VIDEO or name.startswith(ONE_SIZE_FAMILIES) else None,
        min_side=max(preset.meta["min_size"]),
        trained_at=trained_at,
    )


def without_classifier(model: nn.Module, kind: Architecture) -> int:
    """Replace the last layer of a model by the identity.

    Args:
        model: torchvision's model, changed in place.
        kind: its architecture.

    Returns:
        D, the length of its features.
    """
    n_classes = len(kind.preset.meta["categories"])
    layers = dict(model.named_modules())
    linear = [
        path
        for path, layer in layers.items()
        if isinstance(layer, nn.Linear) and layer.out_features == n_classes
    ]
    convolutions = [  # SqueezeNet and S3D classify every cell and average the scores
        path
        for path, layer in layers.items()
        if isinstance(layer, nn.Conv2d | nn.Conv3d) and layer.out_channels == n_classes
    ]
    path = (linear or convolutions)[-1]
    last = layers[path]
    parent, _, child = path.rpartition(".")
    setattr(layers[parent], child, nn.Identity())
    return int(last.in_features if isinstance(last, nn.Linear) else last.in_channels)  # type: ignore[arg-type]
