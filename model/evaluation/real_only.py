"""Evaluation of a run without a detector: do scores that never saw a fake tell fakes?"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation.controls import unusual_controls
from model.evaluation.evaluation import ALL, METRICS, PROBABILITY_METRICS
from model.evaluation.other_corpus import check_made_alike, folder_of
from model.evaluation.own_fakes import TESTED_ON_OWN_FAKES, apart, only_own_fakes
from model.run.per_video_scores import UNSEEN, by_video
from model.run.run import Run
from model.run.trained_on import check_unseen
from model.statistics.metrics import all_metrics
from model.training.sequences import check_leaks, load_sequences
from pipeline.cache import Cache
from pipeline.common.errors import NothingUsable
from pipeline.common.files import write_whole
from pipeline.splits.partition import groups

COLUMNS = {  # metric → title
    "auc_roc": "AUC",
    "auc_p_value": "p",
    "recall": "fakes found",
    "accuracy": "accuracy",
}


@dataclass(frozen=True)
class RealOnlyEvaluation:
    """Metrics of a run's scores: split → score → metric; each on the videos that have the score."""

    folder: Path
    metrics: dict[str, dict[str, dict[str, Any]]]
    coverage: dict[str, dict[str, int]]  # split → number of ``videos``, and of those ``fake``
    absent: dict[str, str]  # score → why it is missing
    warnings: list[str]

    def __str__(self) -> str:
        lines = [f"WARNING: {warning}" for warning in self.warnings]
        for split, of_split in self.metrics.items():
            n = self.coverage[split]
            lines.append(f"{split}: {n['videos']} videos, {n['fake']} of them fake")
            lines.append(f"  {'':18}" + "".join(f"{title:24}" for title in COLUMNS.values()))
            for name, metrics in of_split.items():
                lines.append(f"  {name:18}" + "".join(f"{metrics[m]!s:24}" for m in COLUMNS))
        lines += [f"no {name}: {why}" for name, why in self.absent.items()]
        return "\n".join(line.rstrip() for line in lines)


def evaluate_real_only(run: Run, cache: Cache, *, allow_leaks: bool = False) -> RealOnlyEvaluation:
    """Evaluate the scores of a run on test split and holdout of its cache, or on all of another.

    Writes ``metrics.json`` into the run's folder, or into ``cross/<name of the cache>``.

    Raises:
        IntegrityError: the split leaks, or something of the other cache was trained on.
        NothingUsable: there are no fakes, or no real videos, to tell from one another.
        SettingsError: the other cache was extracted or embedded with other settings.
    """
    if cache.sha256 == run.config.cache_sha256:
        leak_warning, folder = check_leaks(cache, allow=allow_leaks), run.folder
        splits = {split: {split} for split in UNSEEN}
    else:
        check_made_alike(run, cache)
        leak_warning = check_unseen(run.folder, cache.clips, str(cache.folder), allow=allow_leaks)
        folder = folder_of(run, cache)
        splits = {ALL: {clip.split for clip in cache.clips}}
    labels = {
        name: {clip.label for clip in cache.clips if clip.split in members}
        for name, members in splits.items()
    }
    splits = {name: members for name, members in splits.items() if len(labels[name]) == 2}
    if not splits:
        raise NothingUsable(
            f"there is nothing to evaluate {run.folder} on, which was fitted on real videos alone: "
            f"{cache.folder} has no fakes beside real videos that it did not see",
            "give embeddings of a labelled corpus with --cache",
        )
    controls, absent = unusual_controls(run, cache)
    metrics: dict[str, dict[str, dict[str, Any]]] = {}
    coverage = {}
    for split, members in splits.items():
        data = load_sequences(cache, ("motion",), sorted(members))
        ids, of_videos, _ = by_video(data.clips, np.zeros(len(data.clips)))
        clips = {clip.video: clip for clip in data.clips}
        linked = groups([clips[video].group_keys for video in ids])
        results = apart(split, [clips[video] for video in ids])
        for result, rows in results.items():
            coverage[result] = {"videos": int(rows.sum()), "fake": int(of_videos[rows].sum())}
            metrics[result] = {}
        for control in controls:
            values = control.score(data)
            for result, rows in results.items():
                known = np.isfinite(values) & rows
                if known.any():
                    found = all_metrics(
                        of_videos[known], values[known], control.threshold, linked[known]
                    )
                    metrics[result][control.name] = {
                        name: metric
                        for name, metric in found.items()
                        if name not in PROBABILITY_METRICS
                    }
    on_own = TESTED_ON_OWN_FAKES if only_own_fakes(metrics) else ""
    warnings = list(dict.fromkeys([*run.config.warnings, *filter(None, [leak_warning, on_own])]))
    evaluation = RealOnlyEvaluation(folder, metrics, coverage, absent, warnings)
    _write(evaluation, cache)
    return evaluation


def _write(evaluation: RealOnlyEvaluation, cache: Cache) -> None:
    names = {name for of_split in evaluation.metrics.values() for name in of_split}
    result = {
        "controls": {
            name: {split: of[name] for split, of in evaluation.metrics.items() if name in of}
            for name in sorted(names)
        },
        "absent_controls": evaluation.absent,
        "coverage": evaluation.coverage,
        "cache": str(cache.folder.resolve()),
        "cache_sha256": cache.sha256,
        "warnings": evaluation.warnings,
    }
    text = json.dumps(result, indent=1, allow_nan=False, default=dataclasses.asdict) + "\n"
    evaluation.folder.mkdir(parents=True, exist_ok=True)
    write_whole(evaluation.folder / METRICS, lambda path: path.write_text(text))
