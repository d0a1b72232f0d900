"""The folder of one run: a trained model and every setting that made it."""

import dataclasses
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from model.config import CONFIG, Config, damaged, read_config
from model.training.heads import Ensemble, Head
from model.training.train import save_tensors
from pipeline.cache import SUMS, Cache, read_sums, write_sums
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import sha256_of, write_whole

MODEL = "model.pt"
# What a verdict rests on, as far as it is there; reports and what they are made from are not.
SEALED = (CONFIG, MODEL, "anomaly.npz", "band.json", "training.csv")


@dataclass(frozen=True)
class Run:
    """A trained ensemble and its configuration."""

    folder: Path
    config: Config
    ensemble: Ensemble

    def probabilities(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities of being fake, of the ensemble's logits."""
        return expit(logits / self.config.temperature)


def save_run(run: Run) -> None:
    """Write ``model.pt`` and ``config.json`` into the run's folder, and seal it."""
    state = run.ensemble.state_dict()
    save_tensors(run.folder / MODEL, state)
    text = json.dumps(dataclasses.asdict(run.config), indent=1)
    write_whole(run.folder / CONFIG, lambda path: path.write_text(text + "\n"))
    seal(run.folder)


def seal(folder: Path) -> None:
    """Write ``SHA256SUMS`` over what a verdict rests on; a change of it is then found."""
    there = [name for name in SEALED if (folder / name).is_file()]
    write_sums(folder, {name: sha256_of(folder / name) for name in there})


def load_run(folder: Path) -> Run:
    """Open a run.

    Raises:
        SettingsError: no run is there, or one of another version.
        IntegrityError: its files are damaged.
    """
    config = read_config(folder)
    _check_seal(folder)
    try:
        heads = [Head(config.widths, config.training.shape) for _ in range(config.n_heads)]
        ensemble = Ensemble(heads, config.training.sequence_length)
        ensemble.load_state_dict(torch.load(folder / MODEL, weights_only=True))
    except pickle.UnpicklingError as error:  # whose text advises what is dangerous
        raise damaged(folder, f"PyTorch cannot read {MODEL}") from error
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise damaged(folder, error) from error
    return Run(folder, config, ensemble.eval())


def _check_seal(folder: Path) -> None:
    try:
        sums = read_sums(folder)
    except (OSError, ValueError) as error:
        raise damaged(folder, f"{SUMS} cannot be read") from error
    if not {CONFIG, MODEL} <= sums.keys():
        raise damaged(folder, f"{SUMS} does not list {CONFIG} and {MODEL}")
    for name, sha256 in sums.items():
        if not (folder / name).is_file():
            raise damaged(folder, f"{name} is not there")
        if sha256_of(folder / name) != sha256:
            raise damaged(folder, f"{name} is not what was written: its sha256 is another")


def digest_of(run: Run) -> str:
    """A sha256 over the model, its settings and all else that a verdict rests on."""
    return sha256_of(run.folder / SUMS)


def cache_of(run: Run, cache: Cache | None = None) -> Cache:
    """The cache of embeddings that a run was trained on.

    Args:
        run: a trained run.
        cache: that cache, where it is not where it was.

    Raises:
        SettingsError: it is not there.
        IntegrityError: this is another one.
    """
    if cache is None:
        try:
            cache = Cache(Path(run.config.cache), "embed")
        except SettingsError as error:
            raise SettingsError(str(error), "say where it is now with --cache") from error
    if cache.sha256 != run.config.cache_sha256:
        raise IntegrityError(
            f"{cache.folder} is not the cache that {run.folder} was trained on: its index differs",
            "evaluate on the cache the run was fitted on, or fit again",
        )
    return cache
