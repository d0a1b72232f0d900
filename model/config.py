"""What a run's ``config.json`` says."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.settings import Options, weights_warning
from model.settings import TrainingSettings
from pipeline.cache import INDEX
from pipeline.common.errors import IntegrityError, SettingsError

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
