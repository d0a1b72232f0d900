"""The temporal model trained over frozen embeddings."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

FARTHEST = 10.0  # standard deviations; what no training video showed must not decide alone
CLIPS_AT_ONCE = 64  # bounds the memory of an evaluation
Pooling = Literal["last", "mean", "attention"]


@dataclass(frozen=True)
class HeadSettings:
    """The shape of an LSTM head."""

    hidden: int = 64
    layers: int = 1
    bidirectional: bool = False
    pooling: Pooling = "mean"
    dropout: float = 0.3


class LSTMHead(nn.Module):
    """Standardise, project, LSTM, pool over time, one logit.

    Args:
        dimension: D, of the embeddings.
        settings: the shape.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, dimension: int, settings: HeadSettings) -> None:
        super().__init__()
        self.pooling = settings.pooling
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("std", torch.ones(dimension))
        self.project = nn.Sequential(
            nn.Linear(dimension, settings.hidden), nn.GELU(), nn.Dropout(settings.dropout)
        )
        self.lstm = nn.LSTM(
            settings.hidden,
            settings.hidden,
            settings.layers,
            batch_first=True,
            bidirectional=settings.bidirectional,
            dropout=settings.dropout if settings.layers > 1 else 0.0,
        )
        width = settings.hidden * (2 if settings.bidirectional else 1)
        self.attend = nn.Linear(width, 1) if settings.pooling == "attention" else None
        self.classify = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(width, 1))

    def standardise_by(self, x: torch.Tensor) -> None:
        """Learn the mean and spread of each feature from training clips (N, L, D)."""
        flat = x.reshape(-1, x.shape[-1])
        self.mean.copy_(flat.mean(0))
        std = flat.std(0)
        self.std.copy_(torch.where(std > 1e-4, std, torch.ones_like(std)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of being fake, (B,), of sequences (B, L, D) float32."""
        x = ((x - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)  # (B, L, D)
        steps, (last, _) = self.lstm(self.project(x))  # (B, L, W), (layers * directions, B, H)
        if self.attend is not None:
            weight = torch.softmax(self.attend(steps), dim=1)  # (B, L, 1)
            pooled = (weight * steps).sum(1)
        elif self.pooling == "mean":
            pooled = steps.mean(1)
        else:
            pooled = last[-2:].transpose(0, 1).flatten(1) if self.lstm.bidirectional else last[-1]
        return self.classify(pooled).squeeze(-1)


class Ensemble(nn.Module):
    """The heads of all folds; their logits are averaged over heads and over windows of time.

    Args:
        heads: trained alike on different folds.
        window: L, the steps that they were trained on.
    """

    def __init__(self, heads: list[LSTMHead], window: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.window = window

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of being fake, (B,), of whole clips (B, T-1, D) float32."""
        return torch.stack([clip_logits(head, x, self.window) for head in self.heads]).mean(0)


def clip_logits(head: nn.Module, x: torch.Tensor, window: int) -> torch.Tensor:
    """Average a head's logits over windows that cover a clip evenly.

    Args:
        head: from (B, L, D) to (B,).
        x: (B, T-1, D) float32.
        window: L; clips shorter than that are one window.
    """
    length, dimension = x.shape[1:]
    window = min(window, length)
    count = -(-length // window)
    starts = torch.linspace(0, length - window, count, device=x.device).round().int()
    steps = starts[:, None] + torch.arange(window, device=x.device)  # (count, L)
    parts = [
        head(part[:, steps].reshape(len(part) * count, window, dimension)).reshape(-1, count)
        for part in x.split(CLIPS_AT_ONCE)  # type: ignore[no-untyped-call]
    ]
    return torch.cat(parts).mean(1)
