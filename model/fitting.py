"""Training of a run: folds by identity, tuning, one head per fold, an operating threshold."""

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
from tqdm import tqdm

from features.backbones import resolve_device
from model.explanation.anomaly import read_motion
from model.explanation.occlusion_over_time import band_without_heads, fit_band, save_band
from model.explanation.unusual import few_real_warning, fit_unusual, save_unusual
from model.run.per_video_scores import by_video, write_predictions
from model.run.plots import plot_training
from model.run.run import SCHEMA, Config, Run, cache_of, save_run
from model.run.trained_on import write_trained_on
from model.settings import Scope, TrainingSettings
from model.statistics.calibration import OperatingPoint, operating_point
from model.training.sequences import (
    Sequences,
    available_streams,
    check_leaks,
    trajectory_columns,
)
from model.training.train import CrossFit, Indices, cross_fit
from model.tuning.plots import plot_tuning
from model.tuning.search import tune
from model.tuning.space import search_space
from model.tuning.trials import FoldLoss, best_of_log, load_training
from pipeline.cache import Cache, check_same_settings
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import NothingUsable, SettingsError
from pipeline.common.files import try_lock, write_whole
from pipeline.corpus.tables import kinds_of_own_fakes
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

    If that holds no fake, the run has no head: only what never sees a fake is fitted, see
    `model.explanation.unusual`.

    Tuning, early stopping, temperature and threshold use validation folds of the training split.
    Test split and holdout are not read before the model is final. A run that was interrupted in
    ``folder`` is resumed.

    Args:
        cache: cache of the embed stage.
        folder: folder of the run.
        settings: settings of the heads; with ``n_trials`` the start of tuning.
        search: settings that are tuned.
        warm: settings that tuning tries first.
        jobs: tuning trials that run in parallel.
        seconds: time after which no trial starts.
        n_folds: validation folds; fewer if there are too few identities.
        seed: seed of folds, tuning and training.
        max_fpr: highest false-positive rate on validation videos; default equal error rate.
        abstain: share of the validation videos that should be too close to call.
        allow_leaks: continue if the split leaks; every result then has a warning.

    Raises:
        IntegrityError: the split leaks.
        NothingUsable: the training split lacks real videos.
        SettingsError: the folder holds a run with other settings, or another process writes it.
    """
    leak_warning = check_leaks(cache, allow=allow_leaks)
    training = load_training(cache.folder, cache.sha256, settings.streams)
    folds = training_folds(training, n_folds, seed)
    has_fakes = any(clip.label and clip.split == "train" for clip in training.clips)
    if n_trials and not has_fakes:
        raise SettingsError(
            f"the training split of {cache.folder} holds real videos alone: there is no head to "
            "tune",
            "leave out --tune, or add fakes",
        )
    device = resolve_device(device)
    begun = {
        "cache_sha256": cache.sha256,
        "folds": len(folds),
        "seed": seed,
        "search": search,
        "warm": [dataclasses.asdict(one) for one in warm],
        **dataclasses.asdict(settings),
    }
    with _locked(folder, begun, tuned=n_trials > 0):
        checkpoints = folder / CHECKPOINTS
        checkpoints.mkdir(exist_ok=True)
        if n_trials:
            space = search_space(training.x.shape[1], available_streams(cache), scope=search)
            with tqdm(total=n_trials, desc="tune", unit="trial", disable=None) as bar:
                settings, trials = tune(
                    FoldLoss(cache.folder, cache.sha256, folds, seed, device, checkpoints),
                    n_trials,
                    space,
                    folder / TRIALS,
                    n_folds=len(folds),
                    start=settings,
                    warm=warm,
                    seed=seed,
                    jobs=jobs,
                    seconds=seconds,
                    progress=bar.update,
                )
            plot_tuning(trials, space, folder / "tuning.png")
            n_trials = len(trials)  # the log may hold more, or the time was over
            training = load_training(cache.folder, cache.sha256, settings.streams)
        if has_fakes:
            with tqdm(total=len(folds), desc="train", unit="fold", disable=None) as bar:
                fitted = cross_fit(
                    training,
                    folds,
                    settings,
                    seed=seed,
                    device=device,
                    progress=bar.update,
                    checkpoints=checkpoints,
                )
        else:
            fitted = CrossFit([], settings, np.full(len(training.clips), np.nan))
        ids, labels, logits = by_video(training.clips, fitted.out_of_fold)
        n_real = len({clip.video for clip in training.clips if not clip.label})
        point = OperatingPoint(temperature=1.0, threshold=1.0, warning=few_real_warning(n_real))
        if has_fakes:
            point = operating_point(labels, logits, max_fpr=max_fpr, abstain=abstain)
        widths = dict(training.widths) if has_fakes else {}
        config = Config(
            schema=SCHEMA,
            cache=str(cache.folder.resolve()),
            cache_sha256=cache.sha256,
            frames=int(cache.attrs["frames"]),
            extraction=json.loads(cache.attrs["source_settings"]),
            embedding=cache.settings,
            widths=widths,
            training=settings,
            n_heads=len(fitted.folds),
            n_folds=0 if has_fakes else len(folds),
            trials=n_trials,
            seed=seed,
            temperature=point.temperature,
            threshold=point.threshold,
            max_fpr=max_fpr,
            abstain=abstain,
            margin=point.margin,
            versions={
                "numpy": np.__version__,
                "scikit-learn": sklearn.__version__,
                "scikit-optimize": skopt.__version__,
                "torch": torch.__version__,
            },
            leak_warning=leak_warning,
            threshold_warning=point.warning,
            trajectory=trajectory_columns(cache) if "trajectory" in widths else (),
            strength=fitted.strength if has_fakes else None,
            own_kinds=kinds_of_own_fakes(training.clips),
            saw_real_fakes=not has_fakes
            or any(clip.label and not clip.is_own_fake for clip in training.clips),
        )
        run = Run(folder, config, fitted.ensemble)
        write_trained_on(folder, training.clips)
        motion = read_motion(cache, training)
        unusual = fit_unusual(cache, training, folds, motion)
        save_unusual(folder, unusual)
        if has_fakes:
            band = fit_band(run, training, fitted.folds, motion, unusual.motion)
        else:
            validation = [val for _, val in folds]
            band = band_without_heads(training, validation, motion, unusual.motion)
        save_band(folder, band)
        save_run(run)
        shutil.rmtree(checkpoints)
        if has_fakes:
            _write_history(folder, fitted)
            write_predictions(run, cache, dict(zip(ids, run.probabilities(logits), strict=True)))
        return run


def refit(
    original: Run,
    folder: Path,
    cache: Cache | None = None,
    *,
    device: str = "auto",
    allow_leaks: bool = False,
) -> Run:
    """Train a run again with the same settings, folds and seed, without tuning.

    On the same kind of machine the weights are the same to the last bit.
    """
    config = original.config
    run = fit(
        cache_of(original, cache),
        folder,
        settings=config.training,
        n_folds=max(2, config.n_heads, config.n_folds),
        seed=config.seed,
        device=device,
        max_fpr=config.max_fpr,
        abstain=config.abstain,
        allow_leaks=allow_leaks,
    )
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, trials=config.trials))
    save_run(run)
    return run


def training_folds(training: Sequences, n_folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """Return training and validation indices: of a prescribed split, or of folds by identity."""
    prescribed = np.array([clip.split == "val" for clip in training.clips])
    held = set(training.labels[~prescribed])
    if 0 not in held:
        raise NothingUsable("the training split lacks real videos", "extract a larger corpus")
    if prescribed.any():
        if not held <= set(training.labels[prescribed]):
            raise NothingUsable(
                "the prescribed validation split lacks real or fake videos",
                "put both into it, or prescribe none",
            )
        return [(np.flatnonzero(~prescribed), np.flatnonzero(prescribed))]
    return identity_folds(
        [clip.group_keys for clip in training.clips], training.labels.tolist(), n_folds, seed=seed
    )


def best_settings(folder: Path) -> list[TrainingSettings]:
    """Return the best settings, at most three, that the tuning of a run found."""
    try:
        begun = json.loads((folder / BEGUN).read_text())
        names = {field.name for field in dataclasses.fields(TrainingSettings)}
        values = {name: value for name, value in begun.items() if name in names}
        start = TrainingSettings(**values | {"streams": tuple(begun["streams"])})
        return best_of_log(folder / TRIALS, start)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"{folder} holds no trials to start from: {error}", "name a run that --tune made"
        ) from error


@contextlib.contextmanager
def _locked(folder: Path, begun: dict[str, Any], tuned: bool) -> Iterator[None]:
    """Begin or resume a run, which one process can write at a time."""
    _begin(folder, begun, tuned)
    with (folder / BEGUN).open("r+b") as file:
        if not try_lock(file):
            raise SettingsError(
                f"another process is writing {folder}",
                "wait for it to end, or give another folder",
            )
        yield


def _begin(folder: Path, begun: dict[str, Any], tuned: bool) -> None:
    """Write the settings of a new run, or check those that are in its folder."""
    path, text = folder / BEGUN, json.dumps(begun, indent=1)
    if path.is_file():
        check_same_settings(folder, json.loads(path.read_text()), json.loads(text))
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
        write_whole(path, lambda temporary: temporary.write_text(text))


def _write_history(folder: Path, fitted: CrossFit) -> None:
    rows = [
        [n, number, *dataclasses.astuple(epoch)]
        for n, fold in enumerate(fitted.folds)
        for number, epoch in enumerate(fold.history)
    ]
    header = ["fold", "epoch", "train_loss", "val_loss", "val_auc"]
    write_csv(folder / "history.csv", header, rows)
    x = "epoch" if fitted.strength is None else "strength of the regularisation, falling"
    plot_training(fitted.folds, folder / "training.png", x)
