"""When a verdict comes from: stretches of a clip left out, and stretches by themselves."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from model.explanation.anomaly import Anomaly
from model.explanation.explanation import Band
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
SHARE = 0.25  # of a clip that a stretch around a moment takes
SHORTEST = 8  # rows in a stretch, of clips that have as many
COPIES = 16  # of a clip at once: bounds the memory


def stretch(length: int, window: int) -> int:
    """How many rows of a clip a stretch around a moment has.

    A quarter of the clip and at least 8, but no more than the steps that the heads were trained on.

    Args:
        length: L, of the clip.
        window: the steps that the heads were trained on.
    """
    return min(length, window, max(SHORTEST, round(SHARE * length)))


def contributions(run: Run, x: torch.Tensor) -> Floats:
    """By how much the log-odds of being fake fall if the stretch around a row is left out.

    Every number of these rows is set to its training mean.

    Args:
        run: a trained run.
        x: (L, D) float32, the clip.

    Returns:
        (L,) calibrated log-odds.
    """
    rows, length = torch.arange(len(x)), stretch(len(x), run.ensemble.window)
    starts = _starts(len(x), length)
    kept = (rows < starts[:, None]) | (rows >= starts[:, None] + length)  # (L, L)

    def logits(head: Head, kept: torch.Tensor) -> torch.Tensor:
        z = head.standardised(x) * kept[..., None]  # (n, L, D)
        return clip_logits(head.logits, z, run.ensemble.window)

    everything = torch.ones(1, len(x), dtype=torch.bool)
    found = torch.zeros(len(x) + 1, dtype=torch.float64)
    with torch.inference_mode():
        for head in run.ensemble.heads:
            assert isinstance(head, Head)
            parts = torch.cat([kept, everything]).split(COPIES)  # type: ignore[no-untyped-call]
            found += torch.cat([logits(head, part) for part in parts]).double()
    *without, whole = (found / len(run.ensemble.heads) / run.config.temperature).tolist()
    return whole - np.array(without)


def probabilities(
    logits: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, window: int, temperature: float
) -> Floats:
    """The probability of being fake that the stretch around each row has by itself.

    Args:
        logits: a head, or several: from (B, L', D) to (B,).
        x: (L, D) float32, the clip.
        window: the steps that the heads were trained on.
        temperature: that makes probabilities of logits.

    Returns:
        (L,).
    """
    length = stretch(len(x), window)
    starts, places = torch.unique(_starts(len(x), length), return_inverse=True)
    steps = starts[:, None] + torch.arange(length)
    with torch.inference_mode():
        found = torch.cat([logits(x[some]) for some in steps.split(COPIES)])  # type: ignore[no-untyped-call]
    return expit(found[places].double().numpy() / temperature)  # type: ignore[no-any-return]


def moments_of(run: Run, x: torch.Tensor) -> Floats:
    """(L,) `probabilities` of a clip, (L, D) float32, by all heads of a run."""

    def mean(windows: torch.Tensor) -> torch.Tensor:
        return torch.stack([head(windows) for head in run.ensemble.heads]).mean(0)

    return probabilities(mean, x, run.ensemble.window, run.config.temperature)


def by_moment(values: Floats, rows: Rows, n: int) -> Floats:
    """From the rows of a clip to the n moments that they are about: (n,).

    Args:
        values: (L,).
        rows: (L, 2), the first and the last moment of each.
        n: moments. One that several rows are about gets their mean; one that none is about gets
            what the nearest row has.
    """
    moments = np.arange(n)
    about = (rows[:, :1] <= moments) & (moments <= rows[:, 1:])  # (L, n)
    away = np.abs(rows.mean(1)[:, None] - moments)
    about |= ~about.any(0) & (away == away.min(0))
    return values @ about / about.sum(0)  # type: ignore[no-any-return]


def fit_band(
    run: Run,
    training: Sequences,
    folds: Sequence[Fold],
    motion: Sequence[npt.NDArray[Any]],
    anomaly: Anomaly,
) -> Band:
    """What moments of real training videos look like, to the fold that did not learn from them.

    Args:
        run: what came of the folds.
        training: N clips.
        folds: F heads, and whom each was validated on.
        motion: N times (T-1, K) descriptors.
        anomaly: of the same folds.
    """
    window, temperature = run.ensemble.window, run.config.temperature
    moments, strange = [], []
    for n_fold, fold in enumerate(folds):
        density = replace(anomaly, moments=anomaly.moments[n_fold : n_fold + 1])
        for n in fold.val[training.labels[fold.val] == 0]:
            x = training.x[n].clone()  # out of a file, where it lies in one
            moments.append(probabilities(fold.head, x, window, temperature))
            strange.append(density.by_moment(motion[n]))
    return Band(QUANTILES, _quantiles(moments), _quantiles(strange))


def save_band(folder: Path, band: Band) -> None:
    """Write ``band.json`` into the folder of a run."""
    text = json.dumps(asdict(band), indent=1)
    write_whole(folder / BAND, lambda path: path.write_text(text + "\n"))


def load_band(folder: Path) -> Band | None:
    """What `save_band` wrote; None if the run has none, as of earlier versions.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = folder / BAND
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text())
        band = Band(**{key: tuple(map(float, values)) for key, values in held.items()})
        if not len(band.quantiles) == len(band.moments) == len(band.anomaly) > 0:
            raise ValueError("its columns differ in length")
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise IntegrityError(f"{path} is damaged: {error}", "fit the run again") from error
    return band


def _starts(length: int, stretch: int) -> torch.Tensor:
    """(L,) where the stretch around each row begins; at the ends of a clip it lies within it."""
    return (torch.arange(length) - stretch // 2).clamp(0, length - stretch)


def _quantiles(of_clips: list[Floats]) -> tuple[float, ...]:
    return tuple(np.nanquantile(np.concatenate(of_clips), QUANTILES).tolist())
