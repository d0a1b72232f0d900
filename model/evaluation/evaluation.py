"""A run on videos it has never seen, beside controls on the very same videos."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from model.evaluation.controls import (
    ANOMALY,
    MEAN_POOL,
    SHUFFLED,
    UNUSUAL_SCORES,
    Control,
    load_or_train_controls,
)
from model.evaluation.own_fakes import (
    TESTED_ON_OWN_FAKES,
    apart,
    on_own_fakes,
    only_own_fakes,
)
from model.evaluation.per_video import VideoResult, video_results
from model.run.per_video_scores import score_videos, unseen_splits
from model.run.plots import plot_precision_recall, plot_reliability, plot_roc
from model.run.run import Run, cache_of, check_detector
from model.statistics.breakdown import Part, by_manipulation, by_source
from model.statistics.comparison import Comparison, Scored, compare, sentence
from model.statistics.metrics import Metric, all_metrics
from model.training.sequences import Sequences, check_leaks, load_sequences
from pipeline.cache import Cache, Clip
from pipeline.cache.datacard import nobody_known
from pipeline.common.files import write_whole
from pipeline.corpus.tables import split_rows
from pipeline.splits.partition import groups

METRICS = "metrics.json"
DETECTOR = "detector"
UNPLOTTED = {UNUSUAL_SCORES[name] for name in ("trajectory", "stall", "d3")}  # but combined
PLOTTED = "test"  # split of the curves and of the verdicts on controls
ALL = "all"  # stands for all splits of another corpus
PROBABILITY_METRICS = ("brier", "ece")  # undefined for scores that are not probabilities
CONTROL_VERDICTS = {  # control → what follows if the detector is better, and if it is not
    SHUFFLED: (
        "the order of frames carries something",
        "nothing here shows that the order of frames carries anything",
    ),
    MEAN_POOL: (
        "the head is worth more than a mean over time",
        "nothing here shows that the head is worth more than a mean over time",
    ),
}


@dataclass(frozen=True)
class Scores:
    """Scores of a run and its controls on the same V videos."""

    clips: Sequence[Clip]  # one per video
    scores: Mapping[str, Scored]  # detector or control → (V,) scores; empty if V is 0
    absent: Mapping[str, str]  # control → why it has no scores
    probabilities: Mapping[str, float]  # video → probability; NaN for videos not among the V
    distances: Mapping[str, float]  # video → distance from usual motion

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels, (V,)."""
        return np.array([clip.label for clip in self.clips], np.int64)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a run on unseen videos, and everything a report shows beside them.

    Where there are own fakes, a split has a result on these, ``test on own fakes``, apart from that
    on real ones.

    ``metrics``: detector or control → split → metric → `Metric`; ``confusion`` → four counts.
    """

    folder: Path
    metrics: dict[str, dict[str, dict[str, Any]]]
    coverage: dict[str, dict[str, int]]  # split → number of ``videos``, and of those ``scored``
    by_manipulation: dict[str, dict[str, Part]]  # by split, if it has several
    by_source: dict[str, dict[str, Part]]  # likewise
    comparisons: dict[str, dict[str, Comparison]]  # split → control → detector against it
    absent: dict[str, str]  # control → why it is missing
    n_dropped: int  # videos in no split
    rejected: dict[str, int]  # why extraction could not use a file → number of files
    videos: list[VideoResult]  # all of the cache
    splits: list[dict[str, Any]]  # all of the cache, with their videos, identities and clips
    caution: str  # warning that identities are unknown, or empty
    leak_warning: str  # warning that some videos were seen in training, or empty
    warnings: list[str]  # all but ``caution``

    def metrics_on(self, split: str) -> dict[str, dict[str, Any]]:
        """Return detector or control → metrics on a split."""
        return {name: of[split] for name, of in self.metrics.items() if split in of}

    @property
    def n_rejected(self) -> int:
        """Number of files that extraction could not use."""
        return sum(self.rejected.values())

    @property
    def verdicts(self) -> list[str]:
        """Sentences on whether the detector beats its most important controls."""
        result = plotted(self.comparisons)
        comparisons = self.comparisons.get(result, {})
        where = "" if result in (PLOTTED, ALL) else f"{result.capitalize()}: "
        return [
            where + sentence(name, comparisons[name], meaning=meaning, otherwise=otherwise)
            for name, (meaning, otherwise) in CONTROL_VERDICTS.items()
            if name in comparisons
        ]


def evaluate(
    run: Run,
    cache: Cache | None = None,
    *,
    controls: bool = True,
    device: str = "auto",
    allow_leaks: bool = False,
) -> Evaluation:
    """Evaluate a run on the test split and the holdout of its cache.

    Writes ``metrics.json`` and curves into the run's folder. Controls are trained once, on the
    run's training split and folds, and stored in ``controls.pt``.

    Args:
        run: trained run.
        cache: the embedding cache it was trained on, by default at its recorded path.
        controls: train heads as controls, not only logistic regressions.
        device: where controls are trained.
        allow_leaks: evaluate although the split leaks; every result then carries a warning.

    Raises:
        IntegrityError: the cache is not the one that the run was trained on, or its split leaks.
        NothingUsable: there is no test video.
    """
    check_detector(run.config, run.folder, "this evaluation")
    cache = cache_of(run, cache)
    check_leaks(cache, allow=allow_leaks)
    splits = unseen_splits(cache)
    scores = {}
    with tqdm(total=len(splits), desc="evaluate", unit="step", disable=None) as bar:
        trained, absent = load_or_train_controls(
            run, cache, cache, heads=controls, device=device, bar=bar
        )
        for split in splits:
            scores[split] = score(run, cache, (split,), split, trained)
            bar.update()
    n_dropped = len({clip.video for clip in cache.clips if not clip.split})
    results = results_apart(scores, cache)
    evaluation = compare_scores(run, cache, run.folder, results, absent, n_dropped)
    title = "test split" if PLOTTED in results else f"{PLOTTED} split, own fakes"
    write_evaluation(evaluation, cache, results.get(plotted(results)), title)
    return evaluation


def score(
    run: Run, cache: Cache, splits: Sequence[str], name: str, controls: Sequence[Control]
) -> Scores:
    """Score the videos of some splits, called ``name`` in messages, by a run and its controls."""
    data = load_sequences(cache, run.config.streams, splits)
    ids, _, values = score_videos(run, data)
    scored = np.isfinite(values)
    probabilities = dict.fromkeys(ids, np.nan)
    if not scored.any():
        return Scores([], {}, {}, probabilities, {})
    if not scored.all():
        data = _of_videos(data, {ids[n] for n in np.flatnonzero(scored)})
        ids, _, values = score_videos(run, data)
    probabilities |= dict(zip(ids, values.tolist(), strict=True))
    scores, absent, distances = {DETECTOR: Scored(values, run.config.threshold)}, {}, {}
    clips = {clip.video: clip for clip in data.clips}
    for control in controls:
        seen = data
        if control.streams != run.config.streams:
            seen = load_sequences(cache, control.streams, splits)
            seen = seen if scored.all() else _of_videos(seen, set(clips))
        values = control.score(seen)
        if control.name == ANOMALY:
            distances = dict(zip(ids, values.tolist(), strict=True))
        if np.isfinite(values).all():
            scores[control.name] = Scored(values, control.threshold)
        else:
            absent[control.name] = f"no number came out for some video of {name}"
    return Scores(list(clips.values()), scores, absent, probabilities, distances)


def plotted(results: Mapping[str, Any]) -> str:
    """Return the result that curves and verdicts on controls are of: on real fakes, if on any."""
    names = (PLOTTED, ALL, on_own_fakes(PLOTTED), on_own_fakes(ALL))
    return next((name for name in names if name in results), PLOTTED)


def results_apart(scores: Mapping[str, Scores], cache: Cache) -> dict[str, Scores]:
    """Return the scores of each split on real fakes and on own ones, with the same real videos."""
    clip_of = {clip.video: clip for clip in cache.clips}
    results = {}
    for split, found in scores.items():
        videos = list(found.probabilities)
        for name, mask in apart(split, [clip_of[video] for video in videos]).items():
            chosen = {video for video, is_in in zip(videos, mask, strict=True) if is_in}
            rows = [n for n, clip in enumerate(found.clips) if clip.video in chosen]
            results[name] = Scores(
                [found.clips[n] for n in rows],
                {
                    key: dataclasses.replace(scored, probabilities=scored.probabilities[rows])
                    for key, scored in found.scores.items()
                    if rows
                },
                found.absent,
                {video: found.probabilities[video] for video in videos if video in chosen},
                {video: d for video, d in found.distances.items() if video in chosen},
            )
    return results


def _of_videos(data: Sequences, videos: set[str]) -> Sequences:
    return data.rows([n for n, clip in enumerate(data.clips) if clip.video in videos])


def compare_scores(
    run: Run,
    cache: Cache,
    folder: Path,
    scores: Mapping[str, Scores],
    absent: Mapping[str, str],
    n_dropped: int = 0,
) -> Evaluation:
    """Compute all metrics by split, and compare the detector with its controls."""
    metrics: dict[str, dict[str, dict[str, Any]]] = {}
    comparisons, manipulations, sources = {}, {}, {}
    for split, found in scores.items():
        absent = {**absent, **found.absent}
        if not found.clips:
            continue
        labels, linked = found.labels, groups([clip.group_keys for clip in found.clips])
        for name, scored in found.scores.items():
            margin = run.config.margin if name == DETECTOR else 0.0
            of_split = all_metrics(
                labels, scored.probabilities, scored.threshold, linked, margin=margin
            )
            if name in UNUSUAL_SCORES.values():
                undefined = Metric(None, None, None, len(labels))
                of_split |= dict.fromkeys(PROBABILITY_METRICS, undefined)
            metrics.setdefault(name, {})[split] = of_split
        detector = found.scores[DETECTOR]
        parts = (found.clips, detector.probabilities, detector.threshold, linked)
        manipulations[split] = by_manipulation(*parts)
        sources[split] = by_source(*parts)
        if len(set(labels)) == 2:
            comparisons[split] = {
                name: compare(labels, detector, scored, linked)
                for name, scored in found.scores.items()
                if name != DETECTOR
            }
    probabilities = {k: v for found in scores.values() for k, v in found.probabilities.items()}
    distances = {k: v for found in scores.values() for k, v in found.distances.items()}
    videos = list({clip.video: clip for clip in cache.clips}.values())
    n_clips = Counter(clip.split for clip in cache.clips)
    return Evaluation(
        folder=folder,
        metrics=metrics,
        coverage={
            split: {"videos": len(found.probabilities), "scored": len(found.clips)}
            for split, found in scores.items()
        },
        by_manipulation={split: parts for split, parts in manipulations.items() if parts},
        by_source={split: parts for split, parts in sources.items() if parts},
        comparisons={split: found for split, found in comparisons.items() if found},
        absent=dict(absent),
        n_dropped=n_dropped,
        rejected=json.loads(cache.attrs["rejected"]),
        videos=video_results(run, cache, probabilities, distances),
        splits=[
            row | {"clips": n_clips[row["split"]]}
            for row in split_rows(videos, [video.split for video in videos])
        ],
        caution=nobody_known(cache.clips),
        leak_warning=run.config.leak_warning,
        warnings=[
            *run.config.warnings,
            *([TESTED_ON_OWN_FAKES] if only_own_fakes(scores) else []),
        ],
    )


def write_evaluation(
    evaluation: Evaluation, cache: Cache, plotted: Scores | None, title: str
) -> None:
    """Write ``metrics.json``, and curves of ``plotted`` if it has both classes."""
    metrics = dict(evaluation.metrics)
    result: dict[str, Any] = metrics.pop(DETECTOR, {}) | {
        "controls": metrics,
        "absent_controls": evaluation.absent,
        "comparisons": {
            split: {name: comparison.as_json() for name, comparison in comparisons.items()}
            for split, comparisons in evaluation.comparisons.items()
        },
        "verdicts": evaluation.verdicts,
        "by_manipulation": evaluation.by_manipulation,
        "by_source": evaluation.by_source,
        "coverage": evaluation.coverage,
        "videos_in_no_split": evaluation.n_dropped,
        "files_rejected": evaluation.n_rejected,
        "cache": str(cache.folder.resolve()),
        "cache_sha256": cache.sha256,
        "warnings": [*evaluation.warnings, *filter(None, [evaluation.caution])],
    }
    text = json.dumps(result, indent=1, allow_nan=False, default=dataclasses.asdict) + "\n"
    write_whole(evaluation.folder / METRICS, lambda path: path.write_text(text))
    if plotted and len(set(plotted.labels)) == 2:
        folder, warnings = evaluation.folder, evaluation.warnings
        curves = {
            name: (plotted.labels, scored.probabilities)
            for name, scored in plotted.scores.items()
            if name not in UNPLOTTED
        }
        plot_roc(curves, folder / "roc.png", title, warnings)
        plot_precision_recall(curves, folder / "precision_recall.png", title, warnings)
        plot_reliability(curves[DETECTOR], folder / "reliability.png", title, warnings)
