"""Folder of one run: a trained model and all settings that it was trained with.

Reading the configuration needs no PyTorch.
"""

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
from model.statistics.metrics import distance
from pipeline.cache import INDEX, SUMS, Cache, read_sums, write_sums
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import sha256_of, write_whole
from pipeline.corpus.labelled_video import LABEL_NAMES

if TYPE_CHECKING:
    from model.training.heads import Ensemble

SCHEMA = 3
CONFIG = "config.json"
MODEL = "model.pt"
UNDECIDABLE = "undecidable"  # verdict
# Files that a verdict depends on, if present.
CHECKSUMMED = (CONFIG, MODEL, "anomaly.npz", "band.json", "training.csv")


@dataclass(frozen=True)
class Config:
    """All settings of a run: enough to process a new video alike, and to train again."""

    schema: int
    cache: str
    cache_sha256: str
    frames: int  # T, frames of a clip
    extraction: dict[str, Any]
    embedding: dict[str, Any]
    widths: dict[str, int]  # stream → number of its features, in the head's order
    training: TrainingSettings
    n_heads: int  # one per fold; 0 if fitted on real videos alone
    trials: int
    seed: int
    temperature: float  # a probability is the sigmoid of logit / temperature
    threshold: float  # fake from this probability on
    max_fpr: float | None  # None: the threshold is at the equal error rate
    abstain: float  # share of validation videos that should be undecidable
    margin: float  # logits; nearer to the threshold a video is undecidable
    versions: dict[str, str]
    leak_warning: str = ""
    threshold_warning: str = ""  # if it cannot guarantee max_fpr
    trajectory: tuple[str, ...] = ()  # its columns, if the head uses it, such as "flow 4 turn"
    strength: float | None = None  # C of the statistics head, chosen on the validation folds
    own_kinds: tuple[str, ...] = ()  # of the own fakes that it was trained on
    saw_real_fakes: bool = True  # whether it was trained on others, if it was on any
    n_folds: int = 0  # of a run without heads; temperature, threshold and margin say nothing then

    @property
    def is_detector(self) -> bool:
        """Whether there is a head; a run fitted on real videos alone has none."""
        return self.n_heads > 0

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams in the order of the head's input."""
        return tuple(self.widths)

    @property
    def options(self) -> Options:
        """Options to embed a new clip: the streams that the head needs, without augmentation."""
        options = Options.from_json(self.embedding)
        needed = {*self.streams, *(column.split()[0] for column in self.trajectory)}
        streams = tuple(stream for stream in options.streams if stream in needed)
        return dataclasses.replace(options, streams=streams, augment=())

    @property
    def warnings(self) -> list[str]:
        """Warnings for every result: on backbone, leaks, threshold, and own fakes alone."""
        only_own = f"It was {self.fakes_trained_on}." if not self.saw_real_fakes else ""
        warnings = (
            *(weights_warning(self.embedding), self.leak_warning, self.threshold_warning),
            only_own,
        )
        return [warning for warning in warnings if warning]

    @property
    def fakes_trained_on(self) -> str:
        """What fakes it was trained on, if own ones are among them; else empty."""
        if not self.own_kinds:
            return ""
        own = f"trained on fakes made of real videos, by: {', '.join(self.own_kinds)}"
        return (
            f"{own}; and on real fakes" if self.saw_real_fakes else f"{own}; never saw a deepfake"
        )

    @property
    def threshold_rule(self) -> str:
        """The rule by which the threshold was chosen, to end a sentence."""
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
    ensemble: "Ensemble"

    def probabilities(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return calibrated probabilities of being fake from logits of the ensemble."""
        return expit(logits / self.config.temperature)

    def verdict(self, probability: float) -> str:
        """Return ``fake``, ``real``, or ``undecidable`` within the margin of the threshold."""
        threshold = self.config.threshold
        if distance(np.array(probability), threshold) < self.config.margin:
            return UNDECIDABLE
        return LABEL_NAMES[int(probability >= threshold)]


def read_config(folder: Path) -> Config:
    """Read the configuration of a run, not its model."""
    if not (folder / CONFIG).is_file():
        raise SettingsError(_not_a_run(folder), "python -m model.fit EMBEDDINGS -o RUN makes one")
    try:
        values = json.loads((folder / CONFIG).read_text())
        if values["schema"] != SCHEMA:
            raise SettingsError(
                f"{folder} has version {values['schema']}, this program reads {SCHEMA}",
                "fit again, or install the version that made it",
            )
        training = values.pop("training")
        training = TrainingSettings(**training | {"streams": tuple(training["streams"])})
        for key in ("trajectory", "own_kinds"):
            values[key] = tuple(values.get(key, ()))
        return Config(training=training, **values)
    except SettingsError:
        raise
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise _damaged(folder, error) from error


def load_run(folder: Path) -> Run:
    """Open a run and verify its checksums.

    Raises:
        SettingsError: the folder is not a run, or one of another version.
        IntegrityError: its files are damaged.
    """
    import torch

    from model.training.heads import Ensemble, Head

    config = read_config(folder)
    _verify_checksums(folder)
    try:
        heads = [Head(config.widths, config.training) for _ in range(config.n_heads)]
        ensemble = Ensemble(heads, config.training.crop_length)
        ensemble.load_state_dict(torch.load(folder / MODEL, weights_only=True))
    except pickle.UnpicklingError as error:  # its text recommends weights_only=False
        raise _damaged(folder, f"PyTorch cannot read {MODEL}") from error
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise _damaged(folder, error) from error
    return Run(folder, config, ensemble.eval())


def _verify_checksums(folder: Path) -> None:
    try:
        sums = read_sums(folder)
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{SUMS} cannot be read") from error
    if not {CONFIG, MODEL} <= sums.keys():
        raise _damaged(folder, f"{SUMS} does not list {CONFIG} and {MODEL}")
    for name, sha256 in sums.items():
        if not (folder / name).is_file():
            raise _damaged(folder, f"{name} is not there")
        if sha256_of(folder / name) != sha256:
            raise _damaged(folder, f"{name} is not what was written: its sha256 is another")


def _damaged(folder: Path, why: Exception | str) -> IntegrityError:
    first_line = (str(why) or type(why).__name__).splitlines()[0]
    return IntegrityError(f"the run in {folder} is damaged: {first_line}", "fit it again")


def _not_a_run(folder: Path) -> str:
    if not folder.exists():
        return f"the run {folder} does not exist"
    if not folder.is_dir():
        return f"{folder} is a file; a run is a folder, and comes first"
    if (folder / INDEX).is_file():
        return f"{folder} is a cache, not a run"
    return f"{folder} is not a finished run: it has no {CONFIG}"


def save_run(run: Run) -> None:
    """Write ``model.pt``, ``config.json`` and ``SHA256SUMS``."""
    from model.training.train import save_tensors

    save_tensors(run.folder / MODEL, run.ensemble.state_dict())
    text = json.dumps(dataclasses.asdict(run.config), indent=1)
    write_whole(run.folder / CONFIG, lambda path: path.write_text(text + "\n"))
    seal(run.folder)


def seal(folder: Path) -> None:
    """Write ``SHA256SUMS`` of the files that a verdict depends on."""
    present = [name for name in CHECKSUMMED if (folder / name).is_file()]
    write_sums(folder, {name: sha256_of(folder / name) for name in present})


def check_detector(config: Config, folder: Path, what: str) -> None:
    """Raise `SettingsError` if a run has no detector, which ``what`` needs."""
    if not config.is_detector:
        raise SettingsError(
            f"{what} needs a detector, and {folder} has none: it was fitted on real videos alone",
            "fit a run on real and fake videos",
        )


def digest_of(run: Run) -> str:
    """Return one sha256 of all files that a verdict depends on."""
    return sha256_of(run.folder / SUMS)


def cache_of(run: Run, cache: Cache | None = None) -> Cache:
    """Return the cache that a run was trained on; ``cache`` is that cache, if it was moved."""
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
