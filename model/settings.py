"""Settings of a head and of its training; this module imports nothing slow."""

from dataclasses import dataclass
from typing import Literal, get_args

STREAMS = ("flow", "frames", "motion")
HeadKind = Literal["lstm", "gru", "tcn", "transformer", "mean"]
Pooling = Literal["last", "mean", "attention"]
Fusion = Literal["early", "late"]
HEADS: tuple[HeadKind, ...] = get_args(HeadKind)
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
Scope = Literal["training", "architecture"]  # which settings tuning searches


@dataclass(frozen=True)
class HeadSettings:
    """Architecture of a head.

    Attributes:
        head: temporal model: LSTM, GRU, dilated convolutions (TCN) or Transformer encoder; or
            ``mean``, a logistic regression on the mean over time.
        hidden: width of the layers.
        layers: number of layers.
        bidirectional: LSTM and GRU read both ways; the others always see both directions.
        pooling: reduction over time to one vector.
        dropout: probability before, between and after the layers.
        fusion: ``early`` joins the streams before the temporal model; ``late`` averages the logits
            of one model per stream.
    """

    head: HeadKind = "lstm"
    hidden: int = 64
    layers: int = 1
    bidirectional: bool = False
    pooling: Pooling = "mean"
    dropout: float = 0.3
    fusion: Fusion = "early"


@dataclass(frozen=True)
class TrainingSettings(HeadSettings):
    """Everything that determines a trained head, given the data and the seed.

    Attributes:
        learning_rate: of AdamW.
        batch_size: clips per step.
        sequence_length: flow maps in a temporal crop.
        weight_decay: of AdamW.
        streams: some of `STREAMS`, joined in this order.
        max_epochs: limit per fold.
        patience: epochs without a better validation loss before training stops.
    """

    learning_rate: float = 1e-3
    batch_size: int = 8
    sequence_length: int = 32
    weight_decay: float = 1e-3
    streams: tuple[str, ...] = ("flow", "motion")
    max_epochs: int = 60
    patience: int = 12
