"""Settings of a head and of its training; this module imports nothing slow."""

from dataclasses import dataclass
from typing import Literal, get_args

STREAMS = ("flow", "frames", "motion", "trajectory")
HeadKind = Literal["lstm", "gru", "tcn", "transformer", "mean", "statistics"]
Pooling = Literal["last", "mean", "attention", "statistics"]
Fusion = Literal["early", "late"]
HEADS: tuple[HeadKind, ...] = get_args(HeadKind)
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
WHOLE_CLIP = 2**31  # steps, more than any clip has
Scope = Literal["training", "architecture"]  # which settings tuning searches


@dataclass(frozen=True)
class HeadSettings:
    """Architecture of a head."""

    head: HeadKind = "statistics"  # this and mean: a linear model on what they name, over time
    hidden: int = 64
    layers: int = 1
    bidirectional: bool = False  # LSTM and GRU; the others always are
    pooling: Pooling = "mean"  # reduction over time to one vector
    dropout: float = 0.3  # before, between and after the layers
    fusion: Fusion = "early"  # late averages the logits of one model per stream


@dataclass(frozen=True)
class TrainingSettings(HeadSettings):
    """Everything that determines a trained head, given the data and the seed."""

    learning_rate: float = 1e-3
    batch_size: int = 8
    sequence_length: int = 32  # flow maps in a temporal crop; not of the statistics head
    weight_decay: float = 1e-3
    streams: tuple[str, ...] = ("trajectory",)  # joined in this order
    max_epochs: int = 60  # per fold
    patience: int = 12  # epochs without a better validation loss

    @property
    def crop_length(self) -> int:
        """Steps that a head sees at once; the statistics head sees whole clips."""
        return WHOLE_CLIP if self.head == "statistics" else self.sequence_length
