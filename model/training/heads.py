"""Temporal models trained over frozen embeddings."""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from model.settings import HeadKind, HeadSettings, Pooling
from model.training.over_time import OVER_TIME, over_time

MAX_DEVIATION = 10.0  # standard deviations; features beyond are clipped
MIN_STD = 1e-4  # a feature that varies less in training is not scaled
CLIPS_AT_ONCE = 64  # bounds the memory of an evaluation
KERNEL_SIZE = 3  # steps of a temporal convolution
ATTENTION_HEADS = 4


class Head(nn.Module):
    """Standardisation, temporal model, pooling and one logit.

    Only a ``trajectory`` may be undefined (NaN) at some steps: they are at the mean of the training
    clips, and the statistics head leaves them out. Elsewhere NaN makes the logit NaN.

    Args:
        widths: stream → number of its features, in the order of the input.
        settings: architecture.

    Example:
        >>> head = Head({"flow": 512, "motion": 13}, HeadSettings("gru", hidden=16))
        >>> head(torch.zeros(2, 32, 525)).shape
        torch.Size([2])
    """

    mean: torch.Tensor  # (D,) of the training clips
    std: torch.Tensor  # (D,)
    has_gaps: torch.Tensor  # (D,) bool, columns that may be undefined

    def __init__(self, widths: Mapping[str, int], settings: HeadSettings) -> None:
        super().__init__()
        dimension = sum(widths.values())
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("std", torch.ones(dimension))
        gaps = [torch.full((w,), stream == "trajectory") for stream, w in widths.items()]
        self.register_buffer("has_gaps", torch.cat(gaps), persistent=False)
        self._is_linear = settings.head == "statistics"
        late = settings.fusion == "late" and not self._is_linear
        self._split_widths = list(widths.values()) if late else [dimension]
        self.branches = nn.ModuleList(
            LinearBranch(width) if self._is_linear else _Branch(width, settings)
            for width in self._split_widths
        )

    def standardise_by(self, x: torch.Tensor, rows: torch.Tensor) -> None:
        """Learn mean and deviation of each feature from the clips ``rows`` of x, (N, L, D)."""
        parts = rows.split(CLIPS_AT_ONCE)  # type: ignore[no-untyped-call]
        n = torch.full_like(self.mean, len(rows) * x.shape[1], dtype=torch.float64)

        def without_gaps(values: torch.Tensor) -> torch.Tensor:
            return values.masked_fill_(self._gaps_of(values), 0)

        sums = []
        for part in parts:
            n -= self._gaps_of(x[part]).sum((0, 1))
            sums.append(without_gaps(x[part].double()).sum((0, 1)))
        mean = torch.stack(sums).sum(0) / n.clamp(min=1)
        squares = [without_gaps((x[part].double() - mean).square()).sum((0, 1)) for part in parts]
        std = (torch.stack(squares).sum(0) / (n - 1).clamp(min=1)).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(usable(std))

    def standardised(self, x: torch.Tensor) -> torch.Tensor:
        """Return vectors (..., D) in standard deviations from the mean of the training clips."""
        z = (x - self.mean) / self.std
        if self._is_linear:  # which clips its statistics, and leaves out what is undefined
            return z
        z.clamp_(-MAX_DEVIATION, MAX_DEVIATION)
        return z.masked_fill_(self._gaps_of(z), 0) if self.has_gaps.any() else z

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of being fake, (B,) float32, of sequences (B, L, D) float32."""
        return self.logits(self.standardised(x))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same as `forward`, from input that is already standardised."""
        parts = x.split(self._split_widths, dim=-1)  # type: ignore[no-untyped-call]
        logits = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        return torch.stack(logits).mean(0).masked_fill(self.lacks_numbers(x), torch.nan)

    def _gaps_of(self, x: torch.Tensor) -> torch.Tensor:
        return x.isnan() & self.has_gaps

    def lacks_numbers(self, x: torch.Tensor) -> torch.Tensor:
        """Check which sequences (B, L, D) have NaN where none may be, (B,) bool."""
        return (x.isnan() & ~self.has_gaps).any(2).any(1)


def usable(std: torch.Tensor) -> torch.Tensor:
    """Return deviations to divide by: 1 for a number that hardly varied in training."""
    return torch.where(std > MIN_STD, std, torch.ones_like(std))


class LinearBranch(nn.Module):
    """A linear model over standardised statistics over time, in float64.

    Its contributions to a logit then add up; see `model.explanation.exact_split`.
    """

    mean: torch.Tensor  # (5, D) of the statistics of the training clips
    std: torch.Tensor  # (5, D)

    def __init__(self, dimension: int) -> None:
        super().__init__()
        shape = len(OVER_TIME), dimension
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("std", torch.ones(shape, dtype=torch.float64))
        self.classify = nn.Linear(len(OVER_TIME) * dimension, 1, dtype=torch.float64)

    def standardise_by(self, statistics: torch.Tensor) -> None:
        """Learn mean and deviation of statistics (n, 5, D), of which some may be undefined."""
        n = (~statistics.isnan()).sum(0)
        self.mean.copy_(statistics.nansum(0) / n.clamp(min=1))
        squares = (statistics - self.mean).square().nansum(0)
        self.std.copy_(usable((squares / (n - 1).clamp(min=1)).sqrt()))

    def standardised(self, statistics: torch.Tensor) -> torch.Tensor:
        """Return statistics (..., 5, D) in deviations from the mean; undefined ones are at it."""
        z = (statistics - self.mean) / self.std
        return z.clamp(-MAX_DEVIATION, MAX_DEVIATION).nan_to_num(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B,) float64 of sequences (B, L, D)."""
        z = self.standardised(over_time(x.double()))
        return self.classify(z.flatten(1)).squeeze(-1)  # type: ignore[no-any-return]


class _Branch(nn.Module):
    def __init__(self, dimension: int, settings: HeadSettings) -> None:
        super().__init__()
        if settings.head == "mean":
            self._pooling: Pooling = "mean"
            self.project: nn.Module = nn.Identity()
            self.time: nn.Module = nn.Identity()
            width = dimension
        else:
            self._pooling = settings.pooling
            self.project = nn.Sequential(
                nn.Linear(dimension, settings.hidden), nn.GELU(), nn.Dropout(settings.dropout)
            )
            self.time = _TEMPORAL[settings.head](settings)
            width = settings.hidden
        self._backward_width = 0
        if settings.head in ("lstm", "gru") and settings.bidirectional:
            self._backward_width = settings.hidden
            width *= 2
        self.attend = nn.Linear(width, 1) if self._pooling == "attention" else None
        if self._pooling == "statistics":
            width *= len(OVER_TIME)
        self.classify = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = self.time(self.project(x))  # (B, L, W)
        if self._pooling == "last":  # for the backward direction that is the first step
            forward_width = steps.shape[2] - self._backward_width
            pooled = torch.cat([steps[:, -1, :forward_width], steps[:, 0, forward_width:]], dim=1)
        elif self.attend is not None:
            weights = torch.softmax(self.attend(steps), dim=1)  # (B, L, 1)
            pooled = (weights * steps).sum(1)
        elif self._pooling == "statistics":
            pooled = over_time(steps.float()).nan_to_num(0).flatten(1)  # one step has no change
        else:
            pooled = steps.mean(1)
        return self.classify(pooled).squeeze(-1)  # type: ignore[no-any-return]


class _Recurrent(nn.Module):
    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.cells = (nn.LSTM if settings.head == "lstm" else nn.GRU)(
            settings.hidden,
            settings.hidden,
            settings.layers,
            batch_first=True,
            bidirectional=settings.bidirectional,
            dropout=settings.dropout if settings.layers > 1 else 0.0,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cells(x)[0]  # type: ignore[no-any-return]


class _Convolutions(nn.Module):
    """Dilated convolutions over time; not causal, because a clip is complete.

    Bai, Kolter, Koltun, "An empirical evaluation of generic convolutional and recurrent networks
    for sequence modeling", 2018.
    """

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(settings.hidden) for _ in range(settings.layers))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(settings.hidden, settings.hidden, KERNEL_SIZE, padding="same", dilation=2**n)
            for n in range(settings.layers)
        )
        self._dropout = settings.dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = F.gelu(convolution(norm(x).transpose(1, 2)).transpose(1, 2))
            x = x + F.dropout(y, self._dropout, self.training)
        return x


class _Transformer(nn.Module):
    """Transformer encoder with layer norms first.

    Vaswani et al., "Attention is all you need", 2017.
    """

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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + _positional_encoding(x.shape[1], x.shape[2], x.device)
        return self.layers(x)  # type: ignore[no-any-return]


def _positional_encoding(length: int, width: int, device: torch.device) -> torch.Tensor:
    """Sines and cosines of increasing period, (L, W)."""
    step = torch.arange(length, device=device)[:, None]
    rate = 10_000 ** (-torch.arange(0, width, 2, device=device) / width)
    waves = torch.stack([(step * rate).sin(), (step * rate).cos()], dim=-1)  # (L, W / 2, 2)
    return waves.flatten(1)[:, :width]


_TEMPORAL: dict[HeadKind, type[nn.Module]] = {
    "lstm": _Recurrent,
    "gru": _Recurrent,
    "tcn": _Convolutions,
    "transformer": _Transformer,
}


class Ensemble(nn.Module):
    """Heads of all folds; their logits are averaged over heads and temporal crops."""

    def __init__(self, heads: list[Head], crop_length: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.crop_length = crop_length

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of being fake, (B,) float32, of whole clips (B, T-1, D) float32."""
        return torch.stack([clip_logits(head, x, self.crop_length) for head in self.heads]).mean(0)


def clip_logits(
    head: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    crop_length: int,
    rows: torch.Tensor | None = None,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Average a head's logits over temporal crops that cover each clip evenly.

    Crops of ``crop_length`` steps, or all of a shorter clip, are copied to ``device``. ``rows`` are
    the clips to score, by default all of x, (N, T-1, D) float32.
    """
    steps = covering_crops(x.shape[1], crop_length)
    count = len(steps)
    logits = []
    rows = torch.arange(len(x)) if rows is None else rows
    for batch in rows.split(CLIPS_AT_ONCE):  # type: ignore[no-untyped-call]
        crops = take_crops(x, batch.repeat_interleave(count), steps.repeat(len(batch), 1))
        logits.append(head(crops.to(device or x.device)).reshape(-1, count))
    return torch.cat(logits).mean(1)


def covering_crops(length: int, crop_length: int) -> torch.Tensor:
    """Return the steps of the fewest crops that cover a clip, evenly spread: (count, L)."""
    crop_length = min(crop_length, length)
    starts = torch.linspace(0, length - crop_length, -(-length // crop_length)).round().long()
    return starts[:, None] + torch.arange(crop_length)


def take_crops(x: torch.Tensor, rows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Copy steps (B, L) of the clips ``rows`` (B,) of x (N, T-1, D) to (B, L, D).

    One flat index is faster than two tensors.
    """
    index = (rows[:, None] * x.shape[1] + steps).flatten().to(x.device)
    return x.flatten(0, 1).index_select(0, index).reshape(*steps.shape, -1)
