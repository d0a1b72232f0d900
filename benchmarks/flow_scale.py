"""Compare scales of embedded flow maps: ``python -m benchmarks.flow_scale WEIGHTS SEED...``.

For a demo corpus of each seed: out-of-fold AUC over four identity-disjoint folds of its training
videos, from embeddings of flow maps alone, by the default LSTM and by a logistic regression over
their means and mean absolute differences in time. Clips have few frames, of which few maps are
embedded: with more, every scale detects every fake. WEIGHTS is a state dict of MobileNetV2, or
random:SEED.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.demo import make_demo
from features.backbones import load_backbone
from features.embedding import checked_on, embed
from features.settings import Options
from model.fitting import training_folds
from model.settings import TrainingSettings
from model.statistics.metrics import auc_roc
from model.training.sequences import load_sequences
from model.training.train import cross_fit
from pipeline.corpus.reading import read_corpus
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings

SCALES = (None, 2.0, 4.0, 8.0, 16.0)
FOLDS = 4
FRAMES, EVERY = 17, 4


def main():
    weights, *seeds = sys.argv[1:]
    results = {}
    for seed in map(int, seeds or ("1", "2", "3")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_demo(folder / "videos", seed=seed)
            roots = [folder / "videos" / kind for kind in ("DFD_REAL", "DFD_FAKE")]
            settings = Settings(flow_backend="cpu", frames=FRAMES)
            clips = extract(read_corpus(roots), folder / "clips", settings)
            fastest = np.concatenate([clips.read(c, "flow_range")[:, 1] for c in clips.clips])
            print(
                f"seed {seed}: the fastest pixel of a map, median {np.median(fastest):.1f} px/frame"
            )
            backbone = load_backbone("mobilenet_v2", weights, "auto", "auto")
            for scale in SCALES:
                options = Options(streams=("flow",), flow_scale=scale, every=EVERY)
                network = checked_on(backbone, clips, options)
                cache = embed(clips, folder / f"{scale}", network, options)
                results.setdefault(scale, []).append(scores(cache, seed))
                lstm, linear = results[scale][-1]
                print(result_line(scale, lstm, linear), flush=True)
    print("means:")
    for scale, pairs in results.items():
        lstm, linear = np.mean(pairs, axis=0)
        print(result_line(scale, lstm, linear))


def result_line(scale, lstm, linear):
    return f"  {scale or 'per map'}: LSTM {lstm:.3f}, regression {linear:.3f}"


def scores(cache, seed):
    """Return the out-of-fold AUC of the LSTM and of the regression."""
    data = load_sequences(cache, ("flow",), ("train", "val"))
    folds = training_folds(data, FOLDS, seed)
    lstm = cross_fit(data, folds, TrainingSettings(), seed=seed).out_of_fold
    x = data.x.double().numpy()
    pooled = np.concatenate([x.mean(1), np.abs(np.diff(x, axis=1)).mean(1)], axis=1)
    linear = np.zeros(len(pooled))
    for train, val in folds:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        model.fit(pooled[train], data.labels[train])
        linear[val] = model.decision_function(pooled[val])
    return auc_roc(data.labels, lstm), auc_roc(data.labels, linear)


if __name__ == "__main__":
    main()
