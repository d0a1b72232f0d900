"""Settings of a head and its training; a command's ``--help`` waits for nothing slow to import."""

from dataclasses import dataclass
from typing import Literal, get_args

STREAMS = ("flow", "frames", "motion")
HeadKind = Literal["lstm", "gru", "tcn", "transformer", "mean"]
Pooling = Literal["last", "mean", "attention"]
Fusion = Literal["early", "late"]
HEADS: tuple[HeadKind, ...] = get_args(HeadKind)
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
Scope = Literal["training", "architecture"]  # of tuning


@dataclass(frozen=True)
class HeadSettings:
    """The shape of a head.

    Attributes:
        kind: what looks at the order of time: an LSTM, a GRU, dilated convolutions (TCN), a
            Transformer encoder; or nothing does: the mean over time, and a logistic regression.
        hidden: width of its layers.
        layers: how many of them.
        bidirectional: of an LSTM or a GRU; the others see both directions anyhow.
        pooling: from the steps of time to one vector.
        dropout: before, between and after its layers.
        fusion: whether the streams are joined before time is looked at, or each has a branch of
            its own and their logits are averaged.
    """

    kind: HeadKind = "lstm"
    hidden: int = 64
    layers: int = 1
    bidirectional: bool = False
    pooling: Pooling = "mean"
    dropout: float = 0.3
    fusion: Fusion = "early"


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides a trained head, given the data and the seed."""

    learning_rate: float = 1e-3
    batch_size: int = 8
    sequence_length: int = 32
    weight_decay: float = 1e-3
    dropout: float = HeadSettings.dropout
    hidden: int = HeadSettings.hidden
    layers: int = HeadSettings.layers
    bidirectional: bool = HeadSettings.bidirectional
    pooling: Pooling = HeadSettings.pooling
    head: HeadKind = HeadSettings.kind
    streams: tuple[str, ...] = ("flow", "motion")
    fusion: Fusion = HeadSettings.fusion
    max_epochs: int = 60
    patience: int = 12

    @property
    def shape(self) -> HeadSettings:
        """Of the head."""
        return HeadSettings(
            self.head,
            self.hidden,
            self.layers,
            self.bidirectional,
            self.pooling,
            self.dropout,
            self.fusion,
        )
