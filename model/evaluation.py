"""A run on videos it has never seen, beside two baselines on the very same videos."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from model.baselines import logistic_regression, mean_pooled, metadata
from model.fitting import training_folds
from model.metrics import FEWEST_GROUPS, Metric, all_metrics
from model.plots import plot_precision_recall, plot_roc
from model.run import Run
from model.sequences import Sequences, check_leaks, load_sequences
from model.videos import UNSEEN, by_video, score_videos
from pipeline.cache import Cache
from pipeline.caveats import nobody_known
from pipeline.errors import IntegrityError, NothingUsable, SettingsError
from pipeline.files import write_whole
from pipeline.splits import groups

METRICS = "metrics.json"
DETECTOR = "LSTM"
MEAN_POOL = "mean-pooled embeddings, logistic regression"
METADATA = "metadata only, logistic regression"


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        metrics: detector → split → metric → `Metric`, and ``confusion`` → four counts.
        coverage: split → how many videos it has, and how many have a score.
        n_dropped: videos of the cache that are in no split.
        n_rejected: files of the corpus that extraction could not use.
        caution: what to say of a corpus that does not state who is in it, or nothing.
    """

    metrics: dict[str, dict[str, dict[str, Any]]]
    coverage: dict[str, dict[str, int]]
    n_dropped: int
    n_rejected: int
    caution: str


def evaluate(run: Run, cache: Cache | None = None, *, allow_leaks: bool = False) -> Evaluation:
    """Evaluate a run on the test split and the holdout of its cache, and write the result.

    Writes ``metrics.json``, ``roc.png`` and ``precision_recall.png`` into the run's folder. The
    baselines are trained on the run's own training split and folds.

    Args:
        run: a trained run.
        cache: the embedding cache it was trained on, where it is not where it was.
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
    training = load_sequences(cache, run.config.streams, ("train", "val"))
    folds = training_folds(training, run.config.n_heads, run.config.seed)
    bar = tqdm(total=2 + len(present), desc="evaluate", unit="step", disable=None)
    pooled, pooled_at = logistic_regression(mean_pooled(training), training.labels, folds)
    bar.update()
    facts, facts_at = logistic_regression(metadata(training.clips), training.labels, folds)
    bar.update()

    metrics: dict[str, dict[str, dict[str, Any]]] = {DETECTOR: {}, MEAN_POOL: {}, METADATA: {}}
    coverage: dict[str, dict[str, int]] = {}
    curves = {}
    for split in present:
        data = load_sequences(cache, run.config.streams, (split,))
        ids, labels, probabilities = score_videos(run, data)
        scored = np.isfinite(probabilities)
        bar.update()
        coverage[split] = {"videos": len(ids), "scored": int(scored.sum())}
        if not scored.any():
            continue
        data = _only(data, {video for video, known in zip(ids, scored, strict=True) if known})
        ids, labels, probabilities = score_videos(run, data)
        linked = groups(_ties(data, ids))
        scores = {
            DETECTOR: (probabilities, run.config.threshold),
            MEAN_POOL: (_of_videos(data, pooled.predict_proba(mean_pooled(data))), pooled_at),
            METADATA: (_of_videos(data, facts.predict_proba(metadata(data.clips))), facts_at),
        }
        for name, (values, threshold) in scores.items():
            metrics[name][split] = all_metrics(labels, values, threshold, linked)
        if split == "test" and len(set(labels)) == 2:
            curves = {name: (labels, values) for name, (values, _) in scores.items()}
    bar.close()
    n_dropped = len({clip.video for clip in cache.clips if not clip.split})
    n_rejected = sum(json.loads(cache.attrs["rejected"]).values())
    evaluation = Evaluation(metrics, coverage, n_dropped, n_rejected, nobody_known(cache.clips))
    _write(run, evaluation)
    if curves:
        plot_roc(curves, run.folder / "roc.png", run.config.warnings)
        plot_precision_recall(curves, run.folder / "precision_recall.png", run.config.warnings)
    return evaluation


def cache_of(run: Run, cache: Cache | None = None) -> Cache:
    """The cache of embeddings that a run was trained on.

    Args:
        run: a trained run.
        cache: that cache, where it is not where it was.

    Raises:
        SettingsError: it is not there.
        IntegrityError: this is another one.
    """
    if cache is None:
        try:
            cache = Cache(Path(run.config.cache), "embed")
        except SettingsError as error:
            raise SettingsError(str(error), "say where it is now with --cache") from error
    if cache.sha256 != run.config.cache_sha256:
        raise IntegrityError(
            f"{cache.folder} is not the cache that {run.folder} was trained on: its index differs",
            "evaluate on the cache the run was fitted on, or fit again",
        )
    return cache


def _only(data: Sequences, videos: set[str]) -> Sequences:
    rows = [n for n, clip in enumerate(data.clips) if clip.video in videos]
    return Sequences(data.x[rows], tuple(data.clips[n] for n in rows))


def _ties(data: Sequences, ids: list[str]) -> list[tuple[str, ...]]:
    of_video = {clip.video: clip.ties for clip in data.clips}
    return [of_video[video] for video in ids]


def _of_videos(data: Sequences, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean probability of being fake over the clips of each video: (V,) of (N, 2)."""
    return by_video(data.clips, probabilities[:, 1])[2]


def _write(run: Run, evaluation: Evaluation) -> None:
    def plain(metrics: dict[str, Any]) -> dict[str, Any]:
        return {
            name: dataclasses.asdict(value) if isinstance(value, Metric) else value
            for name, value in metrics.items()
        }

    baselines = {
        name: {split: plain(values) for split, values in of_split.items()}
        for name, of_split in evaluation.metrics.items()
        if name != DETECTOR
    }
    result: dict[str, Any] = {
        split: plain(values) for split, values in evaluation.metrics[DETECTOR].items()
    }
    result |= {
        "baselines": baselines,
        "coverage": evaluation.coverage,
        "videos_in_no_split": evaluation.n_dropped,
        "files_rejected": evaluation.n_rejected,
        "warnings": [*run.config.warnings, *filter(None, [evaluation.caution])],
    }
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    write_whole(run.folder / METRICS, lambda path: path.write_text(text))


CONFUSION = ("real called real", "real called fake", "fake called real", "fake called fake")
SHOWN = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "auc_roc",
    "auc_p_value",
    "average_precision",
    "eer",
    "brier",
    "ece",
)


def headline(evaluation: Evaluation) -> str:
    """The AUC of the detector on each split, a line each."""
    lines = []
    for split, values in evaluation.metrics[DETECTOR].items():
        auc, p_value = show(values["auc_roc"]), show(values["auc_p_value"])
        n = evaluation.coverage[split]
        lines.append(f"{split}: AUC {auc} on {n['scored']} of {n['videos']} videos (p {p_value})")
    return "\n".join(lines)


def table(run: Run, evaluation: Evaluation) -> str:
    """The evaluation as plain text."""
    lines = []
    for warning in run.config.warnings:
        lines += [f"WARNING: {warning}", ""]
    for split in evaluation.coverage:
        n = evaluation.coverage[split]
        lines.append(f"{split}: {n['videos']} videos, {n['scored']} of them scored")
        if not n["scored"]:
            continue
        lines.append(f"  {'':18}" + "".join(f"{name:>24}" for name in _short(evaluation)))
        for metric in SHOWN:
            values = [evaluation.metrics[name][split][metric] for name in evaluation.metrics]
            lines.append(f"  {metric:18}" + "".join(f"{show(value):>24}" for value in values))
        lines.append(
            f"  {'threshold':18}"
            + "".join(
                f"{of_split[split]['threshold'].value:>24.3f}"
                for of_split in evaluation.metrics.values()
            )
        )
        for row, name in enumerate(CONFUSION):
            counts = [of_split[split]["confusion"][row] for of_split in evaluation.metrics.values()]
            lines.append(f"  {name:18}" + "".join(f"{count:>24}" for count in counts))
        lines.append("")
    lines += [
        "in brackets: 95% intervals of a bootstrap over identities, left out where there are fewer",
        f"than {FEWEST_GROUPS} groups of linked videos; auc_p_value: how probable an AUC this far",
        "from 0.5 is by chance, were every video of somebody else; -: undefined",
        f"{evaluation.n_dropped} videos are in no split; "
        f"{evaluation.n_rejected} files were unusable",
    ]
    if evaluation.caution:
        lines.append(f"CAUTION: {evaluation.caution}")
    return "\n".join(lines)


def _short(evaluation: Evaluation) -> list[str]:
    return [name.split(",")[0] for name in evaluation.metrics]


def show(metric: Metric) -> str:
    """A metric with its interval, as text."""
    if metric.value is None:
        return "-"
    if metric.low is None or metric.high is None:
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} [{metric.low:.2f}, {metric.high:.2f}]"
