"""What a detector has to beat, trained on the very same videos and folds."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from model.explanation.anomaly import RARE, load_anomaly, read_motion
from model.fitting import training_folds
from model.run.per_video_scores import by_video
from model.run.run import Run, digest_of
from model.statistics.calibration import operating_point
from model.statistics.metrics import equal_error, false_alarm_threshold
from model.training.heads import CLIPS_AT_ONCE, Ensemble, Head
from model.training.sequences import Sequences, available_streams, empty, load_sequences
from model.training.train import cross_fit, save_tensors
from pipeline.cache import Cache, Clip

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def mean_pooled(data: Sequences) -> Floats:
    """(N, D) float64: the mean of each embedding over time. Does order matter?"""
    some = data.x.split(CLIPS_AT_ONCE)  # type: ignore[no-untyped-call]
    return torch.cat([x.double().mean(1) for x in some]).numpy()


def metadata(clips: Sequence[Clip]) -> Floats:
    """(N, 6) float64: what the files alone say. Does the corpus give itself away?"""
    facts = [(c.width, c.height, c.fps, c.duration, c.bit_rate, c.n_bytes) for c in clips]
    return np.log(np.array(facts, np.float64))


def logistic_regression(
    features: Floats,
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


MEAN_POOL = "mean-pooled"
METADATA = "metadata only"
ANOMALY = "motion anomaly"
SHUFFLED = "shuffled time"
ALONE = {"flow": "flow only", "frames": "frames only"}
TRAINED = (SHUFFLED, *ALONE.values())
LOGISTIC: dict[str, Callable[[Sequences], Floats]] = {
    MEAN_POOL: mean_pooled,
    METADATA: lambda data: metadata(data.clips),
}
SHUFFLES = 4  # orders of each training clip, one of which is drawn each time it is seen
MOST_BYTES = 2**29  # of embeddings for which there are as many; beyond it there is one

EXPLAINED = {
    MEAN_POOL: "A logistic regression on the mean of each embedding over time.",
    METADATA: "A logistic regression on what the files alone say: size, frame rate, duration and "
    "bit rate. If it beats chance, the corpus gives itself away, and the other columns may owe "
    "their success to that.",
    ANOMALY: "How far a video's motion is from that of real training videos; it never saw a fake. "
    "Its scores are distances, not probabilities. A video is called fake if it moves more "
    f"strangely than {100 * RARE:g}% of the real training videos.",
    SHUFFLED: "The same head on the same streams, but with the moments of every clip in random "
    "order, in training and in test.",
    ALONE["flow"]: "The same head on the embeddings of optical flow alone.",
    ALONE["frames"]: "The same head on the embeddings of single frames alone: what can be seen "
    "without motion.",
}


State = dict[str, Any]  # plain values and tensors: all there is to a trained control


@dataclass(frozen=True)
class Control:
    """A trained control.

    Attributes:
        name: a key of `EXPLAINED`.
        streams: what it is shown.
        threshold: from which on it calls a video fake.
        score: from N clips to (V,) probabilities of their videos, in `by_video`'s order.
        calibrated: whether these are probabilities, or only the higher the likelier fake.
    """

    name: str
    streams: tuple[str, ...]
    threshold: float
    score: Callable[[Sequences], Floats]
    calibrated: bool = True


def absent_controls(run: Run, cache: Cache) -> dict[str, str]:
    """Controls that there cannot be of the videos of a cache, and why."""
    held, absent = available_streams(cache), {}
    if load_anomaly(run.folder) is None:
        absent[ANOMALY] = "the run was fitted by a version without it"
    for stream, name in ALONE.items():
        if stream not in held:
            absent[name] = f"{stream} is not embedded"
        elif run.config.streams == (stream,):
            absent[name] = "that is the detector itself"
    return absent


def trained_controls(
    run: Run,
    cache: Cache,
    names: Sequence[str],
    *,
    device: str = "cpu",
    progress: Callable[[], object] = lambda: None,
) -> dict[str, State]:
    """Train controls on a run's own training split and folds.

    Args:
        run: a trained run.
        cache: the embedding cache it was trained on.
        names: some of `LOGISTIC` and `TRAINED`.
        device: as torch names it.
        progress: called after each fold of each head.

    Returns:
        name → what `control` makes a control of.
    """
    training = load_sequences(cache, run.config.streams, ("train", "val"))
    folds = training_folds(training, run.config.n_heads, run.config.seed)
    states: dict[str, State] = {}
    for name, features in LOGISTIC.items():
        if name in names:
            states[name] = _logistic(features(training), run, training, folds)
    for name in names:
        if name in TRAINED:
            if name == SHUFFLED:
                few = training.x.nbytes <= MOST_BYTES
                data = shuffled(training, run.config.seed, orders=SHUFFLES if few else 1)
            else:
                data = load_sequences(cache, _streams(name, run), ("train", "val"))
            states[name] = _head(data, _streams(name, run), run, folds, device, progress)
    return states


def _logistic(
    features: Floats,
    run: Run,
    training: Sequences,
    folds: Sequence[tuple[Indices, Indices]],
) -> State:
    model, threshold = logistic_regression(
        features, training.labels, folds, max_fpr=run.config.max_fpr
    )
    scaler, regression = model
    arrays = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "coefficients": regression.coef_[0],
        "intercept": regression.intercept_,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()} | {
        "threshold": threshold
    }


def _head(
    data: Sequences,
    streams: tuple[str, ...],
    run: Run,
    folds: Sequence[tuple[Indices, Indices]],
    device: str,
    progress: Callable[[], object],
) -> State:
    fitted = cross_fit(
        data,
        folds,
        dataclasses.replace(run.config.training, streams=streams),
        seed=run.config.seed,
        device=device,
        progress=progress,
    )
    _, labels, logits = by_video(data.clips, fitted.out_of_fold)
    point = operating_point(labels, logits, max_fpr=run.config.max_fpr)
    return {
        "widths": dict(data.widths),
        "heads": fitted.ensemble.state_dict(),
        "temperature": point.temperature,
        "threshold": point.threshold,
    }


def control(name: str, run: Run, state: State) -> Control:
    """A control, of what `trained_controls` trained for it."""
    score = _logistic_score(name, state) if name in LOGISTIC else _head_score(name, run, state)
    return Control(name, _streams(name, run), state["threshold"], score)


def _logistic_score(name: str, state: State) -> Callable[[Sequences], Floats]:
    mean, scale, coefficients, intercept = (
        state[key].numpy() for key in ("mean", "scale", "coefficients", "intercept")
    )

    def score(unseen: Sequences) -> Floats:
        logits = (LOGISTIC[name](unseen) - mean) / scale @ coefficients + intercept
        return by_video(unseen.clips, expit(logits))[2]

    return score


def _head_score(name: str, run: Run, state: State) -> Callable[[Sequences], Floats]:
    training = run.config.training
    heads = [Head(state["widths"], training.shape) for _ in range(run.config.n_heads)]
    ensemble = Ensemble(heads, training.sequence_length).eval()
    ensemble.load_state_dict(state["heads"])

    def score(unseen: Sequences) -> Floats:
        data = shuffled(unseen, run.config.seed + 1) if name == SHUFFLED else unseen
        with torch.inference_mode():
            logits = ensemble(data.x).double().numpy()
        return expit(by_video(unseen.clips, logits)[2] / state["temperature"])

    return score


def anomaly_control(run: Run, cache: Cache) -> list[Control]:
    """The distance of motion from that of real training videos; nothing if the run has none."""
    anomaly = load_anomaly(run.folder)
    if anomaly is None:
        return []

    def score(data: Sequences) -> Floats:
        return by_video(data.clips, anomaly.distances(read_motion(cache, data)))[2]

    return [Control(ANOMALY, run.config.streams, anomaly.threshold, score, calibrated=False)]


def _streams(name: str, run: Run) -> tuple[str, ...]:
    alone = tuple(stream for stream, control in ALONE.items() if control == name)
    return alone or run.config.streams


def shuffled(data: Sequences, seed: int, *, orders: int = 1) -> Sequences:
    """Every clip with its moments in a random order of its own; all streams of one stay together.

    What lies in a file is laid into another one.

    Args:
        data: N clips.
        seed: of the orders.
        orders: how many there are of each clip, and of each of its copies; all but the first of
            the clip are copies, to train with.
    """
    generator = torch.Generator().manual_seed(seed)

    def disordered(x: torch.Tensor) -> torch.Tensor:
        order = torch.rand(x.shape[:2], generator=generator).argsort(1)  # (N, L)
        result = empty(x.shape, in_a_file=data.mapped)
        for rows in torch.arange(len(x)).split(CLIPS_AT_ONCE):  # type: ignore[no-untyped-call]
            result[rows] = x[rows[:, None], order[rows]]
        return result

    first, *copies = [disordered(x) for _ in range(orders) for x in (data.x, *data.copies)]
    return dataclasses.replace(data, x=first, copies=tuple(copies))


CONTROLS = "controls.pt"


def kept_controls(run: Run) -> dict[str, State]:
    """What `keep_controls` kept for this very run, which names its cache; else nothing.

    A file that cannot be read is as good as none: the controls are trained again.
    """
    try:
        held = torch.load(run.folder / CONTROLS, map_location="cpu", weights_only=True)
        return dict(held["controls"]) if held["made_with"] == _made_with(run) else {}
    except Exception:  # whatever an arbitrary file makes a parser raise
        return {}


def keep_controls(run: Run, states: dict[str, State]) -> None:
    """Write ``controls.pt`` into the run's folder: plain values and tensors."""
    held = {"made_with": _made_with(run), "controls": states}
    save_tensors(run.folder / CONTROLS, held)


def _made_with(run: Run) -> str:
    """What decides the controls: the run, with its cache, and how they are trained."""
    told = json.dumps([digest_of(run), SHUFFLES, MOST_BYTES, PENALTIES])
    return hashlib.sha256(told.encode()).hexdigest()
