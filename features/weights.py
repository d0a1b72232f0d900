"""Weights of a backbone: torchvision's, of a file, or random; never others than asked for."""

import hashlib
import http.client
import pickle
import socket
from pathlib import Path

import torch
from torch import nn

from features.architectures import Architecture, build, random_input
from pipeline.common.errors import SettingsError

SILENCE = 30.0  # seconds without a byte after which a download is given up


class WeightsUnavailable(SettingsError):
    """Weights that would have to be downloaded, and cannot be."""


def load_model(kind: Architecture, weights: str) -> tuple[nn.Module, str, str]:
    """Torchvision's model with the weights that are asked for.

    Args:
        kind: which model.
        weights: ``imagenet`` (torchvision's own, of Kinetics for a network of videos), the path of
            a state dict, or ``random:SEED``.

    Returns:
        the model with its classifier; where its weights are from: ``imagenet``, ``file`` or
        ``random:SEED``; and their sha256.

    Raises:
        SettingsError: they cannot be had, or do not fit.
    """
    if weights.startswith("random:"):
        model, digest = _random(kind, weights.removeprefix("random:"))
        return model, weights, digest
    if weights == "imagenet":
        state, source = _download(kind)
    else:
        source = Path(weights)
        state = _read_weights(source)
    model = build(kind, initialise=False)
    _fill(model, state, kind.name, source)
    return model, "imagenet" if weights == "imagenet" else "file", _digest(model)


def _random(kind: Architecture, seed: str) -> tuple[nn.Module, str]:
    """Random but reproducible weights, for trying things out, and the digest of what was drawn.

    Batch norms get the statistics of noise. Without that, activations shrink from layer to layer
    until all pictures look alike.
    """
    if not seed.isdecimal():
        raise SettingsError(f"weights random:{seed}", "give a number, as in random:0")
    torch.manual_seed(int(seed))
    model = build(kind, initialise=True)
    digest = _digest(model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = None  # a plain average instead of a moving one
        norm.train()
    if norms:
        with torch.no_grad():
            model(random_input(kind, 8 if kind.window == 1 else 2))
    return model.eval(), digest


def _download(kind: Architecture) -> tuple[dict[str, torch.Tensor], Path]:
    """The state dict from torch's cache or from the network, and where it now lies."""
    name, preset = kind.name, kind.preset
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
                f"the pretrained weights of {name} are neither in {folder} nor to be downloaded: "
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
    if isinstance(error, pickle.UnpicklingError):  # whose text advises what is dangerous
        return "PyTorch cannot read it"
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
