"""From clips to videos: one probability per video, and the file that lists them."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from model.run.run import Run
from model.training.sequences import Sequences, load_sequences
from pipeline.cache import Cache, Clip
from pipeline.common.csv_files import write_csv

PREDICTIONS = "predictions.csv"
HEADER = ("id", "split", "label", "probability", "status")
OK = "ok"  # status of a video with a probability
UNSEEN = ("test", "holdout")


def by_video(
    clips: Sequence[Clip], logits: npt.NDArray[np.float64]
) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Average the logits of the clips of each video.

    Args:
        clips: N rows of an index.
        logits: (N,), NaN for a clip without one.

    Returns:
        V ids, (V,) labels and (V,) logits, NaN for a video none of whose clips has one.
    """
    of_video: dict[str, list[int]] = {}
    for n, clip in enumerate(clips):
        of_video.setdefault(clip.video, []).append(n)
    labels = np.array([clips[rows[0]].label for rows in of_video.values()], np.int64)
    known = [[logits[n] for n in rows if not np.isnan(logits[n])] for rows in of_video.values()]
    means = np.array([np.mean(values) if values else np.nan for values in known])
    return list(of_video), labels, means


def score_videos(
    run: Run, data: Sequences
) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """V ids, (V,) labels and (V,) probabilities of being fake, from the run's model."""
    with torch.inference_mode():
        logits = run.ensemble(data.x).double().numpy()
    ids, labels, logits = by_video(data.clips, logits)
    return ids, labels, run.probabilities(logits)


def write_predictions(run: Run, cache: Cache, out_of_fold: Mapping[str, float]) -> None:
    """Write one row per video of the cache.

    Training videos get the probability from the heads that did not train on them; all others
    that of the whole model. A video without a probability says why.
    """
    probability = dict(out_of_fold)
    if any(clip.split in UNSEEN for clip in cache.clips):
        ids, _, unseen = score_videos(run, load_sequences(cache, run.config.streams, UNSEEN))
        probability |= dict(zip(ids, unseen, strict=True))
    rows, listed = [], set()
    for clip in cache.clips:
        if clip.video in listed:
            continue
        listed.add(clip.video)
        value = probability.get(clip.video, np.nan)
        status = OK
        if not clip.split:
            status = "dropped from the split"
        elif np.isnan(value):
            status = "no number came out" if clip.split in UNSEEN else "in no validation fold"
        shown = "" if np.isnan(value) else repr(float(value))
        rows.append([clip.video, clip.split, clip.label, shown, status])
    write_csv(run.folder / PREDICTIONS, HEADER, rows)
