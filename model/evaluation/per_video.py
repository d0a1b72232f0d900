"""What a run makes of each single video, beside the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.explanation.anomaly import load_anomaly
from model.run.per_video_scores import PREDICTIONS
from model.run.run import Run
from model.run.source_files import named
from model.statistics.metrics import distance
from pipeline.cache import Cache
from pipeline.common.csv_files import read_csv
from pipeline.corpus.labelled_video import LABEL_NAMES

ENSEMBLE, OUT_OF_FOLD = "whole model", "out of fold"
RIGHT, WRONG, UNDECIDED, UNKNOWN = "right", "wrong", "undecided", "no verdict"


@dataclass(frozen=True)
class VideoResult:
    """What is known of one video.

    Attributes:
        id: of the video.
        file: its name, empty if no table of names is within reach.
        split: of the cache, empty if it is in none.
        label: ``real`` or ``fake``.
        source: where it is from.
        manipulation: how it was made.
        probability: of being fake; None if there is none.
        scored_by: `ENSEMBLE`; `OUT_OF_FOLD`: the heads that did not train on it; or why there is
            no probability.
        verdict: ``real``, ``fake``, ``undecidable``: too close to call; empty without probability.
        outcome: `RIGHT`, `WRONG`, `UNDECIDED` or `UNKNOWN`.
        log_odds: logits by which the probability is beyond the threshold, to the side of the truth;
            None without probability.
        anomaly: the share of real training videos that move less strangely; None if it is not
            known, as of training videos.
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
    """What a run makes of each video of a cache, in its order.

    Args:
        run: a trained run.
        cache: of the embed stage.
        probabilities: those that the whole model gave, NaN where no number came out.
        distances: from usual motion, where they are known.
    """
    of_video = {clip.video: clip for clip in cache.clips}
    files = named(cache, set(of_video))
    out_of_fold = _out_of_fold(run) if cache.sha256 == run.config.cache_sha256 else {}
    anomaly = load_anomaly(run.folder)
    results = []
    for video, clip in of_video.items():
        if video in probabilities:
            found, scored_by, why = probabilities[video], ENSEMBLE, "no number came out"
        else:
            found, why = out_of_fold.get(video, (np.nan, f"not in {PREDICTIONS}"))
            scored_by = OUT_OF_FOLD
        probability = None if np.isnan(found) else float(found)
        verdict, outcome, log_odds = _judged(run, clip.label, probability)
        strange = distances.get(video, np.nan)
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
                None if anomaly is None or np.isnan(strange) else anomaly.quantile(strange),
            )
        )
    return results


def _out_of_fold(run: Run) -> dict[str, tuple[float, str]]:
    """Video → its probability in ``predictions.csv``, NaN if it has none, and its status."""
    path = run.folder / PREDICTIONS
    return {
        row["id"]: (float(row["probability"] or "nan"), row["status"])
        for row in (read_csv(path) if path.is_file() else [])
    }


def _judged(run: Run, label: int, probability: float | None) -> tuple[str, str, float | None]:
    """Verdict, outcome and log-odds."""
    if probability is None:
        return "", UNKNOWN, None
    called = int(probability >= run.config.threshold)
    away = float(distance(np.array(probability), run.config.threshold))
    log_odds = away if called == label else -away
    if away < run.config.margin:
        return "undecidable", UNDECIDED, log_odds
    return LABEL_NAMES[called], RIGHT if called == label else WRONG, log_odds


def worst_mistakes(videos: Sequence[VideoResult], n: int) -> list[VideoResult]:
    """The unseen videos that a run is most wrong about, the worst first.

    Args:
        videos: of an evaluation; those that the whole model scored are the unseen ones.
        n: how many at most.

    Returns:
        videos with a wrong verdict, by the logits between their probability and the threshold.
    """
    wrong = [v for v in videos if v.scored_by == ENSEMBLE and v.outcome == WRONG]
    return sorted(wrong, key=lambda video: (video.log_odds or 0.0, video.id))[:n]
