"""torchvision's classifiers of images and videos: their inputs, and removal of the classifier."""

from dataclasses import dataclass

from torch import nn
from torchvision import models

from pipeline.common.errors import SettingsError

IMAGE: tuple[str, ...] = tuple(models.list_models(module=models))
VIDEO: tuple[str, ...] = tuple(models.list_models(module=models.video))
NAMES = IMAGE + VIDEO
WINDOW = 16  # images at once; video networks were trained on about as many
ONE_SIZE_FAMILIES = ("vit_", "maxvit_", "mvit_")  # position embeddings or windows fit one size


@dataclass(frozen=True)
class Architecture:
    """A network of torchvision and the images that it takes."""

    name: str
    preset: models.WeightsEnum
    window: int  # images seen at once; 1 for image networks
    size: tuple[int, int] | None  # required height and width; None for any
    min_side: int  # pixels
    trained_at: tuple[int, int]  # height and width

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, in 0..1."""
        return tuple(self.preset.transforms().mean)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, in 0..1."""
        return tuple(self.preset.transforms().std)

    def size_for(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the size to resize images of this size to; None to leave them."""
        size = self.size
        if size is None and min(height, width) < self.min_side:
            size = self.trained_at
        return None if size == (height, width) else size


def architecture(name: str) -> Architecture:
    """Look up a network of torchvision."""
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
    """Replace the classifier, the last layer with 1,000 or 400 outputs; return its input length."""
    n_classes = len(kind.preset.meta["categories"])
    *_, (path, last) = (
        (path, layer)
        for path, layer in model.named_modules()
        if n_classes in (getattr(layer, "out_features", 0), getattr(layer, "out_channels", 0))
    )
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    # SqueezeNet and S3D classify by a convolution.
    return int(last.in_features if isinstance(last, nn.Linear) else last.in_channels)  # type: ignore[arg-type]
