"""Evaluation of a run on another corpus than the one it was trained on."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model.evaluation.controls import load_or_train_controls
from model.evaluation.evaluation import (
    ALL,
    METRICS,
    Evaluation,
    compare_scores,
    plotted,
    results_apart,
    score,
    write_evaluation,
)
from model.run.per_video_scores import HEADER, OK, PREDICTIONS
from model.run.run import Run, cache_of
from model.run.trained_on import check_unseen
from model.training.sequences import trajectory_columns
from pipeline.cache import Cache
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.corpus.labelled_video import LABEL_NAMES

MAY_DIFFER = {  # settings that change neither a pixel nor an embedding of a video
    "extraction": {
        "corpus",
        "splitting",
        "seed",
        "shard_size",
        "compression",
        "keep_frames",
        "min_frames",
        "frames",
        "clips",
        "own_fakes",
    },
    "embedding": {"source_sha256", "streams", "augment", "weights", "depths"},
}


def evaluate_elsewhere(
    run: Run,
    other: Cache,
    *,
    controls: bool = True,
    device: str = "auto",
    allow_leaks: bool = False,
) -> Evaluation:
    """Evaluate a run on all videos of a cache that it was not trained on, whatever their split.

    Temperature, threshold and controls are those of the run. Writes ``metrics.json``,
    ``predictions.csv`` and curves into ``cross/<name of the cache>`` in the run's folder.

    Args:
        run: trained run.
        other: embedding cache made with the same settings.
        controls: use heads as controls, not only logistic regressions.
        device: where missing controls are trained, if the run's own cache is available.
        allow_leaks: evaluate although group keys were trained on; every result then carries a
            warning.

    Raises:
        SettingsError: it was extracted or embedded with other settings.
        IntegrityError: an identity, an original or a file of it was trained on.
    """
    check_made_alike(run, other)
    leak_warning = check_unseen(run.folder, other.clips, str(other.folder), allow=allow_leaks)
    folder = folder_of(run, other)
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=1, desc="evaluate", unit="step", disable=None) as bar:
        trained, absent = load_or_train_controls(
            run, other, _training_cache(run), heads=controls, device=device, bar=bar
        )
        # A leak in the run's own split does not matter: none of its videos is evaluated.
        run = dataclasses.replace(
            run, config=dataclasses.replace(run.config, leak_warning=leak_warning)
        )
        splits = sorted({clip.split for clip in other.clips})
        scores = score(run, other, splits, ALL, trained)
        bar.update()
    results = results_apart({ALL: scores}, other)
    evaluation = compare_scores(run, other, folder, results, absent)
    title = f"all of {folder.name}" + ("" if ALL in results else ", own fakes")
    write_evaluation(evaluation, other, results[plotted(results)], title)
    rows = [
        [
            *(video.id, video.split, LABEL_NAMES.index(video.label)),
            *(("", video.scored_by) if video.probability is None else (video.probability, OK)),
        ]
        for video in evaluation.videos
    ]
    write_csv(folder / PREDICTIONS, HEADER, rows)
    return evaluation


def _training_cache(run: Run) -> Cache | None:
    try:
        return cache_of(run)
    except (SettingsError, IntegrityError):
        return None


def check_made_alike(run: Run, other: Cache) -> None:
    """Raise `SettingsError` unless a cache was extracted and embedded like a run's own."""
    settings: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "extraction": (run.config.extraction, json.loads(other.attrs["source_settings"])),
        "embedding": (run.config.embedding, other.settings),
    }
    differences = [
        f"{name} was {ours.get(name)}, there {theirs.get(name)}"
        for kind, (ours, theirs) in settings.items()
        for name in sorted((ours.keys() | theirs.keys()) - MAY_DIFFER[kind])
        if ours.get(name) != theirs.get(name)
    ]
    columns = run.config.trajectory
    if columns and (theirs := trajectory_columns(other)) != columns:
        differences.append(f"columns of trajectories were {_few(columns)}, there {_few(theirs)}")
    if differences:
        raise SettingsError(
            f"{other.folder} was not made as the videos that {run.folder} was trained on: "
            + "; ".join(differences),
            "extract and embed it with the settings of the run: they are in its config.json",
        )


def _few(columns: Sequence[str]) -> str:
    return f"{len(columns)} ({columns[0]} to {columns[-1]})" if columns else "none"


def folder_of(run: Run, other: Cache) -> Path:
    """Return a folder named after the cache, with its sha256 if another cache has the name."""
    sha256, name = other.sha256, other.folder.resolve().name
    folder = run.folder / "cross" / name
    taken = folder / METRICS
    if taken.is_file() and json.loads(taken.read_text())["cache_sha256"] != sha256:
        return folder.with_name(f"{name}-{sha256[:8]}")
    return folder
