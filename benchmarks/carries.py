"""What carries over to people and sources that training did not see?

Run ``python -m benchmarks.carries NAME=EMBEDDINGS...`` with embeddings of flow and frames, a cache
for each corpus. Corpora of `MIN_SOURCES` sources are tested on one source after the other, others
on folds of identities, and the scores of all their videos are pooled. For streams and heads it
prints the AUC, with a 95% interval over groups of linked videos if there are enough of them; the
share of fakes that score above their original; and the share of fakes found at 5% false alarms. All
are means over seeds of folds and training.
"""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

from model.explanation.anomaly import read_motion
from model.explanation.unusual import fit_unusual
from model.fitting import training_folds
from model.run.per_video_scores import by_video
from model.settings import TrainingSettings
from model.statistics.metrics import auc_roc, threshold_at_fpr, with_intervals
from model.training.sequences import load_sequences, trajectory_columns
from model.training.train import cross_fit
from pipeline.cache import Cache
from pipeline.splits.partition import groups
from pipeline.splits.protocols import Splitting, split_clips

SEEDS = 5
MIN_SOURCES = 3
TEST_FOLDS = 4
TRAINING_FOLDS = 3  # the default of model.fit
MAX_FALSE_ALARMS = 0.05

OF_TRAJECTORY = TrainingSettings(streams=("trajectory",), head="statistics")
ROWS = (  # label, settings, and the only columns of trajectories that are used, if not all
    ("trajectory: statistics (default)", OF_TRAJECTORY, ""),
    ("trajectory of frames alone: statistics", OF_TRAJECTORY, "frames"),
    ("trajectory of flow alone: statistics", OF_TRAJECTORY, "flow"),
    (
        "trajectory and motion: statistics",
        TrainingSettings(streams=("trajectory", "motion"), head="statistics"),
        "",
    ),
    ("trajectory: LSTM", TrainingSettings(streams=("trajectory",), head="lstm"), ""),
    (
        "trajectory: LSTM, pooled by statistics",
        TrainingSettings(streams=("trajectory",), head="lstm", pooling="statistics"),
        "",
    ),
    ("flow: statistics", TrainingSettings(streams=("flow",), head="statistics"), ""),
    (
        "flow and motion: LSTM (former default)",
        TrainingSettings(streams=("flow", "motion"), head="lstm"),
        "",
    ),
    ("flow and frames: mean", TrainingSettings(streams=("flow", "frames"), head="mean"), ""),
)
UNTRAINED = {"trajectory": "density of trajectories", "stall": "STALL", "d3": "D3"}


def main():
    torch.set_num_threads(1)
    corpora = dict(argument.split("=", 1) for argument in sys.argv[1:])
    for name, folder in corpora.items():
        print(f"{name}: {described(Cache(Path(folder), 'embed'))}")
    print("AUC / fakes above their original / fakes found at 5% false alarms")
    print("| | " + " | ".join(corpora) + " |", flush=True)
    for score in (*(partial(scores_of_head, *row) for row in ROWS), scores_without_fakes):
        of_corpora = [results(folder, score) for folder in corpora.values()]
        for label in of_corpora[0]:
            cells = [" / ".join(map(text, one[label].values())) for one in of_corpora]
            print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def described(cache):
    labels = [clip.label for clip in cache.clips]
    linked = groups([clip.group_keys for clip in cache.clips])
    tests = ", ".join(splits(cache))
    return (
        f"{labels.count(0)} real and {labels.count(1)} fake clips of {cache.attrs['frames']} "
        f"frames, {linked.max() + 1} groups of linked videos, tested by {tests}"
    )


def splits(cache):
    """Return the protocols that together test every video of a corpus."""
    sources = sorted({clip.source for clip in cache.clips})
    if len(sources) >= MIN_SOURCES:
        return [f"test-on:{source}" for source in sources]
    return [f"fold:{fold}/{TEST_FOLDS}" for fold in range(1, TEST_FOLDS + 1)]


def results(folder, score):
    """Return label → metrics of the scores that ``score`` gives the test videos of each split."""
    cache = Cache(Path(folder), "embed")
    clips = list(cache.clips)
    videos = list({clip.video: clip for clip in clips}.values())
    found = {}  # label → scores of the videos in each seed
    for seed in range(SEEDS):
        for by in splits(cache):
            cache.clips = split_clips(clips, Splitting(by=by, holdout=0, seed=seed))
            for label, scores in score(cache, seed).items():
                found.setdefault(label, [{} for _ in range(SEEDS)])[seed].update(scores)
    linked = groups([video.group_keys for video in videos])
    return {label: metrics(videos, scores, linked) for label, scores in found.items()}


def scores_of_head(label, settings, only, cache, seed):
    """Train on the training split and return label → video → logit of the test split."""
    training, test = (
        with_columns(load_sequences(cache, settings.streams, [split]), cache, only)
        for split in ("train", "test")
    )
    folds = training_folds(training, TRAINING_FOLDS, seed)
    ensemble = cross_fit(training, folds, settings, seed=seed).ensemble
    with torch.inference_mode():
        ids, _, logits = by_video(test.clips, ensemble(test.x).double().numpy())
    return {label: dict(zip(ids, logits, strict=True))}


def with_columns(data, cache, only):
    """Return trajectories with the columns of one stream only, if one is named."""
    if not only:
        return data
    columns = [n for n, name in enumerate(trajectory_columns(cache)) if name.startswith(only)]
    return dataclasses.replace(data, x=data.x[..., columns], widths={"trajectory": len(columns)})


def scores_without_fakes(cache, seed):
    """Return label → video → value of the test split, learned from real training videos alone."""
    training = load_sequences(cache, ["motion"], ["train"])
    folds = training_folds(training, TRAINING_FOLDS, seed)
    unusual = fit_unusual(cache, training, folds, read_motion(cache, training))
    clips = [clip for clip in cache.clips if clip.split == "test"]
    ids = dict.fromkeys(clip.video for clip in clips)
    of_videos, found = unusual.of_videos(cache, clips), {}
    for name, label in UNTRAINED.items():
        usual = np.median(unusual.reference(name))  # stands for a video too slow for a score
        values = np.nan_to_num(of_videos[name], nan=usual)
        found[label] = dict(zip(ids, values, strict=True))
    return found


def metrics(videos, scores, linked):
    """Return metrics with intervals, from a dictionary video → score for each seed."""
    labels = np.array([video.label for video in videos])
    scores = np.array([[of_seed[video.video] for video in videos] for of_seed in scores])  # (S, V)
    above = np.array([above_original(videos, of_seed) for of_seed in scores])

    def mean_over_seeds(rows):
        y = labels[rows]
        if len(set(y)) < 2:
            return dict.fromkeys(("AUC", "pairs", "found"), np.nan)
        each = [(auc_roc(y, s), found_early(y, s)) for s in scores[:, rows]]
        auc, found = np.mean(each, axis=0)
        pairs = above[:, rows][:, ~np.isnan(above[0, rows])]
        return {"AUC": auc, "pairs": pairs.mean() if pairs.size else np.nan, "found": found}

    return with_intervals(mean_over_seeds, linked)


def above_original(videos, scores):
    """Return the share of its originals that each fake scores above, NaN without any, (V,)."""
    originals = {}
    for video, score in zip(videos, scores, strict=True):
        if video.original and not video.label:
            originals.setdefault(video.original, []).append(score)
    return np.array(
        [
            np.mean(score > originals[video.original])
            if video.label and video.original in originals
            else np.nan
            for video, score in zip(videos, scores, strict=True)
        ]
    )


def found_early(labels, scores):
    threshold = threshold_at_fpr(labels, scores, MAX_FALSE_ALARMS)
    return np.mean(scores[labels == 1] >= threshold)


def text(metric):
    if metric.value is None:
        return "-"
    interval = "" if metric.low is None else f" [{metric.low:.2f}, {metric.high:.2f}]"
    return f"{metric.value:.2f}{interval}"


if __name__ == "__main__":
    main()
