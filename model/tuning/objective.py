"""What tuning minimises: the validation loss of a head on one fold of the training videos."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.run.per_video_scores import UNSEEN
from model.settings import TrainingSettings
from model.training.sequences import Sequences, load_sequences
from model.training.train import Indices, cross_fit
from pipeline.cache import Cache
from pipeline.common.errors import IntegrityError

TRAINING = ("train", "val")  # splits


@dataclass(frozen=True)
class FoldLoss:
    """The validation loss of some settings on a fold, in nats.

    It travels to other processes as a path; each reads the clips when it first needs them, and
    keeps those of one choice of streams.

    Attributes:
        cache: folder of an embedding cache.
        sha256: of its index.
        folds: pairs of rows to train on and rows to validate on.
        seed: of training.
        device: as torch names it.
        splits: whose clips the rows are of.
        checkpoints: a folder in which what was trained is kept, as of `train_fold`.
    """

    cache: Path
    sha256: str
    folds: Sequence[tuple[Indices, Indices]]
    seed: int
    device: str
    splits: tuple[str, ...] = TRAINING
    checkpoints: Path | None = None

    def __call__(self, settings: TrainingSettings, fold: int) -> float:
        """Train one head as `cross_fit` over all folds trains it.

        Raises:
            IntegrityError: a clip of the test split or of the holdout is among the clips, or the
                cache is another than it was.
        """
        data = load_training(self.cache, self.sha256, settings.streams, self.splits)
        return cross_fit(
            data,
            [self.folds[fold]],
            settings,
            seed=self.seed + fold,
            device=self.device,
            checkpoints=self.checkpoints,
        ).loss


@functools.lru_cache(maxsize=1)  # large, and read by one trial after the other
def load_training(
    folder: Path, sha256: str, streams: tuple[str, ...], splits: tuple[str, ...] = TRAINING
) -> Sequences:
    """The clips of a cache that training may see.

    Raises:
        IntegrityError: as `FoldLoss.__call__`.
    """
    cache = Cache(folder, "embed")
    if cache.sha256 != sha256:
        raise IntegrityError(f"{folder} was made anew meanwhile", "give a new run folder")
    data = load_sequences(cache, streams, splits)
    for clip in data.clips:
        if clip.split in UNSEEN:
            raise IntegrityError(
                f"clip {clip.id} of the {clip.split} split of {folder} came to training",
                "this is a bug; please report it",
            )
    return data
