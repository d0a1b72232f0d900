"""What a detector has to beat: no order of time, and no picture at all."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from model.statistics.metrics import equal_error, false_alarm_threshold
from model.training.heads import CLIPS_AT_ONCE
from model.training.sequences import Sequences
from pipeline.cache import Clip

Features = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def mean_pooled(data: Sequences) -> Features:
    """(N, D) float64: the mean of each embedding over time. Does order matter?"""
    some = data.x.split(CLIPS_AT_ONCE)  # type: ignore[no-untyped-call]
    return torch.cat([x.double().mean(1) for x in some]).numpy()


def metadata(clips: Sequence[Clip]) -> Features:
    """(N, 6) float64: what the files alone say. Does the corpus give itself away?"""
    facts = [(c.width, c.height, c.fps, c.duration, c.bit_rate, c.n_bytes) for c in clips]
    return np.log(np.array(facts, np.float64))


def logistic_regression(
    features: Features,
    labels: npt.NDArray[np.int64],
    folds: Sequence[tuple[Indices, Indices]],
    *,
    max_fpr: float | None = None,
) -> tuple[Pipeline, float]:
    """Fit a logistic regression whose penalty is chosen on the same folds as the head's settings.

    Args:
        features: (N, D) of the training split.
        labels: (N,)
        folds: rows to train on and rows to validate on.
        max_fpr: the share of real clips that may be called fake; None: as many errors on both.

    Returns:
        the model, and its threshold, chosen on the validation folds.
    """
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    search = GridSearchCV(
        model,
        {"logisticregression__C": PENALTIES},
        scoring="neg_log_loss",
        cv=list(folds),
    ).fit(features, labels)
    best: Pipeline = search.best_estimator_
    out_of_fold = [
        (labels[val], clone(best).fit(features[train], labels[train]).predict_proba(features[val]))
        for train, val in folds
    ]
    truth = np.concatenate([y for y, _ in out_of_fold])
    scores = np.concatenate([p[:, 1] for _, p in out_of_fold])
    if max_fpr is not None:
        return best, false_alarm_threshold(truth, scores, max_fpr)
    return best, equal_error(truth, scores)[1]
