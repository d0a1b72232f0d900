"""Metrics of a run on perturbed copies of its unseen videos, each predicted like a new video."""

import contextlib
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from features.backbones import Backbone
from model.evaluation.own_fakes import TESTED_ON_OWN_FAKES, apart, only_own_fakes
from model.prediction.predict_videos import predict_unordered
from model.robustness.perturbations import PERTURBATIONS, Perturbation, perturb
from model.run.per_video_scores import PREDICTIONS, unseen_splits
from model.run.plots import plot_sweep
from model.run.run import Run, cache_of, digest_of
from model.run.source_files import LOST, find_videos
from model.statistics.metrics import Metric, all_metrics, auc_drop
from pipeline.cache import Cache, Clip
from pipeline.common.csv_files import read_csv, write_csv
from pipeline.common.errors import NothingUsable
from pipeline.common.files import write_whole
from pipeline.common.versions import versions
from pipeline.settings import Settings
from pipeline.splits.partition import groups
from pipeline.workers.local import Pool

SCORES, RESULT, PLOT = "sweep.csv", "sweep.json", "sweep.png"
UNCHANGED = "unchanged"
UNDEFINED = Metric(None, None, None, 0)


@dataclass(frozen=True)
class ScoredCopy:
    """One row of ``sweep.csv``: a video under one perturbation."""

    id: str
    label: int
    perturbation: str  # name, or `UNCHANGED`
    probability: float | None
    status: str  # ``ok``, or why there is no probability


@dataclass(frozen=True)
class PerturbationResult:
    """Metrics of a run under one perturbation."""

    scored: int  # videos with a probability
    undecidable: dict[str, int]  # reason → number of videos whose file was found
    auc_roc: Metric
    accuracy: Metric  # at the run's operating threshold
    auc_drop: Metric  # from the unchanged videos, over those scored in both
    shift_real: float | None  # mean change of the probability, over those scored in both
    shift_fake: float | None


@dataclass(frozen=True)
class Sweep:
    """Metrics of a run under all perturbations."""

    split: str
    videos: int  # of the split, lost ones included
    lost: dict[str, int]  # why a file could not be used → number of videos
    threshold: float
    warnings: list[str]
    apart: float | None  # of unchanged videos from ``predictions.csv``: largest difference
    outcomes: dict[str, PerturbationResult]  # `UNCHANGED` first


def sweep(
    run: Run,
    backbone: Backbone,
    pool: Pool,
    cache: Cache | None = None,
    *,
    folder: Path | None = None,
) -> Sweep:
    """Predict perturbed copies of a run's test videos, or finish an interrupted sweep.

    Writes ``sweep.csv``, ``sweep.json`` and ``sweep.png`` into the run's folder. Videos are looked
    for at their recorded paths and in `folder`.
    """
    cache = cache_of(run, cache)
    split = unseen_splits(cache)[0]
    clips = list({clip.video: clip for clip in cache.clips if clip.split == split}.values())
    results = apart(split, clips)  # real fakes first: no number is of both
    clips = [
        clip for clip, chosen in zip(clips, next(iter(results.values())), strict=True) if chosen
    ]
    on_own = [TESTED_ON_OWN_FAKES] if only_own_fakes(results) else []
    files = find_videos(cache, clips, folder, pool)
    lost = Counter(problem for problem in files.values() if isinstance(problem, str))
    if lost.total() == len(clips):
        why = ", ".join(f"{reason}: {n}" for reason, n in lost.items())
        raise NothingUsable(
            f"no file of the {len(clips)} {split} videos of {cache.folder} can be used ({why})",
            "say with --videos FOLDER where the files are that the cache was made from",
        )
    provenance = _provenance(run, backbone)
    scores = _resume(run, files, provenance)
    perturbations = _perturbations()
    todo = [name for name in perturbations if name not in scores]
    n_files = len(clips) - lost.total()
    with tqdm(total=n_files * len(todo), desc="sweep", unit="video", disable=None) as bar:
        for name in todo:
            bar.set_postfix_str(name)
            predicted = _predict(run, files, perturbations[name], backbone, pool, bar.update)
            scores[name] = [
                ScoredCopy(clip.video, clip.label, name, *predicted[clip.video]) for clip in clips
            ]
            header = [field.name for field in dataclasses.fields(ScoredCopy)]
            copies = [copy for one in perturbations for copy in scores.get(one, [])]
            write_csv(run.folder / SCORES, header, map(dataclasses.astuple, copies))
    result = _result(run, split, clips, {name: scores[name] for name in perturbations}, lost)
    result = dataclasses.replace(result, warnings=[*result.warnings, *on_own])
    _write_json(run, provenance | dataclasses.asdict(result))
    points = {
        f"{name} ({outcome.scored})": (outcome.auc_roc, outcome.accuracy)
        for name, outcome in result.outcomes.items()
    }
    title = f"{split} split, {len(clips)} videos (how many are scored)"
    plot_sweep(points, title, result.threshold, run.folder / PLOT, result.warnings)
    return result


def read_sweep(run: Run) -> Sweep | None:
    """Return the finished sweep of this very model, or None."""
    path = run.folder / RESULT
    values = json.loads(path.read_text()) if path.is_file() else {}
    complete = values.get("outcomes", {}).keys() == _perturbations().keys()
    if values.get("run_sha256") != digest_of(run) or not complete:
        return None
    outcomes = {
        name: PerturbationResult(
            **outcome | {key: Metric(**outcome[key]) for key in ("auc_roc", "accuracy", "auc_drop")}
        )
        for name, outcome in values["outcomes"].items()
    }
    fields = {field.name: values[field.name] for field in dataclasses.fields(Sweep)}
    return Sweep(**fields | {"outcomes": outcomes})


def _perturbations() -> dict[str, Perturbation | None]:
    return {UNCHANGED: None} | {one.name: one for one in PERTURBATIONS}


def _provenance(run: Run, backbone: Backbone) -> dict[str, str]:
    """Return digests of whatever decides the probabilities, apart from the videos."""
    perturbations = [dataclasses.asdict(one) for one in PERTURBATIONS]
    recipe = json.dumps([perturbations, versions(), torch.__version__, backbone.device.type])
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    return {"run_sha256": digest_of(run), "recipe_sha256": digest}


def _resume(
    run: Run, files: Mapping[str, Path | str], provenance: Mapping[str, str]
) -> dict[str, list[ScoredCopy]]:
    """Return perturbation → scores of an earlier sweep that are valid for these files."""
    result, table = run.folder / RESULT, run.folder / SCORES
    if not result.is_file() or not provenance.items() <= json.loads(result.read_text()).items():
        table.unlink(missing_ok=True)
        _write_json(run, provenance)
    scores: dict[str, list[ScoredCopy]] = {}
    for row in read_csv(table) if table.is_file() else []:
        name = row["perturbation"]
        probability = float(row["probability"]) if row["probability"] else None
        copy = ScoredCopy(row["id"], int(row["label"]), name, probability, row["status"])
        scores.setdefault(name, []).append(copy)
    lost = [(video, file if isinstance(file, str) else "") for video, file in files.items()]
    return {
        name: copies
        for name, copies in scores.items()
        if [(copy.id, copy.status if copy.status in LOST else "") for copy in copies] == lost
    }


def _predict(
    run: Run,
    files: Mapping[str, Path | str],
    perturbation: Perturbation | None,
    backbone: Backbone,
    pool: Pool,
    progress: Callable[[], object],
) -> dict[str, tuple[float | None, str]]:
    """Return video → probability and status."""
    usable = {video: file for video, file in files.items() if isinstance(file, Path)}
    scores: dict[str, tuple[float | None, str]] = {
        video: (None, str(problem)) for video, problem in files.items()
    }
    change = None
    if perturbation:
        settings = Settings.from_json(run.config.extraction)
        change = partial(
            perturb, perturbation=perturbation, settings=settings, n_frames=run.config.frames
        )
    with contextlib.closing(
        predict_unordered(
            run, list(usable.values()), backbone, pool, change=change, only="detector"
        )
    ) as examined:
        for number, video in examined:
            prediction = video.prediction
            status = "ok" if prediction.probability is not None else prediction.reason
            scores[list(usable)[number]] = prediction.probability, status
            progress()
    return scores


def _write_json(run: Run, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    write_whole(run.folder / RESULT, lambda path: path.write_text(text))


def _result(
    run: Run,
    split: str,
    clips: Sequence[Clip],
    scores: Mapping[str, Sequence[ScoredCopy]],
    lost: Mapping[str, int],
) -> Sweep:
    labels = np.array([clip.label for clip in clips], np.int64)
    linked = groups([clip.group_keys for clip in clips])
    evaluated = {row["id"]: row["probability"] for row in read_csv(run.folder / PREDICTIONS)}
    differences = [
        abs(copy.probability - float(evaluated[copy.id]))
        for copy in scores[UNCHANGED]
        if copy.probability is not None and evaluated.get(copy.id)
    ]
    outcomes = {
        name: _perturbation_result(copies, scores[UNCHANGED], labels, linked, run.config.threshold)
        for name, copies in scores.items()
    }
    return Sweep(
        split,
        len(clips),
        dict(lost),
        run.config.threshold,
        run.config.warnings,
        max(differences, default=None),
        outcomes,
    )


def _perturbation_result(
    copies: Sequence[ScoredCopy],
    unchanged: Sequence[ScoredCopy],
    labels: npt.NDArray[np.int64],
    linked: npt.NDArray[np.int64],
    threshold: float,
) -> PerturbationResult:
    before, after = (
        np.array([copy.probability for copy in some], np.float64) for some in (unchanged, copies)
    )  # (V,) each, NaN without a score
    scored, in_both = ~np.isnan(after), ~np.isnan(after - before)
    metrics, drop = {}, UNDEFINED
    if scored.any():
        metrics = all_metrics(labels[scored], after[scored], threshold, linked[scored])
    if in_both.any():
        drop = auc_drop(labels[in_both], before[in_both], after[in_both], linked[in_both])
    shifts = [(after - before)[in_both & (labels == label)] for label in (0, 1)]
    shift_real, shift_fake = (float(shift.mean()) if len(shift) else None for shift in shifts)
    reasons = Counter(
        copy.status.split(":")[0]
        for copy in copies
        if copy.probability is None and copy.status not in LOST
    )
    return PerturbationResult(
        int(scored.sum()),
        dict(reasons.most_common()),
        metrics.get("auc_roc", UNDEFINED),
        metrics.get("accuracy", UNDEFINED),
        drop,
        shift_real,
        shift_fake,
    )
