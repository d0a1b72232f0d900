"""The temporal models trained over frozen embeddings."""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from model.settings import HeadKind, HeadSettings

FARTHEST = 10.0  # standard deviations; what no training video showed must not decide alone
CLIPS_AT_ONCE = 64  # bounds the memory of an evaluation
KERNEL = 3  # steps, of the temporal convolution
ATTENTION_HEADS = 4


class Head(nn.Module):
    """Standardise, look at the order of time, pool, one logit.

    Args:
        widths: stream → its length in the joined vectors, in their order.
        settings: the shape.

    Example:
        >>> head = Head({"flow": 512, "motion": 13}, HeadSettings(kind="gru", hidden=16))
        >>> head(torch.zeros(2, 32, 525), lengths=torch.tensor([32, 20])).shape
        torch.Size([2])
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, widths: Mapping[str, int], settings: HeadSettings) -> None:
        super().__init__()
        dimension = sum(widths.values())
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("std", torch.ones(dimension))
        self._parts = list(widths.values()) if settings.fusion == "late" else [dimension]
        self.branches = nn.ModuleList(_Branch(width, settings) for width in self._parts)

    def standardise_by(self, x: torch.Tensor, rows: torch.Tensor) -> None:
        """Learn the mean and spread of each feature from the training clips among (N, L, D)."""
        n = len(rows) * x.shape[1]
        parts = rows.split(CLIPS_AT_ONCE)  # type: ignore[no-untyped-call]
        mean = torch.stack([x[part].double().sum((0, 1)) for part in parts]).sum(0) / n
        squares = [(x[part].double() - mean).square().sum((0, 1)) for part in parts]
        std = (torch.stack(squares).sum(0) / max(n - 1, 1)).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-4, std, torch.ones_like(std)))

    def standardised(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors (..., D) in standard deviations from the mean of the training clips."""
        return ((x - self.mean) / self.std).clamp_(-FARTHEST, FARTHEST)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of being fake.

        Args:
            x: (B, L, D) float32.
            lengths: (B,) int64, how many steps of each sequence count; what follows is padding.

        Returns:
            (B,) float32.
        """
        return self.logits(self.standardised(x), lengths)

    def logits(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """As `forward`, of what is `standardised` already."""
        parts = x.split(self._parts, dim=-1)  # type: ignore[no-untyped-call]
        logits = [branch(part, lengths) for branch, part in zip(self.branches, parts, strict=True)]
        return torch.stack(logits).mean(0)


class _Branch(nn.Module):
    """From a sequence of vectors to a logit."""

    def __init__(self, dimension: int, settings: HeadSettings) -> None:
        super().__init__()
        self._pooling = "mean" if settings.kind == "mean" else settings.pooling
        if settings.kind == "mean":
            self.project: nn.Module = nn.Identity()
            self.time: nn.Module = _Nothing()
            width = dimension
        else:
            self.project = nn.Sequential(
                nn.Linear(dimension, settings.hidden), nn.GELU(), nn.Dropout(settings.dropout)
            )
            self.time = _TEMPORAL[settings.kind](settings)
            width = settings.hidden
            if settings.kind in ("lstm", "gru") and settings.bidirectional:
                width *= 2
        self.attend = nn.Linear(width, 1) if self._pooling == "attention" else None
        self.classify = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        inside = None  # (B, L) bool
        if lengths is not None:
            inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        steps, last = self.time(self.project(x), lengths, inside)  # (B, L, W), (B, W)
        if self._pooling == "last":
            pooled = last
        elif self.attend is not None:
            scores = self.attend(steps)  # (B, L, 1)
            if inside is not None:
                scores = scores.masked_fill(~inside[..., None], -torch.inf)
            pooled = (torch.softmax(scores, dim=1) * steps).sum(1)
        elif inside is None or lengths is None:
            pooled = steps.mean(1)
        else:
            pooled = (steps * inside[..., None]).sum(1) / lengths[:, None]
        return self.classify(pooled).squeeze(-1)  # type: ignore[no-any-return]


Steps = tuple[torch.Tensor, torch.Tensor]  # (B, L, W) of all steps, (B, W) of the last one


class _Nothing(nn.Module):
    def forward(self, x: torch.Tensor, lengths: object, inside: object) -> Steps:
        return x, x[:, -1]


class _Recurrent(nn.Module):
    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.cells = (nn.LSTM if settings.kind == "lstm" else nn.GRU)(
            settings.hidden,
            settings.hidden,
            settings.layers,
            batch_first=True,
            bidirectional=settings.bidirectional,
            dropout=settings.dropout if settings.layers > 1 else 0.0,
        )

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None, inside: object) -> Steps:
        if lengths is None:
            steps, state = self.cells(x)
        else:  # packed, so that the backward direction begins at the last step that counts
            packed = nn.utils.rnn.pack_padded_sequence(
                x, lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            steps, state = self.cells(packed)
            steps, _ = nn.utils.rnn.pad_packed_sequence(
                steps, batch_first=True, total_length=x.shape[1]
            )
        final = state[0] if isinstance(state, tuple) else state  # (layers * directions, B, H)
        directions = 2 if self.cells.bidirectional else 1
        return steps, final[-directions:].transpose(0, 1).flatten(1)


class _Convolutions(nn.Module):
    """Dilated convolutions over time, not causal: a clip is known whole.

    Bai, Kolter, Koltun, "An empirical evaluation of generic convolutional and recurrent networks
    for sequence modeling", 2018.
    """

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(settings.hidden) for _ in range(settings.layers))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(settings.hidden, settings.hidden, KERNEL, padding="same", dilation=2**n)
            for n in range(settings.layers)
        )
        self._dropout = settings.dropout

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None, inside: torch.Tensor | None
    ) -> Steps:
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = norm(x)
            if inside is not None:  # padding is zero, as beyond the end of a sequence
                y = y * inside[..., None]
            y = F.gelu(convolution(y.transpose(1, 2)).transpose(1, 2))
            x = x + F.dropout(y, self._dropout, self.training)
        return x, _last(x, lengths)


class _Transformer(nn.Module):
    """Vaswani et al., "Attention is all you need", 2017, with the norms first."""

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        width = settings.hidden
        layer = nn.TransformerEncoderLayer(
            width,
            ATTENTION_HEADS if width % ATTENTION_HEADS == 0 else 1,
            2 * width,
            settings.dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        layer.self_attn.dropout = 0.0  # on a CPU it takes longer than all else together
        self.layers = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None, inside: torch.Tensor | None
    ) -> Steps:
        x = x + _positions(x.shape[1], x.shape[2], x.device)
        x = self.layers(x, src_key_padding_mask=None if inside is None else ~inside)
        return x, _last(x, lengths)


def _positions(length: int, width: int, device: torch.device) -> torch.Tensor:
    """Sines and cosines of rising period, (L, W)."""
    step = torch.arange(length, device=device)[:, None]
    rate = 10_000 ** (-torch.arange(0, width, 2, device=device) / width)
    waves = torch.stack([(step * rate).sin(), (step * rate).cos()], dim=-1)  # (L, W / 2, 2)
    return waves.flatten(1)[:, :width]


def _last(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """The last step that counts, (B, W)."""
    if lengths is None:
        return x[:, -1]
    return x[torch.arange(len(x), device=x.device), lengths - 1]


_TEMPORAL: dict[HeadKind, type[nn.Module]] = {
    "lstm": _Recurrent,
    "gru": _Recurrent,
    "tcn": _Convolutions,
    "transformer": _Transformer,
}


class Ensemble(nn.Module):
    """The heads of all folds; their logits are averaged over heads and over windows of time.

    Args:
        heads: trained alike on different folds.
        window: L, the steps that they were trained on.
    """

    def __init__(self, heads: list[Head], window: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.window = window

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of being fake, (B,), of whole clips (B, T-1, D) float32."""
        return torch.stack([clip_logits(head, x, self.window) for head in self.heads]).mean(0)


def clip_logits(
    head: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    window: int,
    rows: torch.Tensor | None = None,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Average a head's logits over windows that cover a clip evenly.

    Args:
        head: from (B, L, D) to (B,).
        x: (N, T-1, D) float32.
        window: L; clips shorter than that are one window.
        rows: (B,) int64, which of the N; by default all.
        device: of the head; some clips at a time come there.

    Returns:
        (B,) on the device of the head.
    """
    length = x.shape[1]
    window = min(window, length)
    count = -(-length // window)
    starts = torch.linspace(0, length - window, count).round().long()
    steps = starts[:, None] + torch.arange(window)  # (count, L)
    parts = []
    everything = torch.arange(len(x)) if rows is None else rows
    for some in everything.split(CLIPS_AT_ONCE):  # type: ignore[no-untyped-call]
        windows = moments(x, some.repeat_interleave(count), steps.repeat(len(some), 1))
        parts.append(head(windows.to(device or x.device)).reshape(-1, count))
    return torch.cat(parts).mean(1)


def moments(x: torch.Tensor, rows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Some moments of some clips, copied whole, which is faster than indexing with two tensors.

    Args:
        x: (N, T-1, D).
        rows: (B,) int64, which of the N.
        steps: (B, L) int64, which moments of each.

    Returns:
        (B, L, D).
    """
    where = (rows[:, None] * x.shape[1] + steps).flatten().to(x.device)
    return x.flatten(0, 1).index_select(0, where).reshape(*steps.shape, -1)
