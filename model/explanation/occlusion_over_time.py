"""When a verdict comes from: spans of a clip around a moment, left out and by themselves."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from model.explanation.anomaly import Anomaly
from model.run.run import Run
from model.training.heads import Head, clip_logits
from model.training.sequences import Sequences
from model.training.train import Fold
from pipeline.common.errors import IntegrityError
from pipeline.common.files import write_whole

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

BAND = "band.json"
QUANTILES = tuple(n / 200 for n in range(201))
SPAN_SHARE = 0.25  # of a clip's rows
MIN_SPAN = 8  # rows
COPIES_AT_ONCE = 16  # of a clip; bounds the memory


@dataclass(frozen=True)
class Band:
    """Quantiles over moments of real videos, by heads and densities that did not see them."""

    quantiles: tuple[float, ...]  # ascending, from 0 to 1
    moments: tuple[float, ...]  # `Explanation.moments` at these quantiles
    anomaly: tuple[float, ...]  # `Explanation.anomaly` at these quantiles

    def stranger_than(self, anomaly: Floats) -> Floats | None:
        """Return the share of moments of real videos that are less unusual, to half a percent.

        (M,) to (M,), NaN where the motion is unknown; None if that of all real videos is.
        """
        if np.isnan(self.anomaly).any():
            return None
        return np.interp(anomaly, self.anomaly, self.quantiles)


def span_length(length: int, crop_length: int) -> int:
    """Return the rows of the span around a moment: no more than heads were trained on."""
    return min(length, crop_length, max(MIN_SPAN, round(SPAN_SHARE * length)))


def contributions(run: Run, x: torch.Tensor) -> Floats:
    """Return the fall of calibrated log-odds without the span around a row: (L, D) to (L,).

    Numbers in rows left out are set to their training means.
    """
    crop_length = run.ensemble.crop_length
    rows, span = torch.arange(len(x)), span_length(len(x), crop_length)
    starts = _starts(len(x), span)
    masks = (rows < starts[:, None]) | (rows >= starts[:, None] + span)  # (L, L)
    masks = torch.cat([masks, torch.ones_like(masks[:1])])  # the last is the whole clip

    def logits(head: Head, mask: torch.Tensor) -> torch.Tensor:
        z = head.standardised(x) * mask[..., None]  # (n, L, D)
        return clip_logits(head.logits, z, crop_length)

    total = torch.zeros(len(x) + 1, dtype=torch.float64)
    with torch.inference_mode():
        for head in run.ensemble.heads:
            assert isinstance(head, Head)
            batches = masks.split(COPIES_AT_ONCE)  # type: ignore[no-untyped-call]
            total += torch.cat([logits(head, batch) for batch in batches]).double()
    *without, whole = (total / len(run.ensemble.heads) / run.config.temperature).tolist()
    return whole - np.array(without)


def span_probabilities(
    logits: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    crop_length: int,
    temperature: float,
) -> Floats:
    """Return the probability of the span around each row by itself: (L, D) to (L,).

    ``logits`` is a head or an ensemble: (B, L', D) to (B,).
    """
    span = span_length(len(x), crop_length)
    starts, span_of_row = torch.unique(_starts(len(x), span), return_inverse=True)
    steps = starts[:, None] + torch.arange(span)
    with torch.inference_mode():
        batches = steps.split(COPIES_AT_ONCE)  # type: ignore[no-untyped-call]
        values = torch.cat([logits(x[batch]) for batch in batches])
    return expit(values[span_of_row].double().numpy() / temperature)  # type: ignore[no-any-return]


def by_moment(values: Floats, rows: Rows, n: int) -> Floats:
    """Assign values of a clip's rows, (L,), to n moments, given first and last of each row, (L, 2).

    A moment of several rows gets their mean, and one without a row the value of the nearest row.
    """
    moments = np.arange(n)
    about = (rows[:, :1] <= moments) & (moments <= rows[:, 1:])  # (L, n)
    distances = np.abs(rows.mean(1)[:, None] - moments)
    about |= ~about.any(0) & (distances == distances.min(0))
    return values @ about / about.sum(0)  # type: ignore[no-any-return]


def shared_out(values: Floats, rows: Rows, n: int) -> Floats:
    """Divide values of a clip's rows, (L,), equally among the moments that each is about, (n,)."""
    moments = np.arange(n)
    about = (rows[:, :1] <= moments) & (moments <= rows[:, 1:])  # (L, n)
    return values @ (about / about.sum(1, keepdims=True))  # type: ignore[no-any-return]


def fit_band(
    run: Run,
    training: Sequences,
    folds: Sequence[Fold],
    motion: Sequence[npt.NDArray[Any]],
    anomaly: Anomaly,
) -> Band:
    """Compute the band of moments of real training videos, each by the fold that did not see it."""
    crop_length, temperature = run.ensemble.crop_length, run.config.temperature
    moments = []
    for fold in folds:
        for n in fold.val[training.labels[fold.val] == 0]:
            x = training.x[n].clone()  # copied out of a file that may be mapped
            moments.append(span_probabilities(fold.head, x, crop_length, temperature))
    of_motion = band_without_heads(training, [fold.val for fold in folds], motion, anomaly)
    return replace(of_motion, moments=_quantiles(moments))


def band_without_heads(
    training: Sequences,
    validation: Sequence[Rows],
    motion: Sequence[npt.NDArray[Any]],
    anomaly: Anomaly,
) -> Band:
    """Compute the band of motion alone, given the validation clips of each fold."""
    distances = []
    for n_fold, val in enumerate(validation):
        density = replace(anomaly, moments=anomaly.moments[n_fold : n_fold + 1])
        distances += [density.by_moment(motion[n]) for n in val[training.labels[val] == 0]]
    return Band(QUANTILES, (np.nan,) * len(QUANTILES), _quantiles(distances))


def save_band(folder: Path, band: Band) -> None:
    """Write ``band.json`` into the folder of a run."""
    text = json.dumps(asdict(band), indent=1)
    write_whole(folder / BAND, lambda path: path.write_text(text + "\n"))


def load_band(folder: Path) -> Band:
    """Read what `save_band` wrote; raise `IntegrityError` if it is damaged."""
    path = folder / BAND
    try:
        content = json.loads(path.read_text())
        band = Band(**{key: tuple(map(float, values)) for key, values in content.items()})
        if not len(band.quantiles) == len(band.moments) == len(band.anomaly) > 0:
            raise ValueError("its columns differ in length")
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise IntegrityError(f"{path} is damaged: {error}", "fit the run again") from error
    return band


def _starts(length: int, span: int) -> torch.Tensor:
    """Return the first row of each span, (L,); spans stay within the clip."""
    return (torch.arange(length) - span // 2).clamp(0, length - span)


def _quantiles(of_clips: list[Floats]) -> tuple[float, ...]:
    return tuple(np.nanquantile(np.concatenate(of_clips), QUANTILES).tolist())
