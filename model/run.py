"""The folder of one run: a trained model and every setting that made it."""

import dataclasses
import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from features.options import Options, weights_warning
from model.heads import Ensemble, Head
from model.settings import TrainingSettings
from model.training import save_tensors
from pipeline.cache import INDEX, Cache
from pipeline.errors import IntegrityError, SettingsError
from pipeline.files import sha256_of, write_whole

SCHEMA = 2
CONFIG, MODEL = "config.json", "model.pt"


@dataclass(frozen=True)
class Config:
    """Everything needed to treat a new video as the training videos were, and to repeat the run.

    Attributes:
        schema: version of this layout.
        cache: path of the embedding cache.
        cache_sha256: of its index.
        frames: T, the frames of a clip.
        extraction: settings of `pipeline.extraction`.
        embedding: settings of `features.embedding`.
        widths: what the head sees, side by side: stream → the length of its vectors.
        training: settings of the heads.
        n_heads: heads in the ensemble, one per fold.
        trials: tuning trials that chose the settings, 0 if none.
        seed: of folds, tuning and training.
        temperature: a probability is the sigmoid of logit / temperature.
        threshold: probability from which on a video is called fake.
        max_fpr: the share of real validation videos that the threshold lets be called fake; None:
            it makes as many errors on real as on fake ones.
        abstain: the share of validation videos that should be too close to call.
        margin: a probability that is nearer than that to the threshold, in logits, is too close
            to call.
        versions: of the libraries.
        leak_warning: what to say wherever a result rests on a split that leaks, or nothing.
        threshold_warning: why the threshold cannot keep its promise, or nothing.
    """

    schema: int
    cache: str
    cache_sha256: str
    frames: int
    extraction: dict[str, Any]
    embedding: dict[str, Any]
    widths: dict[str, int]
    training: TrainingSettings
    n_heads: int
    trials: int
    seed: int
    temperature: float
    threshold: float
    max_fpr: float | None
    abstain: float
    margin: float
    versions: dict[str, str]
    leak_warning: str = ""
    threshold_warning: str = ""

    @property
    def streams(self) -> tuple[str, ...]:
        """What the head sees, side by side."""
        return tuple(self.widths)

    @property
    def options(self) -> Options:
        """How a clip is embedded to be looked at."""
        options = Options.from_json(self.embedding)
        streams = tuple(stream for stream in options.streams if stream in self.streams)
        return dataclasses.replace(options, streams=streams, augment=())

    @property
    def warnings(self) -> list[str]:
        """What to say over every result of the run: an untrained backbone, a split that leaks."""
        said = (weights_warning(self.embedding), self.leak_warning, self.threshold_warning)
        return [warning for warning in said if warning]

    @property
    def threshold_rule(self) -> str:
        """How the threshold was chosen, as the end of a sentence."""
        if self.max_fpr is None:
            return "where the errors on the validation folds are equal"
        return (
            f"where at most {100 * self.max_fpr:g}% of the real videos of the validation folds are "
            "called fake"
        )


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
    if not (folder / CONFIG).is_file():
        raise SettingsError(*_no_run(folder))
    try:
        values = json.loads((folder / CONFIG).read_text())
        if values["schema"] != SCHEMA:
            raise SettingsError(
                f"{folder} has version {values['schema']}, this program reads {SCHEMA}",
                "fit again, or install the version that made it",
            )
        training = values.pop("training")
        training = TrainingSettings(**training | {"streams": tuple(training["streams"])})
        config = Config(training=training, **values)
        heads = [Head(config.widths, training.shape) for _ in range(config.n_heads)]
        ensemble = Ensemble(heads, training.sequence_length)
        ensemble.load_state_dict(torch.load(folder / MODEL, weights_only=True))
    except SettingsError:
        raise
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        first = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):  # whose text advises what is dangerous
            first = f"PyTorch cannot read {MODEL}"
        raise IntegrityError(f"the run in {folder} is damaged: {first}", "fit it again") from error
    return Run(folder, config, ensemble.eval())


def _no_run(folder: Path) -> tuple[str, str]:
    """What is there instead of a run, and the way out."""
    how = "python -m model.fit EMBEDDINGS -o RUN makes one"
    if not folder.exists():
        return f"the run {folder} does not exist", how
    if not folder.is_dir():
        return f"{folder} is a file; a run is a folder, and comes first", how
    if (folder / INDEX).is_file():
        return f"{folder} is a cache, not a run", how
    return f"{folder} is not a finished run: it has no {CONFIG}", how


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
