"""The folder of one run: a trained model and every setting that made it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cloup
import torch

from features.embedding import weights_warning
from model.heads import Ensemble, LSTMHead
from model.training import TrainingSettings
from pipeline.errors import IntegrityError, SettingsError
from pipeline.files import write_whole

SCHEMA = 1
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
        streams: what the head sees, side by side.
        dimension: D, the length of a joined vector.
        training: settings of the heads.
        n_heads: heads in the ensemble, one per fold.
        trials: tuning trials that chose the settings, 0 if none.
        seed: of folds, tuning and training.
        threshold: probability from which on a video is called fake.
        versions: of the libraries.
        leak_warning: what to say wherever a result rests on a split that leaks, or nothing.
    """

    schema: int
    cache: str
    cache_sha256: str
    frames: int
    extraction: dict[str, Any]
    embedding: dict[str, Any]
    streams: tuple[str, ...]
    dimension: int
    training: TrainingSettings
    n_heads: int
    trials: int
    seed: int
    threshold: float
    versions: dict[str, str]
    leak_warning: str = ""

    @property
    def warnings(self) -> list[str]:
        """What to say over every result of the run: an untrained backbone, a split that leaks."""
        return [w for w in (weights_warning(self.embedding), self.leak_warning) if w]


@dataclass(frozen=True)
class Run:
    """A trained ensemble and its configuration."""

    folder: Path
    config: Config
    ensemble: Ensemble


def save_run(run: Run) -> None:
    """Write ``model.pt`` and ``config.json`` into the run's folder, each whole or not at all."""
    state = run.ensemble.state_dict()
    write_whole(run.folder / MODEL, lambda path: torch.save(state, path))
    text = json.dumps(dataclasses.asdict(run.config), indent=1)
    write_whole(run.folder / CONFIG, lambda path: path.write_text(text + "\n"))


def load_run(folder: Path) -> Run:
    """Open a run.

    Raises:
        SettingsError: no run is there, or one of another version.
        IntegrityError: its files are damaged.
    """
    if not (folder / CONFIG).is_file():
        raise SettingsError(
            f"{folder} is not a finished run: it has no {CONFIG}",
            f"python -m model.fit EMBEDDINGS -o {folder} makes one",
        )
    try:
        values = json.loads((folder / CONFIG).read_text())
        if values["schema"] != SCHEMA:
            raise SettingsError(
                f"{folder} has version {values['schema']}, this program reads {SCHEMA}",
                "fit again, or install the version that made it",
            )
        training = values.pop("training")
        training = TrainingSettings(**training | {"streams": tuple(training["streams"])})
        streams = tuple(values.pop("streams"))
        config = Config(training=training, streams=streams, **values)
        heads = [LSTMHead(config.dimension, training.head_settings) for _ in range(config.n_heads)]
        ensemble = Ensemble(heads, training.sequence_length)
        ensemble.load_state_dict(torch.load(folder / MODEL, weights_only=True))
    except SettingsError:
        raise
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise IntegrityError(f"the run in {folder} is damaged: {first}", "fit it again") from error
    return Run(folder, config, ensemble.eval())


allow_leaks_option = cloup.option(
    "--allow-leaks",
    is_flag=True,
    help="Go on where somebody or something is on two sides of the split; every metric and report "
    "then says so.",
)


def warn(run: Run) -> None:
    """Say on the terminal what every result of a run rests on, where that is not sound."""
    for warning in run.config.warnings:
        click.secho(f"WARNING: {warning}", fg="yellow", err=True)
