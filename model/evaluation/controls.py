"""Controls: baseline detectors that a run has to beat, trained on its own videos and folds."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from features.backbones import resolve_device
from model.explanation.anomaly import UNUSUAL_QUANTILE
from model.explanation.unusual import COMBINED, load_unusual
from model.explanation.unusual import EXPLAINED as EXPLAINED_SCORES
from model.fitting import training_folds
from model.run.per_video_scores import by_video
from model.run.run import Run, digest_of
from model.statistics.calibration import operating_point
from model.statistics.metrics import equal_error, threshold_at_fpr
from model.training.heads import CLIPS_AT_ONCE, Ensemble, Head
from model.training.sequences import (
    Sequences,
    available_streams,
    columns_of,
    empty,
    load_sequences,
)
from model.training.train import cross_fit, save_tensors
from pipeline.cache import Cache, Clip

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Folds = Sequence[tuple[Indices, Indices]]  # rows to train on and rows to validate on
State = dict[str, Any]  # values and tensors of a trained control, as in `controls.pt`

CONTROLS = "controls.pt"
MEAN_POOL = "mean-pooled"
METADATA = "metadata only"
ANOMALY = "motion anomaly"
UNUSUAL_SCORES = {  # score that never saw a fake → the control
    "motion": ANOMALY,
    "trajectory": "trajectories",
    "stall": "STALL",
    "d3": "D3",
    COMBINED: "combined",
}
SHUFFLED = "shuffled time"
ALONE = {"flow": "flow only", "frames": "frames only"}
LOGISTIC = (MEAN_POOL, METADATA)
HEADS = (SHUFFLED, *ALONE.values())
EXPLAINED = {
    MEAN_POOL: "A logistic regression on the mean of each embedding over time.",
    METADATA: "A logistic regression on what the files alone say: size, frame rate, duration and "
    "bit rate. If it beats chance, the corpus gives itself away, and the other columns may owe "
    "their success to that.",
    ANOMALY: "How far a video's motion is from that of real training videos; it never saw a fake. "
    "Its scores are distances, not probabilities. A video is called fake if it moves more "
    f"strangely than {100 * UNUSUAL_QUANTILE:g}% of the real training videos.",
    **{
        UNUSUAL_SCORES[name]: f"{text[0].upper()}{text[1:]}; it never saw a fake either. A video "
        "too short or too slow for it counts as the median real one."
        for name, text in EXPLAINED_SCORES.items()
        if name != "motion"
    },
    SHUFFLED: "The same head on the same streams, but with the moments of every clip in random "
    "order, in training and in test.",
    ALONE["flow"]: "The same head on the embeddings of optical flow alone.",
    ALONE["frames"]: "The same head on the embeddings of single frames alone: what can be seen "
    "without motion.",
}
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C, to choose from
SHUFFLES = 4  # orders of each training clip
MAX_SHUFFLED_BYTES = 2**29  # larger sets of embeddings get one order, to save memory


@dataclass(frozen=True)
class Control:
    """A trained control."""

    name: str
    streams: tuple[str, ...]
    threshold: float  # score from which it calls a video fake
    score: Callable[[Sequences], Floats]  # N clips → (V,), as ordered by `by_video`


def load_or_train_controls(
    run: Run,
    cache: Cache,
    training_cache: Cache | None,
    *,
    heads: bool,
    device: str,
    bar: "tqdm[NoReturn]",
) -> tuple[list[Control], dict[str, str]]:
    """Load ``controls.pt``; train and save missing controls, if the run's own cache is available.

    The bar's total grows by the number of heads to train. Also return name → why one is absent.
    """
    absent = absent_controls(run, cache)
    if training_cache and training_cache is not cache:
        absent |= absent_controls(run, training_cache)
    if not heads:
        absent = dict.fromkeys(HEADS, "not asked for") | absent
    wanted = [name for name in (*LOGISTIC, *HEADS) if name not in absent]
    states = load_controls(run)
    missing = [name for name in wanted if name not in states]
    if missing and training_cache:
        bar.total += run.config.n_heads * len(set(missing).intersection(HEADS))
        states |= _train(run, training_cache, missing, resolve_device(device), bar.update)
        _save_controls(run, states)
    elif missing:
        absent |= dict.fromkeys(missing, "it was not trained, and what to train it on is not there")
    unusual, absent_scores = unusual_controls(run, cache)
    absent |= absent_scores
    trained = {name: control(name, run, states[name]) for name in wanted if name in states}
    controls = [
        *(trained[name] for name in LOGISTIC if name in trained),
        *unusual,
        *(trained[name] for name in HEADS if name in trained),
    ]
    return controls, absent


def absent_controls(run: Run, cache: Cache) -> dict[str, str]:
    """Return control → why it makes no sense for a cache."""
    embedded, absent = available_streams(cache), {}
    for stream, name in ALONE.items():
        if stream not in embedded:
            absent[name] = f"{stream} is not embedded"
        elif run.config.streams == (stream,):
            absent[name] = "that is the detector itself"
    return absent


def control(name: str, run: Run, state: State) -> Control:
    """Rebuild a control from its trained state."""
    score = _logistic_score(name, state) if name in LOGISTIC else _head_score(name, run, state)
    return Control(name, _streams(name, run), state["threshold"], score)


def _streams(name: str, run: Run) -> tuple[str, ...]:
    alone = tuple(stream for stream, control in ALONE.items() if control == name)
    return alone or run.config.streams


def _train(
    run: Run, cache: Cache, names: Sequence[str], device: str, progress: Callable[[], object]
) -> dict[str, State]:
    training = load_sequences(cache, run.config.streams, ("train", "val"))
    folds = training_folds(training, run.config.n_heads, run.config.seed)
    states: dict[str, State] = {}
    for name in names:
        streams = _streams(name, run)
        if name in LOGISTIC:
            states[name] = _train_logistic(name, run, training, folds)
            continue
        if name == SHUFFLED:
            orders = SHUFFLES if training.x.nbytes <= MAX_SHUFFLED_BYTES else 1
            data = shuffled(training, run.config.seed, orders=orders)
        else:
            data = load_sequences(cache, streams, ("train", "val"))
        states[name] = _train_head(data, streams, run, folds, device, progress)
    return states


# ------------------------------------------------------------------ scores that never saw a fake


def unusual_controls(run: Run, cache: Cache) -> tuple[list[Control], dict[str, str]]:
    """Return a control for each score of a run, and control → why a cache does not allow it."""
    unusual = load_unusual(run.folder)
    found: dict[tuple[str, ...], dict[str, Floats]] = {}
    available = unusual.available(cache)
    names = (*available, *([COMBINED] if available == unusual.names else []))
    absent = {
        UNUSUAL_SCORES[name]: f"{cache.folder} lacks what it needs"
        for name in unusual.names
        if name not in available
    }

    def score(data: Sequences, name: str) -> Floats:
        ids = tuple(clip.id for clip in data.clips)
        if ids not in found:
            found.clear()  # the scores of one split are asked for one after the other
            found[ids] = unusual.of_videos(cache, data.clips)
        values = found[ids][name]
        if name == "motion" or not np.isfinite(values).any():
            return values
        return np.where(np.isfinite(values), values, np.median(unusual.reference(name)))

    controls = [
        Control(
            UNUSUAL_SCORES[name],
            run.config.streams,
            unusual.threshold(name),
            functools.partial(score, name=name),
        )
        for name in names
        if len(unusual.reference(name))
    ]
    return controls, absent


# ----------------------------------------------------------------------- logistic regressions


def _features(name: str, data: Sequences) -> Floats:
    return mean_pooled(data) if name == MEAN_POOL else metadata(data.clips)


def mean_pooled(data: Sequences) -> Floats:
    """Average each number over time: (N, D) float64, NaN if a trajectory has none."""
    gaps = undefined_columns(data)
    batches = data.x.split(CLIPS_AT_ONCE)  # type: ignore[no-untyped-call]
    means = torch.cat([x.double().mean(1) for x in batches])
    means[:, gaps] = torch.cat([x[..., gaps].double().nanmean(1) for x in batches])
    return means.numpy()


def undefined_columns(data: Sequences) -> slice:
    """Return the columns of joined vectors that may be NaN."""
    return columns_of(data.widths).get("trajectory", slice(0, 0))


def _filled(features: Floats, means: Floats, columns: slice) -> Floats:
    """Return features (N, D) with means (D,) where these columns are undefined."""
    known = features.copy()
    part = known[:, columns]
    known[:, columns] = np.where(np.isnan(part), means[columns], part)
    return known


def metadata(clips: Sequence[Clip]) -> Floats:
    """Return logarithms of size, frame rate, duration and bit rate: (N, 6) float64."""
    columns = [(c.width, c.height, c.fps, c.duration, c.bit_rate, c.n_bytes) for c in clips]
    return np.log(np.array(columns, np.float64))


def logistic_regression(
    features: Floats, labels: npt.NDArray[np.int64], folds: Folds, *, max_fpr: float | None = None
) -> tuple[Pipeline, float]:
    """Fit (N, D) features; choose penalty and threshold on the validation folds."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    grid = {"logisticregression__C": PENALTIES}
    search = GridSearchCV(model, grid, scoring="neg_log_loss", cv=list(folds))
    best: Pipeline = search.fit(features, labels).best_estimator_
    out_of_fold = [
        (labels[val], clone(best).fit(features[train], labels[train]).predict_proba(features[val]))
        for train, val in folds
    ]
    truth = np.concatenate([y for y, _ in out_of_fold])
    scores = np.concatenate([p[:, 1] for _, p in out_of_fold])
    if max_fpr is not None:
        return best, threshold_at_fpr(truth, scores, max_fpr)
    return best, equal_error(truth, scores)[1]


def _train_logistic(name: str, run: Run, training: Sequences, folds: Folds) -> State:
    features = _features(name, training)
    if name == MEAN_POOL:
        means = np.ma.masked_invalid(features).mean(0).filled(0)  # of what is defined
        features = _filled(features, means, undefined_columns(training))
    (scaler, regression), threshold = logistic_regression(
        features, training.labels, folds, max_fpr=run.config.max_fpr
    )
    return {
        "mean": torch.from_numpy(scaler.mean_),
        "scale": torch.from_numpy(scaler.scale_),
        "coefficients": torch.from_numpy(regression.coef_[0]),
        "intercept": torch.from_numpy(regression.intercept_),
        "threshold": threshold,
    }


def _logistic_score(name: str, state: State) -> Callable[[Sequences], Floats]:
    mean, scale, coefficients, intercept = (
        state[key].numpy() for key in ("mean", "scale", "coefficients", "intercept")
    )

    def score(data: Sequences) -> Floats:
        features = _features(name, data)
        if name == MEAN_POOL:
            features = _filled(features, mean, undefined_columns(data))
        logits = (features - mean) / scale @ coefficients + intercept
        return by_video(data.clips, expit(logits))[2]

    return score


# -------------------------------------------------------------------------------------- heads


def _train_head(
    data: Sequences,
    streams: tuple[str, ...],
    run: Run,
    folds: Folds,
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


def _head_score(name: str, run: Run, state: State) -> Callable[[Sequences], Floats]:
    training = run.config.training
    heads = [Head(state["widths"], training) for _ in range(run.config.n_heads)]
    ensemble = Ensemble(heads, training.crop_length).eval()
    ensemble.load_state_dict(state["heads"])

    def score(data: Sequences) -> Floats:
        seen = shuffled(data, run.config.seed + 1) if name == SHUFFLED else data
        with torch.inference_mode():
            logits = ensemble(seen.x).double().numpy()
        return expit(by_video(data.clips, logits)[2] / state["temperature"])

    return score


def shuffled(data: Sequences, seed: int, *, orders: int = 1) -> Sequences:
    """Put the moments of each clip and copy into ``orders`` random orders, alike for all streams.

    All but the clip's first become copies. Sequences mapped from a file go to another file.
    """
    generator = torch.Generator().manual_seed(seed)

    def shuffle(x: torch.Tensor) -> torch.Tensor:
        order = torch.rand(x.shape[:2], generator=generator).argsort(1)  # (N, L)
        result = empty(x.shape, in_a_file=data.mapped)
        for rows in torch.arange(len(x)).split(CLIPS_AT_ONCE):  # type: ignore[no-untyped-call]
            result[rows] = x[rows[:, None], order[rows]]
        return result

    first, *copies = [shuffle(x) for _ in range(orders) for x in (data.x, *data.copies)]
    return dataclasses.replace(data, x=first, copies=tuple(copies))


# -------------------------------------------------------------------------------- controls.pt


def load_controls(run: Run) -> dict[str, State]:
    """Read ``controls.pt``; an unreadable file, or one of another run, has no controls."""
    try:
        content = torch.load(run.folder / CONTROLS, map_location="cpu", weights_only=True)
        return dict(content["controls"]) if content["made_with"] == _digest(run) else {}
    except Exception:  # whatever an arbitrary file makes a parser raise
        return {}


def _save_controls(run: Run, states: Mapping[str, State]) -> None:
    content = {"made_with": _digest(run), "controls": dict(states)}
    save_tensors(run.folder / CONTROLS, content)


def _digest(run: Run) -> str:
    """Return a sha256 of the run and of how controls are trained."""
    recipe = json.dumps([digest_of(run), SHUFFLES, MAX_SHUFFLED_BYTES, PENALTIES])
    return hashlib.sha256(recipe.encode()).hexdigest()
