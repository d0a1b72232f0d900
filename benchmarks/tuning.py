"""Does the search by Gaussian processes find more than chance?

Run ``python -m benchmarks.tuning EMBEDDINGS [TRIALS [SEEDS]]``. Both searches try the default
settings first, then other points of the same space; random search runs all folds. Reported are the
best loss, the test AUC of a detector with those settings, and the number of folds, for each seed.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from skopt.space import Space

from model.fitting import training_folds
from model.run.per_video_scores import by_video
from model.settings import TrainingSettings
from model.statistics.metrics import auc_roc
from model.training.sequences import available_streams, load_sequences
from model.training.train import cross_fit
from model.tuning.search import tune
from model.tuning.space import search_space, to_builtin, to_point, to_settings
from model.tuning.trials import OK, FoldLoss, load_training, run_fold, trial_result
from pipeline.cache import Cache

SCOPES = ("training", "architecture")
EPOCHS, PATIENCE = 25, 6


def main():
    torch.set_num_threads(1)
    cache = Cache(Path(sys.argv[1]), "embed")
    n_trials = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    held = available_streams(cache)
    streams = tuple(stream for stream in ("flow", "motion") if stream in held)
    start = TrainingSettings(head="lstm", streams=streams, max_epochs=EPOCHS, patience=PATIENCE)
    data = load_training(cache.folder, cache.sha256, start.streams)
    for scope in SCOPES:
        space = search_space(data.x.shape[1], held, scope=scope)
        print(f"{scope}: {', '.join(dimension.name for dimension in space)}")
        found = {"gp": [], "random": []}
        for seed in range(seeds):
            folds = training_folds(data, 3, seed)
            objective = FoldLoss(cache.folder, cache.sha256, folds, seed, "cpu")
            for name, search in {"gp": by_process, "random": by_chance}.items():
                curve, best, n_run = search(objective, n_trials, space, start, seed)
                auc = test_auc(cache, best, folds, seed)
                found[name].append((curve, auc, n_run))
                line = f"loss {curve[-1]:.4f}, test AUC {auc:.3f}, {n_run} folds"
                print(f"  seed {seed} {name}: {line}", flush=True)
        summarise(found, n_trials)


def by_process(objective, n_trials, space, start, seed):
    """Return the best loss after each trial, the best settings, and the number of folds run."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trials.csv"
        n_folds = len(objective.folds)
        best, trials = tune(
            objective, n_trials, space, log, n_folds=n_folds, start=start, seed=seed
        )
    results = [trial.result for trial in trials]
    return convergence(results), best, sum(len(result.losses) for result in results)


def by_chance(objective, n_trials, space, start, seed):
    """Return the same as `by_process`, for points drawn at random."""
    n_folds = len(objective.folds)
    drawn = Space(space).rvs(n_trials - 1, random_state=seed)
    points = [to_point(start, space), *map(to_builtin, drawn)]
    settings = [to_settings(point, space, start) for point in points]
    results = [
        trial_result([run_fold(objective, s, fold) for fold in range(n_folds)], [], n_folds)
        for s in settings
    ]
    best = settings[int(np.nanargmin([result.loss for result in results]))]
    return convergence(results), best, sum(len(result.losses) for result in results)


def convergence(results):
    return np.fmin.accumulate([r.loss if r.status == OK else np.nan for r in results])


def test_auc(cache, settings, folds, seed):
    data = load_training(cache.folder, cache.sha256, settings.streams)
    ensemble = cross_fit(data, folds, settings, seed=seed).ensemble
    test = load_sequences(cache, settings.streams, ("test",))
    with torch.inference_mode():
        _, labels, logits = by_video(test.clips, ensemble(test.x).double().numpy())
    return auc_roc(labels, logits)


def summarise(found, n_trials):
    curves = {name: np.array([curve for curve, _, _ in rows]) for name, rows in found.items()}
    print("  median of the best loss after n trials")
    for n in sorted({1, 4, 8, 12, 16, n_trials} & set(range(1, n_trials + 1))):
        medians = [f"{name} {np.median(curve[:, n - 1]):.4f}" for name, curve in curves.items()]
        wins = int(np.sum(curves["gp"][:, n - 1] < curves["random"][:, n - 1]))
        ties = int(np.sum(curves["gp"][:, n - 1] == curves["random"][:, n - 1]))
        print(f"    {n:3}: {', '.join(medians)}; gp is better in {wins}, level in {ties}")
    aucs = {name: np.array([auc for _, auc, _ in rows]) for name, rows in found.items()}
    wins, ties = int(np.sum(aucs["gp"] > aucs["random"])), int(np.sum(aucs["gp"] == aucs["random"]))
    medians = ", ".join(f"{name} {np.median(auc):.3f}" for name, auc in aucs.items())
    print(f"  median test AUC: {medians}; gp is better in {wins}, level in {ties}")
    folds = ", ".join(f"{name} {np.median([n for _, _, n in r]):.0f}" for name, r in found.items())
    print(f"  median of folds run: {folds}", flush=True)


if __name__ == "__main__":
    main()
