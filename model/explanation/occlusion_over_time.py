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
MIN_SPAN = 8  # rows, of clips that have as many
COPIES_AT_ONCE = 16  # of a clip; bounds the memory


@dataclass(frozen=True)
class Band:
    """Quantiles over moments of real videos, by heads and densities that did not see them.

    Attributes:
        quantiles: ascending, from 0 to 1.
        moments: `Explanation.moments` at these quantiles.
        anomaly: `Explanation.anomaly` at these quantiles.
    """

    quantiles: tuple[float, ...]
    moments: tuple[float, ...]
    anomaly: tuple[float, ...]

    def stranger_than(self, anomaly: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """Return the share of moments of real videos that are less unusual, to half a percent.

        Args:
            anomaly: `Explanation.anomaly`, (M,).

        Returns:
            (M,), NaN where the motion is unknown; None if that of all real videos is.
        """
        if np.isnan(self.anomaly).any():
            return None
        return np.interp(anomaly, self.anomaly, self.quantiles)


def span_length(length: int, crop_length: int) -> int:
    """Return the number of rows in the span around a moment.

    It is a quarter of the clip and at least 8, but no more than the heads were trained on.

    Args:
        length: L, rows of the clip.
        crop_length: steps of the temporal crops that the heads were trained on.
    """
    return min(length, crop_length, max(MIN_SPAN, round(SPAN_SHARE * length)))


def contributions(run: Run, x: torch.Tensor) -> Floats:
    """Return how much the log-odds of being fake fall if the span around a row is left out.

    To leave rows out, every number in them is set to its training mean.

    Args:
        run: a trained run.
        x: clip, (L, D) float32.

    Returns:
        (L,) calibrated log-odds.
    """
    crop_length = run.ensemble.crop_length
    rows, span = torch.arange(len(x)), span_length(len(x), crop_length)
    starts = _starts(len(x), span)
    masks = (rows < starts[:, None]) | (rows >= starts[:, None] + span)  # (L, L)
    masks = torch.cat(
        [masks, torch.ones(1, len(x), dtype=torch.bool)]
    )  # the last is the whole clip

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
    """Return the probability of being fake of the span around each row by itself.

    Args:
        logits: function from (B, L', D) to (B,): a head or an ensemble.
        x: clip, (L, D) float32.
        crop_length: steps of the temporal crops that the heads were trained on.
        temperature: divisor that calibrates logits.

    Returns:
        (L,).
    """
    span = span_length(len(x), crop_length)
    starts, span_of_row = torch.unique(_starts(len(x), span), return_inverse=True)
    steps = starts[:, None] + torch.arange(span)
    with torch.inference_mode():
        batches = steps.split(COPIES_AT_ONCE)  # type: ignore[no-untyped-call]
        values = torch.cat([logits(x[batch]) for batch in batches])
    return expit(values[span_of_row].double().numpy() / temperature)  # type: ignore[no-any-return]


def by_moment(values: Floats, rows: Rows, n: int) -> Floats:
    """Assign values of a clip's rows to the n moments that the rows are about.

    A moment of several rows gets their mean, and one without a row the value of the nearest row.

    Args:
        values: (L,).
        rows: first and last moment of each row, (L, 2).
        n: number of moments.

    Returns:
        (n,).
    """
    moments = np.arange(n)
    about = (rows[:, :1] <= moments) & (moments <= rows[:, 1:])  # (L, n)
    distances = np.abs(rows.mean(1)[:, None] - moments)
    about |= ~about.any(0) & (distances == distances.min(0))
    return values @ about / about.sum(0)  # type: ignore[no-any-return]


def fit_band(
    run: Run,
    training: Sequences,
    folds: Sequence[Fold],
    motion: Sequence[npt.NDArray[Any]],
    anomaly: Anomaly,
) -> Band:
    """Compute the band of moments of real training videos, each by the fold that did not see it.

    Args:
        run: the run that the folds make up.
        training: N clips.
        folds: F heads, each with the rows that it was validated on.
        motion: motion descriptors of the N clips, (T-1, K) each.
        anomaly: densities of the same folds.
    """
    crop_length, temperature = run.ensemble.crop_length, run.config.temperature
    moments, distances = [], []
    for n_fold, fold in enumerate(folds):
        density = replace(anomaly, moments=anomaly.moments[n_fold : n_fold + 1])
        for n in fold.val[training.labels[fold.val] == 0]:
            x = training.x[n].clone()  # copied out of a file that may be mapped
            moments.append(span_probabilities(fold.head, x, crop_length, temperature))
            distances.append(density.by_moment(motion[n]))
    return Band(QUANTILES, _quantiles(moments), _quantiles(distances))


def save_band(folder: Path, band: Band) -> None:
    """Write ``band.json`` into the folder of a run."""
    text = json.dumps(asdict(band), indent=1)
    write_whole(folder / BAND, lambda path: path.write_text(text + "\n"))


def load_band(folder: Path) -> Band:
    """Return what `save_band` wrote into the folder of a run.

    Raises:
        IntegrityError: the file is missing or damaged.
    """
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
    """Return the first row of the span around each row, (L,); spans stay within the clip."""
    return (torch.arange(length) - span // 2).clamp(0, length - span)


def _quantiles(of_clips: list[Floats]) -> tuple[float, ...]:
    return tuple(np.nanquantile(np.concatenate(of_clips), QUANTILES).tolist())
