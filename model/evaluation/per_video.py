"""Result of a run for each video, beside the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.explanation.anomaly import load_anomaly
from model.run.per_video_scores import PREDICTIONS
from model.run.run import UNDECIDABLE, Run
from model.run.source_files import listed_files
from model.statistics.metrics import distance
from pipeline.cache import Cache
from pipeline.common.csv_files import read_csv
from pipeline.corpus.labelled_video import LABEL_NAMES

ENSEMBLE = "whole model"  # on unseen videos
OUT_OF_FOLD = "out of fold"  # on training videos, by heads that did not train on them
RIGHT, WRONG, UNDECIDED, UNKNOWN = "right", "wrong", "undecided", "no verdict"


@dataclass(frozen=True)
class VideoResult:
    """Result of one video."""

    id: str
    file: str  # name; empty if no table of names is found
    split: str  # empty if in none
    label: str  # real or fake
    source: str
    manipulation: str
    probability: float | None  # of being fake
    scored_by: str  # `ENSEMBLE`, `OUT_OF_FOLD`, or why there is no probability
    verdict: str  # as of `Run.verdict`; empty without probability
    outcome: str  # `RIGHT`, `WRONG`, `UNDECIDED` or `UNKNOWN`
    log_odds: float | None  # from the threshold, positive on the side of the truth
    anomaly: float | None  # share of real training videos whose motion is less unusual


def video_results(
    run: Run,
    cache: Cache,
    probabilities: Mapping[str, float],
    distances: Mapping[str, float],
) -> list[VideoResult]:
    """Return the result of each video of a cache; the rest of the probabilities are out of fold."""
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
    """Return video → probability, or NaN, and status."""
    path = run.folder / PREDICTIONS
    return {
        row["id"]: (float(row["probability"] or "nan"), row["status"])
        for row in (read_csv(path) if path.is_file() else [])
    }


def _outcome(run: Run, label: int, probability: float | None) -> tuple[str, str, float | None]:
    """Return the verdict, the outcome and the log-odds of a `VideoResult`."""
    if probability is None:
        return "", UNKNOWN, None
    verdict, threshold = run.verdict(probability), run.config.threshold
    outcome = {UNDECIDABLE: UNDECIDED, LABEL_NAMES[label]: RIGHT}.get(verdict, WRONG)
    sign = 1 if (probability >= threshold) == label else -1
    return verdict, outcome, sign * float(distance(np.array(probability), threshold))


def worst_mistakes(videos: Sequence[VideoResult], n: int) -> list[VideoResult]:
    """Return up to n unseen videos with a wrong verdict, the most confidently wrong first."""
    wrong = [v for v in videos if v.scored_by == ENSEMBLE and v.outcome == WRONG]
    return sorted(wrong, key=lambda video: (video.log_odds or 0.0, video.id))[:n]
