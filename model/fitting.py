"""Embeddings → a run: folds by identity, tuning, one head per fold, an operating threshold."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import skopt
import torch
from skopt.space import Dimension
from tqdm import tqdm

from features.backbones import resolve_device
from model.explanation.anomaly import fit_anomaly, read_motion, save_anomaly
from model.explanation.occlusion_over_time import fit_band, save_band
from model.run.per_video_scores import by_video, write_predictions
from model.run.plots import plot_training
from model.run.run import SCHEMA, Config, Run, cache_of, save_run
from model.run.trained_on import write_trained_on
from model.settings import Scope, TrainingSettings
from model.statistics.calibration import operating_point
from model.training.sequences import Sequences, available_streams, check_leaks
from model.training.train import CrossFit, Indices, cross_fit
from model.tuning.plots import plot_tuning
from model.tuning.search import tune
from model.tuning.space import search_space, settings_as_json, settings_from_json
from model.tuning.trials import FoldLoss, best_of_log, load_training, read_trials
from pipeline.cache import Cache, check_same_settings
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import NothingUsable, SettingsError
from pipeline.common.files import try_lock, write_whole
from pipeline.splits.partition import folds as identity_folds

TRIALS, BEGUN, CHECKPOINTS = "trials.csv", "begun.json", "checkpoints"


def fit(
    cache: Cache,
    folder: Path,
    *,
    settings: TrainingSettings,
    n_trials: int = 0,
    search: Scope = "architecture",
    warm: Sequence[TrainingSettings] = (),
    jobs: int = 1,
    seconds: float | None = None,
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
        search: what is tuned.
        warm: settings that tuning tries first.
        jobs: tuning trials that run side by side.
        seconds: after which no trial starts any more.
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
        SettingsError: the folder holds a run with other settings, or another process writes it.
    """
    leak_warning = check_leaks(cache, allow=allow_leaks)
    training = load_training(cache.folder, cache.sha256, settings.streams)
    folds = training_folds(training, n_folds, seed)
    where = resolve_device(device)
    begun = {
        "cache_sha256": cache.sha256,
        "folds": len(folds),
        "seed": seed,
        "search": search,
        "warm": [settings_as_json(one) for one in warm],
        **settings_as_json(settings),
    }
    with _alone(folder, begun, tuned=n_trials > 0):
        checkpoints = folder / CHECKPOINTS
        checkpoints.mkdir(exist_ok=True)
        if n_trials:
            space = search_space(training.x.shape[1], available_streams(cache), scope=search)
            objective = FoldLoss(
                cache.folder, cache.sha256, folds, seed, where, checkpoints=checkpoints
            )
            settings = _tune(objective, n_trials, space, folder, settings, warm, jobs, seconds)
            n_trials = len(read_trials(folder / TRIALS, space, len(folds)))
            training = load_training(cache.folder, cache.sha256, settings.streams)
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
            abstain=abstain,
            margin=point.margin,
            versions=_versions(),
            leak_warning=leak_warning,
            threshold_warning=point.warning,
        )
        run = Run(folder, config, fitted.ensemble)
        write_trained_on(folder, training.clips)
        motion = read_motion(cache, training)
        anomaly = fit_anomaly(motion, training, folds)
        save_anomaly(folder, anomaly)
        save_band(folder, fit_band(run, training, fitted.folds, motion, anomaly))
        save_run(run)
        shutil.rmtree(checkpoints)
        _write_history(folder, fitted)
        out_of_fold = dict(zip(ids, run.probabilities(logits), strict=True))
        write_predictions(run, cache, out_of_fold)
        return run


def refit(
    original: Run,
    folder: Path,
    cache: Cache | None = None,
    *,
    device: str = "auto",
    allow_leaks: bool = False,
) -> Run:
    """Train a run once more, from what its folder says: the same settings, folds and seed.

    On the same kind of machine the weights are the same to the last bit.

    Args:
        original: the run; its settings are taken as they were found, nothing is tuned.
        folder: of the new run.
        cache: that it was trained on, where it is not where it was.
        device: as torch names it, or ``auto``.
        allow_leaks: as of `fit`.

    Raises:
        IntegrityError: the cache is another one, or its splits leak.
    """
    was = original.config
    run = fit(
        cache_of(original, cache),
        folder,
        settings=was.training,
        n_folds=max(2, was.n_heads),
        seed=was.seed,
        device=device,
        max_fpr=was.max_fpr,
        abstain=was.abstain,
        allow_leaks=allow_leaks,
    )
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, trials=was.trials))
    save_run(run)
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
    return identity_folds(
        [clip.group_keys for clip in training.clips], training.labels.tolist(), n_folds, seed=seed
    )


@contextlib.contextmanager
def _alone(folder: Path, begun: dict[str, Any], tuned: bool) -> Iterator[None]:
    """The right to write a run, which one process has at a time."""
    _begin(folder, begun, tuned)
    with (folder / BEGUN).open("r+b") as file:
        if not try_lock(file):
            raise SettingsError(
                f"another process is writing {folder}",
                "wait for it to end, or give another folder",
            )
        yield


def _begin(folder: Path, begun: dict[str, Any], tuned: bool) -> None:
    """Remember what a search was begun with, so that it is never gone on with something else."""
    path = folder / BEGUN
    if path.is_file():
        check_same_settings(folder, json.loads(path.read_text()), begun)
        if (folder / TRIALS).is_file() and not tuned:
            raise SettingsError(
                f"{folder} holds a search, which training without one would forget",
                "give --tune N to go on with it, or another folder",
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty and not a run", "give a new folder")
    elif folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file, and a run is a folder", "give a new folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(begun, indent=1)
        write_whole(path, lambda temporary: temporary.write_text(text))


def best_settings(folder: Path) -> list[TrainingSettings]:
    """The best settings that the tuning of an earlier run found, at most three.

    Raises:
        SettingsError: it was not tuned.
    """
    try:
        begun = json.loads((folder / BEGUN).read_text())
        return best_of_log(folder / TRIALS, settings_from_json(begun))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"{folder} holds no trials to start from: {error}", "name a run that --tune made"
        ) from error


def _tune(
    objective: FoldLoss,
    n_trials: int,
    space: Sequence[Dimension],
    folder: Path,
    start: TrainingSettings,
    warm: Sequence[TrainingSettings],
    jobs: int,
    seconds: float | None,
) -> TrainingSettings:
    log, n_folds = folder / TRIALS, len(objective.folds)
    with tqdm(total=n_trials, desc="tune", unit="trial", disable=None) as bar:
        best = tune(
            objective,
            n_trials,
            space,
            log,
            n_folds=n_folds,
            start=start,
            warm=warm,
            seed=objective.seed,
            jobs=jobs,
            seconds=seconds,
            progress=lambda trial: bar.update(),
        )
    trials = read_trials(log, space, n_folds)
    plot_tuning([trials[n] for n in sorted(trials)], space, n_folds, folder / "tuning.png")
    return best


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
