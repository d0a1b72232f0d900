"""Do fakes move more unusually than real videos of people who were never seen?

Run ``python -m benchmarks.anomaly EMBEDDINGS...`` with caches of embeddings, each of a corpus with
people of its own. Each is split into five folds by identity: densities of real motion are fitted to
four, as `model.fit` does, and compared with the videos of the fifth. It prints the AUC of their
quantiles among real training videos, with a 95% interval, and how many exceed the 95% quantile.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from model.explanation.anomaly import UNUSUAL_QUANTILE, fit_anomaly, read_motion
from model.fitting import training_folds
from model.run.per_video_scores import by_video
from model.statistics.metrics import auc_roc, with_intervals
from model.training.sequences import load_sequences
from pipeline.cache import Cache
from pipeline.splits.partition import groups
from pipeline.splits.protocols import Splitting, split_clips

TEST_FOLDS = 5
TRAINING_FOLDS = 4  # the default of model.fit


def main():
    videos = []
    for folder in map(Path, sys.argv[1:]):
        of_corpus = [
            video
            for fold in range(1, TEST_FOLDS + 1)
            for video in unseen_videos(folder, f"fold:{fold}/{TEST_FOLDS}")
        ]
        print_auc(folder, of_corpus)
        videos += of_corpus
    print_auc("all", videos)
    labels = np.array([video.label for video in videos])
    quantiles = np.array([video.quantile for video in videos])
    linked = groups([video.group_keys for video in videos])
    auc = with_intervals(lambda rows: {"AUC": auc_roc(labels[rows], quantiles[rows])}, linked)
    print(f"  AUC {auc['AUC']}: 95% interval over {linked.max() + 1} groups of linked videos")
    for name, label in (("real", 0), ("fake", 1)):
        moments = np.concatenate([video.moments for video in videos if video.label == label])
        share = np.mean(moments > UNUSUAL_QUANTILE)
        print(f"  {share:.0%} of moments of {name} videos are stranger than 95% of real ones")


def print_auc(name, videos):
    labels = np.array([video.label for video in videos])
    quantiles = np.array([video.quantile for video in videos])
    print(f"{name}: AUC {auc_roc(labels, quantiles):.3f} of {len(videos)} unseen videos")
    for kind, label in (("real", 0), ("fake", 1)):
        unusual = quantiles[labels == label] > UNUSUAL_QUANTILE
        print(f"  {unusual.sum()} of {len(unusual)} {kind} ones beyond 95% of real ones")


@dataclasses.dataclass
class UnseenVideo:
    """A video that no density has seen, as quantiles among real training videos, 0..1."""

    label: int
    group_keys: tuple[str, ...]
    quantile: float
    moments: np.ndarray  # (M,)


def unseen_videos(folder, by):
    """Yield the test videos of a split, compared with the real training videos."""
    cache = Cache(folder, "embed")
    cache.clips = split_clips(cache.clips, Splitting(by=by))
    training = load_sequences(cache, ["motion"], ["train"])
    motion, folds = read_motion(cache, training), training_folds(training, TRAINING_FOLDS, 0)
    anomaly = fit_anomaly(motion, training, folds)
    reference = []
    for n, (_, val) in enumerate(folds):
        of_fold = dataclasses.replace(anomaly, moments=anomaly.moments[n : n + 1])
        reference += [of_fold.by_moment(motion[row]) for row in val if training.labels[row] == 0]
    reference = np.sort(np.concatenate(reference))
    test = load_sequences(cache, ["motion"], ["test"])
    motion = read_motion(cache, test)
    ids, labels, distances = by_video(test.clips, anomaly.distances(motion))
    for id, label, distance in zip(ids, labels, distances, strict=True):
        rows = [n for n, clip in enumerate(test.clips) if clip.video == id]
        moments = np.concatenate([anomaly.by_moment(motion[row]) for row in rows])
        quantiles = np.searchsorted(reference, moments) / len(reference)
        keys = (f"video:{id}", *test.clips[rows[0]].group_keys)
        keys = tuple(f"{folder} {key}" for key in keys)  # people of another corpus are others
        yield UnseenVideo(label, keys, anomaly.quantile(distance), quantiles)


if __name__ == "__main__":
    main()
