"""Frozen CNNs: ImageNet classifiers from torchvision without their last layer."""

import hashlib
import http.client
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import nn

from pipeline.errors import SettingsError

# name → the attribute that holds the classifier; features are what goes into it
CLASSIFIERS = {
    "resnet18": "fc",
    "resnet34": "fc",
    "resnet50": "fc",
    "efficientnet_b0": "classifier",
    "mobilenet_v2": "classifier",
}
SILENCE = 30.0  # seconds without a byte after which a download is given up
BATCH = 32  # pictures at once; more gains nothing on a CPU


class WeightsUnavailable(SettingsError):
    """Weights that would have to be downloaded, and cannot be."""


@dataclass(frozen=True)
class Backbone:
    """A frozen network from pictures to vectors.

    Attributes:
        name: torchvision's name.
        weights: where its weights are from: ``imagenet``, ``file`` or ``random:SEED``.
        sha256: of the weights' names, shapes and values; not of any file. Of random weights, as
            they were drawn.
        dimension: D, the length of an embedding.
        module: the network without its classifier, in evaluation mode.
        mean: (3,) the normalisation that belongs to the weights.
        std: (3,)
        device: where it computes.
    """

    name: str
    weights: str
    sha256: str
    dimension: int
    module: nn.Module
    mean: torch.Tensor
    std: torch.Tensor
    device: torch.device

    @torch.inference_mode()
    def embed(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed pictures.

        Args:
            pictures: (N, H, W, 3) uint8 RGB, or (N, H, W) uint8, which become three equal
                channels.

        Returns:
            (N, D) float32.
        """
        parts = []
        for start in range(0, len(pictures), BATCH):
            batch = torch.from_numpy(pictures[start : start + BATCH]).to(self.device)
            if batch.ndim == 3:
                batch = batch[..., None].expand(-1, -1, -1, 3)
            x = (batch.to(torch.float32) / 255 - self.mean) / self.std  # (N, H, W, 3)
            x = x.permute(0, 3, 1, 2)  # (N, 3, H, W), channels last in memory
            parts.append(self.module(x.contiguous(memory_format=torch.channels_last)).cpu())
        return torch.cat(parts).numpy() if parts else np.empty((0, self.dimension), np.float32)


def load_backbone(name: str, weights: str = "imagenet", device: str = "auto") -> Backbone:
    """Build a backbone and load its weights.

    Args:
        name: one of `CLASSIFIERS`.
        weights: ``imagenet`` (torchvision's, downloaded once and then cached by torch), the path
            of a state dict for torchvision's model of this name, or ``random:SEED``.
        device: as torch names it, or ``auto``: CUDA where there is a GPU.

    Raises:
        SettingsError: unknown name, weights that cannot be had, or that do not fit.
    """
    if name not in CLASSIFIERS:
        raise SettingsError(f"no backbone {name!r}", f"there are: {', '.join(CLASSIFIERS)}")
    where = torch.device(resolve_device(device))
    preset = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    kind = weights
    with torch.random.fork_rng(devices=[]):  # building a model draws random numbers
        if weights.startswith("random:"):
            model, digest = _random(name, weights.removeprefix("random:"))
        else:
            kind = "imagenet" if weights == "imagenet" else "file"
            model = torchvision.models.get_model(name, weights=None)
            if weights == "imagenet":
                state, source = _download(name, preset)
            else:
                state, source = _read_weights(Path(weights)), Path(weights)
            _fill(model, state, name, source)
            digest = _digest(model)
    classifier = getattr(model, CLASSIFIERS[name])
    dimension = next(m.in_features for m in classifier.modules() if isinstance(m, nn.Linear))
    setattr(model, CLASSIFIERS[name], nn.Identity())
    model.eval().requires_grad_(False).to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    transforms = preset.transforms()
    return Backbone(
        name=name,
        weights=kind,
        sha256=digest,
        dimension=dimension,
        module=model,
        mean=torch.tensor(transforms.mean, device=where),
        std=torch.tensor(transforms.std, device=where),
        device=where,
    )


def resolve_device(device: str) -> str:
    """The device that a name stands for; ``auto`` is CUDA where there is a GPU, else the CPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}",
            "auto takes a GPU where there is one",
        ) from error
    return device


def _random(name: str, seed: str) -> tuple[nn.Module, str]:
    """Random but reproducible weights, for trying things out, and the digest of what was drawn.

    Batch norms get the statistics of noise. Without that, activations shrink from layer to layer
    until all pictures look alike.
    """
    if not seed.isdecimal():
        raise SettingsError(f"weights random:{seed}", "give a number, as in random:0")
    torch.manual_seed(int(seed))
    model = torchvision.models.get_model(name, weights=None)
    digest = _digest(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average instead of a moving one
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 128, 128))
    return model, digest


def _download(
    name: str, preset: torchvision.models.WeightsEnum
) -> tuple[dict[str, torch.Tensor], Path]:
    """The state dict from torch's cache or from the network, and where it now lies."""
    folder = Path(torch.hub.get_dir(), "checkpoints")
    file = folder / preset.url.rsplit("/", 1)[-1]
    if not file.is_file():
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SILENCE)
        try:
            return preset.get_state_dict(progress=True, check_hash=True, weights_only=True), file  # type: ignore[return-value]
        except (
            OSError,
            RuntimeError,
            http.client.HTTPException,
        ) as error:  # no network, or other bytes than expected
            raise WeightsUnavailable(
                f"the ImageNet weights of {name} are neither in {folder} nor to be downloaded: "
                f"{_first_line(error)}",
                f"put {file.name} from {preset.url} into {folder}, "
                f"or give any state dict of {name} with --weights PATH",
            ) from error
        finally:
            socket.setdefaulttimeout(before)
    return _read_weights(file), file


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a file, with or without ``state_dict`` around and ``module.`` before it."""
    if not path.is_file():
        raise SettingsError(
            f"no weights at {path}", "give imagenet, the path of a state dict, or random:SEED"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever an arbitrary file makes the unpickler raise
        raise SettingsError(
            f"{path} is not a file of weights: {_first_line(error)}",
            "save a model's state_dict() with torch.save, or remove the file if it is a download",
        ) from error
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise SettingsError(
            f"{path} does not hold a state dict", "save a model's state_dict() with torch.save"
        )
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _fill(model: nn.Module, state: dict[str, torch.Tensor], name: str, source: Path) -> None:
    """Load a state dict that has to fit; only counters of batches may be missing."""
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    other_shape = [
        f"{key} {tuple(value.shape)} for {tuple(wanted[key].shape)}"
        for key, value in state.items()
        if key in wanted and value.shape != wanted[key].shape
    ]
    if missing or unexpected or other_shape:
        raise SettingsError(
            f"{source} does not fit {name}: missing {_few(missing)}; "
            f"unexpected {_few(unexpected + other_shape)}",
            f"it must be the state dict of torchvision.models.{name}()",
        )
    model.load_state_dict(state, strict=False)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _few(keys: list[str]) -> str:
    if not keys:
        return "nothing"
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
