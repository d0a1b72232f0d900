"""How well a run does on changed copies of its unseen videos, each judged like a new video."""

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
import torch
from tqdm import tqdm

from features.backbones import Backbone
from model.prediction.predict_videos import predict_unordered
from model.robustness.perturbations import PERTURBATIONS, Perturbation, perturb
from model.run.per_video_scores import PREDICTIONS, UNSEEN
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
from pipeline.workers.local import LocalPool, Pool

ROWS, RESULT, PICTURE = "sweep.csv", "sweep.json", "sweep.png"
UNCHANGED = "unchanged"
NONE = Metric(None, None, None, 0)

Change = Perturbation | None


@dataclass(frozen=True)
class Row:
    """One video under one perturbation; the status is ``ok`` or why there is no probability."""

    id: str
    label: int
    perturbation: str
    probability: float | None
    status: str


@dataclass(frozen=True)
class Outcome:
    """What one perturbation does.

    Attributes:
        scored: videos that have a probability.
        undecidable: reason → how many videos have none, though their file is there.
        auc_roc: of those that are scored.
        accuracy: of them, at the run's own threshold.
        auc_drop: how much lower the AUC is than that of the unchanged videos, over those that have
            a probability in both.
        shift_real: by how much the probability of being fake grew on the real ones of these.
        shift_fake: on the fake ones.
    """

    scored: int
    undecidable: dict[str, int]
    auc_roc: Metric
    accuracy: Metric
    auc_drop: Metric
    shift_real: float | None
    shift_fake: float | None


@dataclass(frozen=True)
class Sweep:
    """What came of all perturbations.

    Attributes:
        split: whose videos they are.
        videos: how many there are, lost ones too.
        lost: why a video could not be used at all → how many.
        threshold: from which on a video is called fake.
        warnings: what to say over every result of the run.
        apart: the most by which an unchanged video's probability is not that of its evaluation.
        outcomes: perturbation → `Outcome`, `UNCHANGED` first.
    """

    split: str
    videos: int
    lost: dict[str, int]
    threshold: float
    warnings: list[str]
    apart: float | None
    outcomes: dict[str, Outcome]


def sweep(
    run: Run,
    backbone: Backbone,
    cache: Cache | None = None,
    *,
    folder: Path | None = None,
    jobs: int | None = None,
) -> Sweep:
    """Judge changed copies of a run's test videos, or finish a sweep that was begun.

    Writes ``sweep.csv``, ``sweep.json`` and ``sweep.png`` into the run's folder.

    Args:
        run: a trained run.
        backbone: as `model.prediction.predict_videos.backbone_of` gives it.
        cache: the embedding cache it was trained on, where it is not where it was.
        folder: with the videos, where they are not where they were.
        jobs: processes that change and decode; by default one per core.

    Raises:
        IntegrityError: the cache is not the one that the run was trained on.
        NothingUsable: there is no test video, or none of their files.
    """
    cache = cache_of(run, cache)
    split, clips = _unseen(cache)
    with LocalPool(jobs) as pool:
        found = find_videos(cache, clips, folder, pool)
        lost = Counter(problem for problem in found.values() if isinstance(problem, str))
        if lost.total() == len(clips):
            why = ", ".join(f"{reason}: {n}" for reason, n in lost.items())
            raise NothingUsable(
                f"no file of the {len(clips)} {split} videos of {cache.folder} can be used ({why})",
                "say with --videos FOLDER where the files are that the cache was made from",
            )
        made_with = _made_with(run, backbone)
        rows = _begun(run, found, made_with)
        todo = [change for change in (None, *PERTURBATIONS) if _name(change) not in rows]
        n_files = len(clips) - lost.total()
        with tqdm(total=n_files * len(todo), desc="sweep", unit="video", disable=None) as bar:
            for change in todo:
                bar.set_postfix_str(_name(change))
                rows[_name(change)] = _judged(run, clips, found, change, backbone, pool, bar.update)
                _write_rows(run, rows)
    result = _result(run, split, clips, rows, lost)
    _write_result(run, made_with | dataclasses.asdict(result))
    _draw(run, result)
    return result


def _unseen(cache: Cache) -> tuple[str, list[Clip]]:
    """One clip of each video of the test split, or of the holdout if there is no such split."""
    for split in UNSEEN:
        clips = {clip.video: clip for clip in cache.clips if clip.split == split}
        if clips:
            return split, list(clips.values())
    raise NothingUsable(
        f"{cache.folder} has neither a test split nor a holdout",
        "extract with --test 0.2, or with more identities",
    )


def _name(change: Change) -> str:
    return change.name if change else UNCHANGED


def _judged(
    run: Run,
    clips: Sequence[Clip],
    found: Mapping[str, Path | str],
    change: Change,
    backbone: Backbone,
    pool: Pool,
    progress: Callable[[], object],
) -> list[Row]:
    there = [clip.video for clip in clips if isinstance(found[clip.video], Path)]
    paths = [Path(found[video]) for video in there]
    settings = Settings.from_json(run.config.extraction)
    altered = None
    if change:
        altered = partial(perturb, change=change, settings=settings, n_frames=run.config.frames)
    results: dict[str, tuple[float | None, str]] = {}
    with contextlib.closing(predict_unordered(run, paths, backbone, pool, altered)) as judged:
        for number, prediction in judged:
            known = prediction.probability is not None
            results[there[number]] = prediction.probability, "ok" if known else prediction.reason
            progress()
    return [
        Row(
            clip.video,
            clip.label,
            _name(change),
            *results.get(clip.video, (None, str(found[clip.video]))),
        )
        for clip in clips
    ]


# --------------------------------------------------------------------------------- what is written


def _made_with(run: Run, backbone: Backbone) -> dict[str, str]:
    """What decides the probabilities, apart from the videos."""
    changes = [dataclasses.asdict(change) for change in PERTURBATIONS]
    recipe = json.dumps([changes, versions(), torch.__version__, backbone.device.type])
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    return {"run_sha256": digest_of(run), "recipe_sha256": digest}


def _begun(
    run: Run, found: Mapping[str, Path | str], made_with: Mapping[str, str]
) -> dict[str, list[Row]]:
    """The rows of an earlier sweep that hold for the very same videos, by perturbation."""
    result, table = run.folder / RESULT, run.folder / ROWS
    if not result.is_file() or not made_with.items() <= json.loads(result.read_text()).items():
        table.unlink(missing_ok=True)
        _write_result(run, made_with)
    rows: dict[str, list[Row]] = {}
    for row in read_csv(table) if table.is_file() else []:
        probability = float(row["probability"]) if row["probability"] else None
        rows.setdefault(row["perturbation"], []).append(
            Row(row["id"], int(row["label"]), row["perturbation"], probability, row["status"])
        )
    now = {video: problem if isinstance(problem, str) else "" for video, problem in found.items()}
    return {
        name: of_one
        for name, of_one in rows.items()
        if {row.id: row.status if row.status in LOST else "" for row in of_one} == now
    }


def _in_order(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    return [name for name in map(_name, (None, *PERTURBATIONS)) if name in rows]


def _write_rows(run: Run, rows: Mapping[str, Sequence[Row]]) -> None:
    header = [field.name for field in dataclasses.fields(Row)]
    lines = [dataclasses.astuple(row) for name in _in_order(rows) for row in rows[name]]
    write_csv(run.folder / ROWS, header, lines)


def _write_result(run: Run, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    write_whole(run.folder / RESULT, lambda path: path.write_text(text))


def _result(
    run: Run,
    split: str,
    clips: Sequence[Clip],
    rows: Mapping[str, Sequence[Row]],
    lost: Mapping[str, int],
) -> Sweep:
    tied = groups([clip.group_keys for clip in clips]).tolist()
    linked = {clip.video: group for clip, group in zip(clips, tied, strict=True)}
    before = {row.id: row.probability for row in rows[UNCHANGED]}
    threshold = run.config.threshold
    outcomes = {name: _outcome(rows[name], before, linked, threshold) for name in _in_order(rows)}
    warnings, apart = run.config.warnings, _apart(run, before)
    return Sweep(split, len(clips), dict(lost), threshold, warnings, apart, outcomes)


def _draw(run: Run, result: Sweep) -> None:
    points = {
        f"{name} ({outcome.scored})": (outcome.auc_roc, outcome.accuracy)
        for name, outcome in result.outcomes.items()
    }
    title = f"{result.split} split, {result.videos} videos (how many are scored)"
    plot_sweep(points, title, result.threshold, run.folder / PICTURE, result.warnings)


def _apart(run: Run, unchanged: Mapping[str, float | None]) -> float | None:
    known = {row["id"]: row["probability"] for row in read_csv(run.folder / PREDICTIONS)}
    apart = [
        abs(probability - float(known[video]))
        for video, probability in unchanged.items()
        if probability is not None and known.get(video)
    ]
    return max(apart, default=None)


def _outcome(
    rows: Sequence[Row],
    before: Mapping[str, float | None],
    linked: Mapping[str, int],
    threshold: float,
) -> Outcome:
    scored = [row for row in rows if row.probability is not None]
    both = [row for row in scored if before[row.id] is not None]
    reasons = Counter(
        row.status.split(":")[0]
        for row in rows
        if row.probability is None and row.status not in LOST
    )
    labels, probabilities, tied = _columns(scored, linked)
    metrics = all_metrics(labels, probabilities, threshold, tied) if scored else {}
    labels, after, tied = _columns(both, linked)
    unchanged = np.array([before[row.id] for row in both], np.float64)
    shifts = [(after - unchanged)[labels == label] for label in (0, 1)]
    shift_real, shift_fake = (float(shift.mean()) if len(shift) else None for shift in shifts)
    return Outcome(
        len(scored),
        dict(reasons.most_common()),
        metrics.get("auc_roc", NONE),
        metrics.get("accuracy", NONE),
        auc_drop(labels, unchanged, after, tied) if both else NONE,
        shift_real,
        shift_fake,
    )


def _columns(rows: Sequence[Row], linked: Mapping[str, int]) -> tuple[Any, Any, Any]:
    """Labels, probabilities and groups, (N,) each."""
    return (
        np.array([row.label for row in rows], np.int64),
        np.array([row.probability for row in rows], np.float64),
        np.array([linked[row.id] for row in rows], np.int64),
    )


def read_sweep(run: Run) -> Sweep | None:
    """The finished sweep in a run's folder, if it was made with this very model."""
    path = run.folder / RESULT
    values = json.loads(path.read_text()) if path.is_file() else {}
    complete = {UNCHANGED, *(change.name for change in PERTURBATIONS)}
    if values.get("run_sha256") != digest_of(run) or set(values.get("outcomes", ())) != complete:
        return None
    outcomes = {}
    for name, outcome in values["outcomes"].items():
        metrics = {key: Metric(**outcome[key]) for key in ("auc_roc", "accuracy", "auc_drop")}
        outcomes[name] = Outcome(**outcome | metrics)
    known = {field.name: values[field.name] for field in dataclasses.fields(Sweep)}
    return Sweep(**known | {"outcomes": outcomes})
