"""A run on videos it has never seen, beside controls on the very same videos."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

from features.backbones import resolve_device
from model.evaluation.controls import (
    ANOMALY,
    LOGISTIC,
    MEAN_POOL,
    SHUFFLED,
    TRAINED,
    Control,
    absent_controls,
    anomaly_control,
    control,
    keep_controls,
    kept_controls,
    trained_controls,
)
from model.evaluation.per_video import VideoResult, video_results
from model.run.per_video_scores import UNSEEN, score_videos
from model.run.plots import plot_precision_recall, plot_reliability, plot_roc
from model.run.run import Run, cache_of
from model.statistics.breakdown import Part, by_manipulation, by_source
from model.statistics.comparison import Comparison, Scored, compare, sentence
from model.statistics.metrics import Metric, all_metrics
from model.training.sequences import Sequences, check_leaks, load_sequences
from pipeline.cache import Cache
from pipeline.cache.datacard import nobody_known
from pipeline.common.errors import NothingUsable
from pipeline.common.files import write_whole
from pipeline.corpus.tables import split_rows
from pipeline.splits.partition import groups

METRICS = "metrics.json"
DETECTOR = "detector"
PLOTTED = "test"  # the split that curves and comparisons in words are of
ALL = "all"  # its name where they are of a whole corpus
OF_PROBABILITIES = ("brier", "ece")  # undefined for scores that are none
COMPARED = {  # control → what follows if the detector is better, and if it is not
    SHUFFLED: (
        "the order of frames carries something",
        "nothing here shows that the order of frames carries anything",
    ),
    MEAN_POOL: (
        "the head is worth more than a mean over time",
        "nothing here shows that the head is worth more than a mean over time",
    ),
}


@dataclass
class Evaluation:
    """What came of it.

    Attributes:
        folder: where it is written.
        metrics: detector or control → split → metric → `Metric`, and ``confusion`` → four counts.
        coverage: split → how many videos it has, and how many have a score.
        by_manipulation: split → manipulation → `Part`, for splits with several.
        by_source: split → source → `Part`, for splits with several.
        comparisons: split → control → the detector against it.
        absent: control → why it is not there.
        n_dropped: videos that are left out because they are in no split.
        rejected: why extraction could not use files of the corpus → how many.
        probabilities: video → that of the whole model, NaN where no number came out.
        distances: video → how far its motion is from usual, where a run can tell.
        videos: what the run makes of each video of the cache.
        splits: the cache by split: videos, identities and clips.
        caution: what to say of a corpus that does not state who is in it, or nothing.
        leak_warning: what to say if these videos are not all unseen, or nothing.
        warnings: all that is to be said over the result, the caution apart.
    """

    folder: Path
    metrics: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    coverage: dict[str, dict[str, int]] = field(default_factory=dict)
    by_manipulation: dict[str, dict[str, Part]] = field(default_factory=dict)
    by_source: dict[str, dict[str, Part]] = field(default_factory=dict)
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    n_dropped: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    probabilities: dict[str, float] = field(default_factory=dict)
    distances: dict[str, float] = field(default_factory=dict)
    videos: list[VideoResult] = field(default_factory=list)
    splits: list[dict[str, Any]] = field(default_factory=list)
    caution: str = ""
    leak_warning: str = ""
    warnings: list[str] = field(default_factory=list)

    def having(self, split: str) -> dict[str, dict[str, Any]]:
        """Detector or control → its metrics on a split, of those that have any there."""
        found = {name: of_split.get(split) for name, of_split in self.metrics.items()}
        return {name: values for name, values in found.items() if values}

    @property
    def n_rejected(self) -> int:
        """How many files of the corpus extraction could not use."""
        return sum(self.rejected.values())

    @property
    def verdicts(self) -> list[str]:
        """Whether the detector beats the controls that it should, in sentences."""
        found = self.comparisons.get(PLOTTED) or self.comparisons.get(ALL, {})
        return [
            sentence(name, found[name], meaning=meaning, otherwise=otherwise)
            for name, (meaning, otherwise) in COMPARED.items()
            if name in found
        ]


def evaluate(
    run: Run,
    cache: Cache | None = None,
    *,
    controls: bool = True,
    device: str = "auto",
    allow_leaks: bool = False,
) -> Evaluation:
    """Evaluate a run on the test split and the holdout of its cache, and write the result.

    Writes ``metrics.json`` and curves into the run's folder. The controls are trained on the
    run's own training split and folds, once: ``controls.pt`` keeps them.

    Args:
        run: a trained run.
        cache: the embedding cache it was trained on, where it is not where it was.
        controls: train heads as controls too, not only two logistic regressions.
        device: they are trained on.
        allow_leaks: go on where its split leaks; every result then says so.

    Raises:
        IntegrityError: the cache is not the one that the run was trained on, or its split leaks.
        NothingUsable: there is no test video.
    """
    cache = cache_of(run, cache)
    check_leaks(cache, allow=allow_leaks)
    present = [split for split in UNSEEN if any(clip.split == split for clip in cache.clips)]
    if not present:
        raise NothingUsable(
            f"{cache.folder} has neither a test split nor a holdout",
            "extract with --test 0.2, or with more identities",
        )
    with tqdm(total=len(present), desc="evaluate", unit="step", disable=None) as bar:
        rivals, absent = rivals_of(run, cache, cache, controls, device, bar)
        evaluation = Evaluation(run.folder, absent=absent)
        curves: dict[str, dict[str, Any]] = {}
        for split in present:
            curves[split] = judge(run, cache, (split,), split, rivals, evaluation)
            bar.update()
    evaluation.n_dropped = len({clip.video for clip in cache.clips if not clip.split})
    finish(run, cache, evaluation, curves.get(PLOTTED, {}), "test split")
    return evaluation


def rivals_of(
    run: Run, cache: Cache, own: Cache | None, controls: bool, device: str, bar: "tqdm[NoReturn]"
) -> tuple[list[Control], dict[str, str]]:
    """The controls of a run, trained where they are not kept.

    Args:
        run: a trained run.
        cache: whose videos they will be given.
        own: that the run was trained on; None if it is not to be had.
        controls: heads as controls too.
        device: they are trained on.
        bar: of progress, which becomes longer by what there is to train.

    Returns:
        the controls, and name → why one is not there.
    """
    absent = absent_controls(run, cache)
    if own and own is not cache:
        absent |= absent_controls(run, own)
    if not controls:
        absent = dict.fromkeys(TRAINED, "not asked for") | absent
    wanted = [name for name in (*LOGISTIC, *TRAINED) if name not in absent]
    kept = kept_controls(run)
    missing = [name for name in wanted if name not in kept]
    if missing and own:
        bar.total += run.config.n_heads * len(set(missing).intersection(TRAINED))
        where = resolve_device(device)
        kept |= trained_controls(run, own, missing, device=where, progress=bar.update)
        keep_controls(run, kept)
    elif missing:
        absent |= dict.fromkeys(missing, "it was not trained, and what to train it on is not there")
    trained = {name: control(name, run, kept[name]) for name in wanted if name in kept}
    rivals = [
        *(trained[name] for name in LOGISTIC if name in trained),
        *anomaly_control(run, cache),
        *(trained[name] for name in TRAINED if name in trained),
    ]
    return rivals, absent


def judge(
    run: Run,
    cache: Cache,
    splits: Sequence[str],
    name: str,
    controls: Sequence[Control],
    evaluation: Evaluation,
) -> dict[str, Any]:
    """Add what a run and its controls make of some splits to an evaluation.

    Args:
        run: a trained run.
        cache: of the embed stage.
        splits: of the cache, whose videos are taken together.
        name: under which the result goes.
        controls: that are given the same videos.
        evaluation: the result, which is changed.

    Returns:
        detector or control → labels and probabilities, nothing if a class is missing.
    """
    data = load_sequences(cache, run.config.streams, splits)
    ids, labels, probabilities = score_videos(run, data)
    scored = np.isfinite(probabilities)
    evaluation.coverage[name] = {"videos": len(ids), "scored": int(scored.sum())}
    evaluation.probabilities |= dict.fromkeys(ids, np.nan)
    if not scored.any():
        return {}
    if not scored.all():
        data = _only(data, {video for video, known in zip(ids, scored, strict=True) if known})
        ids, labels, probabilities = score_videos(run, data)
    evaluation.probabilities |= dict(zip(ids, probabilities.tolist(), strict=True))
    of_video = {clip.video: clip for clip in data.clips}
    clips = list(of_video.values())
    linked = groups([clip.group_keys for clip in clips])
    scores = {DETECTOR: Scored(probabilities, run.config.threshold)}
    for rival in controls:
        seen = data
        if rival.streams != run.config.streams:
            seen = load_sequences(cache, rival.streams, splits)
            seen = seen if scored.all() else _only(seen, set(of_video))
        values = rival.score(seen)
        if rival.name == ANOMALY:
            evaluation.distances |= dict(zip(ids, values.tolist(), strict=True))
        if np.isfinite(values).all():
            scores[rival.name] = Scored(values, rival.threshold)
        else:
            evaluation.absent[rival.name] = f"no number came out for some video of {name}"
    uncalibrated = {rival.name for rival in controls if not rival.calibrated}
    for which, of in scores.items():
        margin = run.config.margin if which == DETECTOR else 0.0
        found = all_metrics(labels, of.probabilities, of.threshold, linked, margin=margin)
        if which in uncalibrated:
            found |= dict.fromkeys(OF_PROBABILITIES, Metric(None, None, None, len(labels)))
        evaluation.metrics.setdefault(which, {})[name] = found
    parts = (clips, probabilities, run.config.threshold, linked)
    _add(evaluation.by_manipulation, name, by_manipulation(*parts))
    _add(evaluation.by_source, name, by_source(*parts))
    if len(set(labels)) < 2:
        return {}
    _add(
        evaluation.comparisons,
        name,
        {
            rival: compare(labels, scores[DETECTOR], of, linked)
            for rival, of in scores.items()
            if rival != DETECTOR
        },
    )
    return {which: (labels, of.probabilities) for which, of in scores.items()}


def _add(result: dict[str, Any], name: str, values: Mapping[str, Any]) -> None:
    if values:
        result[name] = values


def _only(data: Sequences, videos: set[str]) -> Sequences:
    return data.rows([n for n, clip in enumerate(data.clips) if clip.video in videos])


def finish(
    run: Run, cache: Cache, evaluation: Evaluation, curves: Mapping[str, Any], title: str
) -> None:
    """Write ``metrics.json`` and, of what `judge` returned, the curves."""
    evaluation.rejected = json.loads(cache.attrs["rejected"])
    evaluation.splits = _splits(cache)
    of_videos = (evaluation.probabilities, evaluation.distances)
    evaluation.videos = video_results(run, cache, *of_videos)
    evaluation.caution = nobody_known(cache.clips)
    evaluation.leak_warning = run.config.leak_warning
    evaluation.warnings = run.config.warnings
    _write(cache, evaluation)
    if curves:
        folder, warnings = evaluation.folder, evaluation.warnings
        plot_roc(curves, folder / "roc.png", title, warnings)
        plot_precision_recall(curves, folder / "precision_recall.png", title, warnings)
        plot_reliability(curves[DETECTOR], folder / "reliability.png", title, warnings)


def _splits(cache: Cache) -> list[dict[str, Any]]:
    """Each split that there is, and none, with its videos, identities and clips."""
    videos = list({clip.video: clip for clip in cache.clips}.values())
    clips = Counter(clip.split for clip in cache.clips)
    rows = split_rows(videos, [video.split for video in videos])
    return [row | {"clips": clips[row["split"]]} for row in rows]


def _write(cache: Cache, evaluation: Evaluation) -> None:
    found = {
        name: {split: _plain(values) for split, values in of_split.items()}
        for name, of_split in evaluation.metrics.items()
    }
    result: dict[str, Any] = found.pop(DETECTOR, {})
    result |= {
        "controls": found,
        "absent_controls": evaluation.absent,
        "comparisons": {
            split: {name: comparison.as_json() for name, comparison in values.items()}
            for split, values in evaluation.comparisons.items()
        },
        "verdicts": evaluation.verdicts,
        "by_manipulation": _plain(evaluation.by_manipulation),
        "by_source": _plain(evaluation.by_source),
        "coverage": evaluation.coverage,
        "videos_in_no_split": evaluation.n_dropped,
        "files_rejected": evaluation.n_rejected,
        "cache": str(cache.folder.resolve()),
        "cache_sha256": cache.sha256,
        "warnings": [*evaluation.warnings, *filter(None, [evaluation.caution])],
    }
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    write_whole(evaluation.folder / METRICS, lambda path: path.write_text(text))


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries, all the way down."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
