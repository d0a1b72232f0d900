"""The folder of one run: a trained model and every setting that made it."""

import dataclasses
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from features.settings import Options, weights_warning
from model.settings import TrainingSettings
from pipeline.cache import INDEX, SUMS, Cache, read_sums, write_sums
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import sha256_of, write_whole

if TYPE_CHECKING:
    from model.training.heads import Ensemble

SCHEMA = 3
CONFIG = "config.json"


@dataclass(frozen=True)
class Config:
    """Everything needed to treat a new video as the training videos were, and to repeat the run.

    Attributes:
        schema: version of this layout.
        cache: path of the embedding cache.
        cache_sha256: of its index.
        frames: T, the frames of a clip.
        extraction: settings of `pipeline.extraction.extract_corpus`.
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


def read_config(folder: Path) -> Config:
    """What the run in a folder was made of; its model is not looked at.

    Raises:
        SettingsError: no run is there, or one of another version.
        IntegrityError: the file is damaged.
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
        return Config(training=training, **values)
    except SettingsError:
        raise
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise damaged(folder, error) from error


def damaged(folder: Path, why: Exception | str) -> IntegrityError:
    """What to raise if a file of a run cannot be read."""
    first = (str(why) or type(why).__name__).splitlines()[0]
    return IntegrityError(f"the run in {folder} is damaged: {first}", "fit it again")


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


MODEL = "model.pt"
# What a verdict rests on, as far as it is there; reports and what they are made from are not.
SEALED = (CONFIG, MODEL, "anomaly.npz", "band.json", "training.csv")


@dataclass(frozen=True)
class Run:
    """A trained ensemble and its configuration."""

    folder: Path
    config: Config
    ensemble: "Ensemble"

    def probabilities(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities of being fake, of the ensemble's logits."""
        return expit(logits / self.config.temperature)


def save_run(run: Run) -> None:
    """Write ``model.pt`` and ``config.json`` into the run's folder, and seal it."""
    from model.training.train import save_tensors

    save_tensors(run.folder / MODEL, run.ensemble.state_dict())
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
    import torch

    from model.training.heads import Ensemble, Head

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
