"""The folder of one run: a trained model and every setting that made it."""

import dataclasses
import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from model.config import CONFIG, Config, damaged, read_config
from model.heads import Ensemble, Head
from model.training import save_tensors
from pipeline.cache import Cache
from pipeline.errors import IntegrityError, SettingsError
from pipeline.files import sha256_of, write_whole

MODEL = "model.pt"


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
    """Write ``model.pt`` and ``config.json`` into the run's folder, each whole or not at all."""
    state = run.ensemble.state_dict()
    save_tensors(run.folder / MODEL, state)
    text = json.dumps(dataclasses.asdict(run.config), indent=1)
    write_whole(run.folder / CONFIG, lambda path: path.write_text(text + "\n"))


def load_run(folder: Path) -> Run:
    """Open a run.

    Raises:
        SettingsError: no run is there, or one of another version.
        IntegrityError: its files are damaged.
    """
    config = read_config(folder)
    try:
        heads = [Head(config.widths, config.training.shape) for _ in range(config.n_heads)]
        ensemble = Ensemble(heads, config.training.sequence_length)
        ensemble.load_state_dict(torch.load(folder / MODEL, weights_only=True))
    except pickle.UnpicklingError as error:  # whose text advises what is dangerous
        raise damaged(folder, f"PyTorch cannot read {MODEL}") from error
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise damaged(folder, error) from error
    return Run(folder, config, ensemble.eval())


def digest_of(run: Run) -> str:
    """A sha256 over the model and all its settings: what tells this run from every other."""
    both = sha256_of(run.folder / CONFIG) + sha256_of(run.folder / MODEL)
    return hashlib.sha256(both.encode()).hexdigest()


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
