"""Do fakes move more strangely than real videos of people who were never seen?

Run ``python -m benchmarks.anomaly EMBEDDINGS...`` with caches of embeddings, each of a corpus with
people of its own. Each is split into five folds by identity; in turn, the density of real motion is
learned from four of them, as `model.fit` does, and the videos of the fifth are compared with it.
Every video is judged once.

It prints the AUC of their quantiles among real training videos, with the 95% interval of a
bootstrap over groups of linked videos, how many real ones are stranger than 95% of real training
videos, and the same of moments.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from model.explanation.anomaly import fit_anomaly, read_motion
from model.fitting import training_folds
from model.run.per_video_scores import by_video
from model.statistics.metrics import auc_roc, with_intervals
from model.training.sequences import load_sequences
from pipeline.cache import Cache
from pipeline.splits.partition import groups
from pipeline.splits.protocols import Splitting, split_clips

FOLDS = 5  # of a corpus, one of which is looked at
TRAINING_FOLDS = 4  # as model.fit has them
RARE = 0.95


def main():
    labels, quantiles, moments, linked = [], [], [], []
    for folder in map(Path, sys.argv[1:]):
        before = len(labels)
        for fold in range(1, FOLDS + 1):
            for video in unseen(Cache(folder, "embed"), f"fold:{fold}/{FOLDS}"):
                labels.append(video.label)
                quantiles.append(video.quantile)
                moments.append(video.moments)
                linked.append(
                    (f"{folder} {video.id}", *(f"{folder} {tie}" for tie in video.group_keys))
                )
        tell(folder, *map(np.array, (labels[before:], quantiles[before:])))
    labels, quantiles, people = np.array(labels), np.array(quantiles), groups(linked)

    def area(rows):
        return {"AUC": auc_roc(labels[rows], quantiles[rows])}

    tell("all", labels, quantiles)
    interval = with_intervals(area, people)["AUC"]
    print(f"  AUC {interval}: 95% interval over {people.max() + 1} groups of linked videos")
    for name, label in (("real", 0), ("fake", 1)):
        share = np.mean(
            np.concatenate([moments[n] for n in np.flatnonzero(labels == label)]) > RARE
        )
        print(f"  {share:.0%} of moments of {name} videos are stranger than 95% of real ones")


def tell(name, labels, quantiles):
    print(f"{name}: AUC {auc_roc(labels, quantiles):.3f} of {len(labels)} unseen videos")
    for called, label in (("real", 0), ("fake", 1)):
        found = quantiles[labels == label]
        print(f"  {(found > RARE).sum()} of {len(found)} {called} ones beyond 95% of real ones")


@dataclasses.dataclass
class Video:
    """One that no density has learned from.

    Attributes:
        quantile: its strangeness among real training videos, 0..1.
        moments: (M,) the same of its moments.
    """

    id: str
    label: int
    ties: tuple[str, ...]
    quantile: float
    moments: np.ndarray


def unseen(cache, by):
    """The test videos of a split, compared with what the real training ones are like."""
    cache.clips = split_clips(cache.clips, Splitting(by=by))
    training = load_sequences(cache, ["motion"], ["train"])
    motion, folds = read_motion(cache, training), training_folds(training, TRAINING_FOLDS, 0)
    anomaly = fit_anomaly(motion, training, folds)
    usual = []
    for n, (_, val) in enumerate(folds):
        alone = dataclasses.replace(anomaly, moments=anomaly.moments[n : n + 1])
        usual += [alone.by_moment(motion[row]) for row in val if training.labels[row] == 0]
    usual = np.sort(np.concatenate(usual))
    test = load_sequences(cache, ["motion"], ["test"])
    motion = read_motion(cache, test)
    ids, labels, distances = by_video(test.clips, anomaly.distances(motion))
    for id, label, distance in zip(ids, labels, distances, strict=True):
        rows = [n for n, clip in enumerate(test.clips) if clip.video == id]
        moments = np.concatenate([anomaly.by_moment(motion[row]) for row in rows])
        ranks = np.searchsorted(usual, moments) / len(usual)
        ties = test.clips[rows[0]].group_keys
        yield Video(id, label, ties, anomaly.quantile(distance), ranks)


if __name__ == "__main__":
    main()
