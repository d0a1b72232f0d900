"""Embeddings → a run: folds by identity, tuning, one head per fold, an operating threshold."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import sklearn
import skopt
import torch
from tqdm import tqdm

from features.backbones import resolve_device
from model.calibration import operating_point
from model.plots import plot_training
from model.run import SCHEMA, Config, Run, save_run
from model.sequences import Sequences, check_leaks, load_sequences
from model.ties import write_ties
from model.training import CrossFit, Indices, TrainingSettings, cross_fit
from model.tuning import tune
from model.videos import by_video, write_predictions
from pipeline import splits
from pipeline.cache import Cache, check_same_settings
from pipeline.errors import NothingUsable, SettingsError
from pipeline.files import read_csv, write_csv, write_whole

TRIALS = "trials.csv"
CHECKPOINTS = "checkpoints"


def fit(
    cache: Cache,
    folder: Path,
    *,
    settings: TrainingSettings,
    n_trials: int = 0,
    n_folds: int = 3,
    seed: int = 0,
    device: str = "auto",
    max_fpr: float | None = None,
    abstain: float = 0.0,
    allow_leaks: bool = False,
) -> Run:
    """Train a detector on the training split of an embedding cache.

    Neither tuning nor early stopping nor temperature nor threshold sees a video of the test split
    or of the holdout: they are not read before the model is final.

    Args:
        cache: of the embed stage.
        folder: of the run; a search that was stopped there goes on.
        settings: of the head; with ``n_trials`` the start of the search.
        n_trials: tuning trials, 0 for none.
        n_folds: of the cross-validation, fewer where identities do not allow as many.
        seed: of folds, search and training.
        device: as torch names it, or ``auto``.
        max_fpr: the share of real validation videos that the threshold may let be called fake;
            None: as many errors on real as on fake ones.
        abstain: the share of validation videos that should be too close to call.
        allow_leaks: go on where the splits leak; every result then says so.

    Raises:
        IntegrityError: the splits of the cache leak.
        NothingUsable: the training split lacks a class.
        SettingsError: the folder holds a run with other settings.
    """
    leak_warning = check_leaks(cache, allow=allow_leaks)
    training = load_sequences(cache, settings.streams, ("train", "val"))
    folds = training_folds(training, n_folds, seed)
    where = resolve_device(device)
    _begin(folder, cache, settings, len(folds), seed)
    if n_trials:
        settings = _tune(training, folds, folder, settings, n_trials, seed, where)
        n_trials = len(read_csv(folder / TRIALS))
    checkpoints = folder / CHECKPOINTS
    checkpoints.mkdir(exist_ok=True)
    with tqdm(total=len(folds), desc="train", unit="fold", disable=None) as bar:
        fitted = cross_fit(
            training,
            folds,
            settings,
            seed=seed,
            device=where,
            progress=bar.update,
            checkpoints=checkpoints,
        )
    ids, labels, logits = by_video(training.clips, fitted.out_of_fold)
    point = operating_point(labels, logits, max_fpr=max_fpr, abstain=abstain)
    config = Config(
        schema=SCHEMA,
        cache=str(cache.folder.resolve()),
        cache_sha256=cache.sha256,
        frames=int(cache.attrs["frames"]),
        extraction=json.loads(cache.attrs["source_settings"]),
        embedding=cache.settings,
        widths=dict(training.widths),
        training=settings,
        n_heads=len(folds),
        trials=n_trials,
        seed=seed,
        temperature=point.temperature,
        threshold=point.threshold,
        max_fpr=max_fpr,
        margin=point.margin,
        versions=_versions(),
        leak_warning=leak_warning,
        threshold_warning=point.warning,
    )
    run = Run(folder, config, fitted.ensemble)
    write_ties(folder, training.clips)
    save_run(run)
    shutil.rmtree(checkpoints)
    _write_history(folder, fitted)
    out_of_fold = dict(zip(ids, run.probabilities(logits), strict=True))
    write_predictions(run, cache, out_of_fold)
    return run


def training_folds(training: Sequences, n_folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """Pairs of rows to train on and rows to validate on.

    A corpus that prescribes a validation split gets that one fold; any other is folded by
    identity.

    Raises:
        NothingUsable: a class is missing from the training split.
        SettingsError: not even two folds are possible.
    """
    given = np.array([clip.split == "val" for clip in training.clips])
    if set(training.labels[~given]) != {0, 1}:
        raise NothingUsable(
            "the training split lacks real or fake videos", "extract a larger corpus"
        )
    if given.any():
        if set(training.labels[given]) != {0, 1}:
            raise NothingUsable(
                "the prescribed validation split lacks real or fake videos",
                "put both into it, or prescribe none",
            )
        return [(np.flatnonzero(~given), np.flatnonzero(given))]
    return splits.folds(
        [clip.ties for clip in training.clips], training.labels.tolist(), n_folds, seed=seed
    )


def _begin(
    folder: Path,
    cache: Cache,
    settings: TrainingSettings,
    n_folds: int,
    seed: int,
) -> None:
    """Remember what a search was begun with, so that it is never gone on with something else."""
    begun = {
        "cache_sha256": cache.sha256,
        "folds": n_folds,
        "seed": seed,
        **dataclasses.asdict(settings),
        "streams": list(settings.streams),
    }
    path = folder / "begun.json"
    if path.is_file():
        check_same_settings(folder, json.loads(path.read_text()), begun)
    elif folder.is_dir() and any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty and not a run", "give a new folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(begun, indent=1)
        write_whole(path, lambda temporary: temporary.write_text(text))


def _tune(
    training: Sequences,
    folds: list[tuple[Indices, Indices]],
    folder: Path,
    start: TrainingSettings,
    n_trials: int,
    seed: int,
    device: str,
) -> TrainingSettings:
    with tqdm(total=n_trials * len(folds), desc="tune", unit="fold", disable=None) as bar:

        def objective(settings: TrainingSettings) -> float:
            return cross_fit(
                training, folds, settings, seed=seed, device=device, progress=bar.update
            ).loss

        return tune(
            objective, n_trials, training.x.shape[1], folder / TRIALS, start=start, seed=seed
        )


def _write_history(folder: Path, fitted: CrossFit) -> None:
    rows = [
        [n, number, *dataclasses.astuple(epoch)]
        for n, fold in enumerate(fitted.folds)
        for number, epoch in enumerate(fold.history)
    ]
    header = ["fold", "epoch", "train_loss", "val_loss", "val_auc"]
    write_csv(folder / "history.csv", header, rows)
    plot_training([fold.history for fold in fitted.folds], folder / "training.png")


def _versions() -> dict[str, str]:
    return {
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "scikit-optimize": skopt.__version__,
        "torch": torch.__version__,
    }
