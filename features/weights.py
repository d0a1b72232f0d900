"""torchvision's models with pretrained weights, those of a file, or random ones."""

import contextlib
import hashlib
import http.client
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from features.architectures import Architecture
from pipeline.common.errors import SettingsError

DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
INITIALISERS = ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_")


class WeightsUnavailable(SettingsError):
    """Pretrained weights cannot be downloaded."""


def load_model(kind: Architecture, weights: str) -> tuple[nn.Module, str, str]:
    """Build torchvision's model with weights as for `load_backbone`.

    Returns:
        model with its classifier, in evaluation mode; ``imagenet``, ``file`` or ``random:SEED``;
        sha256 of the weights.
    """
    if weights.startswith("random:"):
        model, digest = _random(kind, weights.removeprefix("random:"))
        return model, weights, digest
    if weights == "imagenet":
        state, file = _download(kind)
    else:
        file = Path(weights)
        state = _read_weights(file)
    model = build(kind, initialise=False)
    _fill(model, state, kind.name, file)
    return model, "imagenet" if weights == "imagenet" else "file", _digest(model)


def build(kind: Architecture, *, initialise: bool) -> nn.Module:
    """Build torchvision's model; its weights are random or else uninitialised memory."""
    options: dict[str, Any] = {}
    if kind.name.startswith("vit_"):
        options["image_size"] = kind.trained_at[0]
    if kind.name in ("googlenet", "inception_v3"):
        # Their weights expect another normalisation.
        options |= {"transform_input": True, "init_weights": initialise}
    with contextlib.nullcontext() if initialise else _no_initialisation():
        return models.get_model(kind.name, weights=None, **options).eval()


@contextlib.contextmanager
def _no_initialisation() -> Iterator[None]:
    """Skip random initialisation, which takes most of the time."""
    originals = {name: getattr(nn.init, name) for name in INITIALISERS}
    for name in originals:
        setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(nn.init, name, function)


def _random(kind: Architecture, seed: str) -> tuple[nn.Module, str]:
    """Return a model with random weights, and their digest before batch norms are set."""
    if not seed.isdecimal():
        raise SettingsError(f"weights random:{seed}", "give a number, as in random:0")
    torch.manual_seed(int(seed))
    model = build(kind, initialise=True)
    digest = _digest(model)
    # Batch norms get the statistics of noise; else activations shrink until embeddings are alike.
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    if norms:
        n, time = (8, ()) if kind.window == 1 else (2, (kind.window,))
        side = kind.size or (max(128, kind.min_side),) * 2
        with torch.no_grad():
            model(torch.randn(n, 3, *time, *side))
    return model.eval(), digest


def _download(kind: Architecture) -> tuple[dict[str, torch.Tensor], Path]:
    """Return the pretrained state dict, downloaded unless torch's cache has it, and its file."""
    name, url = kind.name, kind.preset.url
    folder = Path(torch.hub.get_dir(), "checkpoints")
    file = folder / url.rsplit("/", 1)[-1]
    if not file.is_file():
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        try:
            kind.preset.get_state_dict(check_hash=True, weights_only=True)
        except (OSError, RuntimeError, http.client.HTTPException) as error:  # or a wrong checksum
            raise WeightsUnavailable(
                f"the pretrained weights of {name} are neither in {folder} nor "
                f"downloadable: {_first_line(error)}",
                f"put {file.name} from {url} into {folder}, "
                f"or give any state dict of {name} with --weights PATH",
            ) from error
        finally:
            socket.setdefaulttimeout(before)
    return _read_weights(file), file


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict, perhaps within ``state_dict`` or with the prefix ``module.``."""
    if not path.is_file():
        raise SettingsError(
            f"no weights at {path}", "give imagenet, the path of a state dict, or random:SEED"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file may raise anything
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


def _fill(model: nn.Module, state: dict[str, torch.Tensor], name: str, file: Path) -> None:
    """Load a state dict that must fit, except for batch counters."""
    expected = model.state_dict()
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    other_shape = [
        f"{key} {tuple(value.shape)} for {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    if missing or unexpected or other_shape:
        raise SettingsError(
            f"{file} does not fit {name}: missing {_first_three(missing)}; "
            f"unexpected {_first_three(unexpected + other_shape)}",
            f"it must be the state dict of torchvision.models.{name}()",
        )
    model.load_state_dict(state, strict=False)


def _first_line(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # its text advises weights_only=False
        return "PyTorch cannot read it"
    return (str(error) or type(error).__name__).splitlines()[0]


def _first_three(keys: list[str]) -> str:
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
