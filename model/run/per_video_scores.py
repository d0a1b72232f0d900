"""One probability per video, from the logits of its clips, and ``predictions.csv``."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from model.run.run import Run
from model.training.sequences import Sequences, load_sequences
from pipeline.cache import Cache, Clip
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import NothingUsable

PREDICTIONS = "predictions.csv"
HEADER = ("id", "split", "label", "probability", "status")
OK = "ok"  # status of a video with a probability
UNSEEN = ("test", "holdout")  # splits that training never reads


def unseen_splits(cache: Cache) -> list[str]:
    """Return those of the splits test and holdout that have videos; at least one must."""
    splits = [split for split in UNSEEN if any(clip.split == split for clip in cache.clips)]
    if not splits:
        raise NothingUsable(
            f"{cache.folder} has neither a test split nor a holdout",
            "extract with --test 0.2, or with more identities",
        )
    return splits


def by_video(
    clips: Sequence[Clip], logits: npt.NDArray[np.float64]
) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Average the logits of the clips of each video.

    Returns ids, labels (V,) int64, and logits (V,) float64, NaN if no clip has one.
    """
    labels: dict[str, int] = {}
    values: dict[str, list[float]] = {}
    for clip, logit in zip(clips, logits, strict=True):
        labels[clip.video] = clip.label
        values.setdefault(clip.video, [])
        if not np.isnan(logit):
            values[clip.video].append(logit)
    means = [np.mean(some) if some else np.nan for some in values.values()]
    return list(labels), np.array(list(labels.values()), np.int64), np.array(means)


def score_videos(
    run: Run, data: Sequences
) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return V video ids, labels (V,) int64 and probabilities of being fake (V,) float64."""
    with torch.inference_mode():
        logits = run.ensemble(data.x).double().numpy()
    ids, labels, logits = by_video(data.clips, logits)
    return ids, labels, run.probabilities(logits)


def write_predictions(run: Run, cache: Cache, out_of_fold: Mapping[str, float]) -> None:
    """Write ``predictions.csv``, one row per video of the cache that a run was trained on.

    Training videos have the probabilities ``out_of_fold``, others that of the whole ensemble.
    """
    probabilities = dict(out_of_fold)
    if any(clip.split in UNSEEN for clip in cache.clips):
        ids, _, unseen = score_videos(run, load_sequences(cache, run.config.streams, UNSEEN))
        probabilities |= dict(zip(ids, unseen, strict=True))
    rows = []
    for video, clip in {clip.video: clip for clip in cache.clips}.items():
        probability = float(probabilities.get(video, np.nan))
        if not np.isnan(probability):
            status = OK
        elif not clip.split:
            status = "dropped from the split"
        else:
            status = "no number came out" if clip.split in UNSEEN else "in no validation fold"
        text = repr(probability) if status == OK else ""
        rows.append([video, clip.split, clip.label, text, status])
    write_csv(run.folder / PREDICTIONS, HEADER, rows)
