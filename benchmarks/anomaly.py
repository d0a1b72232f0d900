"""Do fakes move more unusually than real videos of people who were never seen?

Run ``python -m benchmarks.anomaly EMBEDDINGS...`` with caches of embeddings, each of a corpus with
people of its own. Each is split into five folds by identity. In turn, a density of real motion is
fitted to four of them, as `model.fit` does, and compared with the videos of the fifth.

It prints the AUC of the videos' quantiles among real training videos, with the 95% interval of a
bootstrap over groups of linked videos, how many real ones are more unusual than 95% of real
training videos, and the same for moments.
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

TEST_FOLDS = 5  # of a corpus
TRAINING_FOLDS = 4  # the default of model.fit


def main():
    videos = []
    for folder in map(Path, sys.argv[1:]):
        of_corpus = [
            dataclasses.replace(
                video, group_keys=tuple(f"{folder} {key}" for key in video.group_keys)
            )
            for fold in range(1, TEST_FOLDS + 1)
            for video in unseen_videos(Cache(folder, "embed"), f"fold:{fold}/{TEST_FOLDS}")
        ]
        print_auc(folder, of_corpus)
        videos += of_corpus
    print_auc("all", videos)
    labels = np.array([video.label for video in videos])
    quantiles = np.array([video.quantile for video in videos])
    linked = groups([video.group_keys for video in videos])
    interval = with_intervals(lambda rows: {"AUC": auc_roc(labels[rows], quantiles[rows])}, linked)[
        "AUC"
    ]
    print(f"  AUC {interval}: 95% interval over {linked.max() + 1} groups of linked videos")
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
    """A video that no density has seen.

    Attributes:
        label: 0 real, 1 fake.
        group_keys: whatever links it to other videos.
        quantile: its quantile among real training videos, 0..1.
        moments: quantiles of its moments among theirs, (M,).
    """

    label: int
    group_keys: tuple[str, ...]
    quantile: float
    moments: np.ndarray


def unseen_videos(cache, by):
    """Yield the test videos of a split, compared with the real training videos."""
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
        yield UnseenVideo(label, keys, anomaly.quantile(distance), quantiles)


if __name__ == "__main__":
    main()
