"""Result of a run for each single video, beside the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.explanation.anomaly import load_anomaly
from model.run.per_video_scores import PREDICTIONS
from model.run.run import Run
from model.run.source_files import listed_files
from model.statistics.metrics import distance
from pipeline.cache import Cache
from pipeline.common.csv_files import read_csv
from pipeline.corpus.labelled_video import LABEL_NAMES

ENSEMBLE, OUT_OF_FOLD = "whole model", "out of fold"
RIGHT, WRONG, UNDECIDED, UNKNOWN = "right", "wrong", "undecided", "no verdict"


@dataclass(frozen=True)
class VideoResult:
    """Result of one video.

    Attributes:
        id: the video.
        file: name of its file; empty if no table of names is found.
        split: its split in the cache; empty if it is in none.
        label: ``real`` or ``fake``.
        source: where it is from.
        manipulation: how it was made.
        probability: probability of being fake; None if there is none.
        scored_by: `ENSEMBLE`; `OUT_OF_FOLD`, the heads that did not train on it; or why there is
            no probability.
        verdict: ``real``, ``fake``, or ``undecidable``, too close to call; empty without
            probability.
        outcome: `RIGHT`, `WRONG`, `UNDECIDED` or `UNKNOWN`.
        log_odds: distance of the probability from the threshold in logits, positive on the side of
            the truth; None without probability.
        anomaly: share of the real training videos whose motion is less unusual; None if unknown, as
            for training videos.
    """

    id: str
    file: str
    split: str
    label: str
    source: str
    manipulation: str
    probability: float | None
    scored_by: str
    verdict: str
    outcome: str
    log_odds: float | None
    anomaly: float | None


def video_results(
    run: Run,
    cache: Cache,
    probabilities: Mapping[str, float],
    distances: Mapping[str, float],
) -> list[VideoResult]:
    """Return the result of each video of a cache, in the cache's order.

    Args:
        run: a trained run.
        cache: cache of embeddings.
        probabilities: video → probability from the whole model, NaN without a score.
        distances: video → distance from usual motion, where known.
    """
    clips = {clip.video: clip for clip in cache.clips}
    files = listed_files(cache, set(clips))
    out_of_fold = _out_of_fold(run) if cache.sha256 == run.config.cache_sha256 else {}
    anomaly = load_anomaly(run.folder)
    results = []
    for video, clip in clips.items():
        if video in probabilities:
            value, scored_by, why = probabilities[video], ENSEMBLE, "no number came out"
        else:
            value, why = out_of_fold.get(video, (np.nan, f"not in {PREDICTIONS}"))
            scored_by = OUT_OF_FOLD
        probability = None if np.isnan(value) else float(value)
        verdict, outcome, log_odds = _outcome(run, clip.label, probability)
        anomaly_distance = distances.get(video, np.nan)
        results.append(
            VideoResult(
                video,
                files[video][0].name if files.get(video) else "",
                clip.split,
                LABEL_NAMES[clip.label],
                clip.source,
                clip.manipulation,
                probability,
                why if probability is None else scored_by,
                verdict,
                outcome,
                log_odds,
                None if np.isnan(anomaly_distance) else anomaly.quantile(anomaly_distance),
            )
        )
    return results


def _out_of_fold(run: Run) -> dict[str, tuple[float, str]]:
    """Return video → probability in ``predictions.csv``, NaN if it has none, and status."""
    path = run.folder / PREDICTIONS
    return {
        row["id"]: (float(row["probability"] or "nan"), row["status"])
        for row in (read_csv(path) if path.is_file() else [])
    }


def _outcome(run: Run, label: int, probability: float | None) -> tuple[str, str, float | None]:
    """Return the verdict, the outcome and the log-odds of a `VideoResult`."""
    if probability is None:
        return "", UNKNOWN, None
    predicted = int(probability >= run.config.threshold)
    logits = float(distance(np.array(probability), run.config.threshold))
    log_odds = logits if predicted == label else -logits
    if logits < run.config.margin:
        return "undecidable", UNDECIDED, log_odds
    return LABEL_NAMES[predicted], RIGHT if predicted == label else WRONG, log_odds


def worst_mistakes(videos: Sequence[VideoResult], n: int) -> list[VideoResult]:
    """Return the unseen videos with a wrong verdict, the most confidently wrong first.

    Args:
        videos: videos of an evaluation; those scored by the whole model are unseen.
        n: largest number of videos.
    """
    wrong = [v for v in videos if v.scored_by == ENSEMBLE and v.outcome == WRONG]
    return sorted(wrong, key=lambda video: (video.log_odds or 0.0, video.id))[:n]
