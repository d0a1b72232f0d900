"""The trained controls of a run, kept in its folder, so that they are trained once."""

import hashlib
import json

import torch

from model.evaluation.baselines import PENALTIES
from model.evaluation.controls import MOST_BYTES, SHUFFLES, State
from model.run.run import Run, digest_of
from model.training.train import save_tensors

CONTROLS = "controls.pt"


def kept_controls(run: Run) -> dict[str, State]:
    """What `keep_controls` kept for this very run, which names its cache; else nothing.

    A file that cannot be read is as good as none: the controls are trained again.
    """
    try:
        held = torch.load(run.folder / CONTROLS, map_location="cpu", weights_only=True)
        return dict(held["controls"]) if held["made_with"] == _made_with(run) else {}
    except Exception:  # whatever an arbitrary file makes a parser raise
        return {}


def keep_controls(run: Run, states: dict[str, State]) -> None:
    """Write ``controls.pt`` into the run's folder: plain values and tensors."""
    held = {"made_with": _made_with(run), "controls": states}
    save_tensors(run.folder / CONTROLS, held)


def _made_with(run: Run) -> str:
    """What decides the controls: the run, with its cache, and how they are trained."""
    told = json.dumps([digest_of(run), SHUFFLES, MOST_BYTES, PENALTIES])
    return hashlib.sha256(told.encode()).hexdigest()
