"""What do own fakes teach about real ones?

``python -m benchmarks.own_fakes OWN NAME=EMBEDDINGS...`` takes embeddings of own fakes and the real
videos that they were made from, and of corpora of other people to test on. It trains the default
head on own fakes: on all of them, without each kind, with each kind alone, of fewer real videos,
and on fewer of each. For each corpus it prints what `benchmarks.carries` does, means over seeds of
folds and of drawn videos; no video of these corpora is trained on.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.carries import TRAINING_FOLDS, metrics, text
from model.fitting import training_folds
from model.run.per_video_scores import by_video
from model.settings import TrainingSettings
from model.training.sequences import load_sequences
from model.training.train import cross_fit
from pipeline.cache import Cache
from pipeline.splits.partition import groups

SEEDS = 5
N_REAL = (10, 20, 40)
N_FAKES = (1, 2)  # of each real video
SETTINGS = TrainingSettings()


def main():
    torch.set_num_threads(1)
    own = load(sys.argv[1])
    tests = {}
    for argument in sys.argv[2:]:
        name, _, folder = argument.partition("=")
        tests[name] = load(folder)
    print(f"{(own.labels == 0).sum()} real videos and {own.labels.sum()} own fakes of them")
    print("AUC / fakes above their original / fakes found at 5% false alarms")
    print("| trained on | " + " | ".join(tests) + " |", flush=True)
    for label, draws in selections(own):
        trained = [train(own.rows(rows), seed) for seed, rows in enumerate(draws)]
        cells = [" / ".join(map(text, measured(trained, data).values())) for data in tests.values()]
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def load(folder):
    """Return all videos of a cache, whatever their split."""
    cache = Cache(Path(folder), "embed")
    cache.clips = [dataclasses.replace(clip, split="train") for clip in cache.clips]
    return load_sequences(cache, SETTINGS.streams, ["train"])


def selections(own):
    """Yield what is trained on, and its rows for each seed."""
    kinds = [clip.manipulation.partition(":")[2].split("+") for clip in own.clips]
    real, everything = own.labels == 0, np.arange(len(own.clips))
    yield "all", [everything] * SEEDS
    for kind in dict.fromkeys(kind for of_clip in kinds for kind in filter(None, of_clip)):
        has = np.array([kind in of_clip for of_clip in kinds])
        yield f"without {kind}", [np.flatnonzero(real | ~has)] * SEEDS
        yield f"with {kind} only", [np.flatnonzero(real | has)] * SEEDS
    families = np.array([clip.original for clip in own.clips])
    names = np.unique(families)
    orders = [np.random.default_rng(seed).permutation(len(families)) for seed in range(SEEDS)]
    for n in N_REAL:
        drawn = [np.random.default_rng(seed).permutation(names)[:n] for seed in range(SEEDS)]
        yield f"{n} real videos", [np.flatnonzero(np.isin(families, few)) for few in drawn]
    for n in N_FAKES:
        draws = []
        for order in orders:
            fakes = order[~real[order]]
            of_each = [fakes[families[fakes] == name][:n] for name in names]
            draws.append(np.sort(np.concatenate([np.flatnonzero(real), *of_each])))
        yield f"{n} fakes of each" if n > 1 else "one fake of each", draws


def train(data, seed):
    return cross_fit(data, training_folds(data, TRAINING_FOLDS, seed), SETTINGS, seed=seed).ensemble


def measured(ensembles, data):
    videos = list({clip.video: clip for clip in data.clips}.values())
    linked = groups([video.group_keys for video in videos])
    scores = []
    for ensemble in ensembles:
        with torch.inference_mode():
            ids, _, logits = by_video(data.clips, ensemble(data.x).double().numpy())
        scores.append(dict(zip(ids, logits, strict=True)))
    return metrics(videos, scores, linked)


if __name__ == "__main__":
    main()
