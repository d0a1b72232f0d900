"""What a detector has to beat, trained on the very same videos and folds."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from model.evaluation.baselines import logistic_regression, mean_pooled, metadata
from model.evidence.anomaly import RARE, load_anomaly, read_motion
from model.run import Run
from model.sequences import Sequences, available_streams, load_sequences
from model.statistics.calibration import operating_point
from model.training import cross_fit
from model.videos import by_video
from pipeline.cache import Cache

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MEAN_POOL = "mean-pooled"
METADATA = "metadata only"
ANOMALY = "motion anomaly"
SHUFFLED = "shuffled time"
ALONE = {"flow": "flow only", "frames": "frames only"}
TRAINED = (SHUFFLED, *ALONE.values())
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


def simple_controls(
    run: Run, training: Sequences, folds: Sequence[tuple[Indices, Indices]]
) -> list[Control]:
    """Two logistic regressions: on embeddings without time, and on metadata."""
    features = {
        MEAN_POOL: mean_pooled,
        METADATA: lambda data: metadata(data.clips),
    }
    return [_logistic(name, of, run, training, folds) for name, of in features.items()]


def _logistic(
    name: str,
    features: Callable[[Sequences], Floats],
    run: Run,
    training: Sequences,
    folds: Sequence[tuple[Indices, Indices]],
) -> Control:
    model, threshold = logistic_regression(
        features(training), training.labels, folds, max_fpr=run.config.max_fpr
    )

    def score(data: Sequences) -> Floats:
        return by_video(data.clips, model.predict_proba(features(data))[:, 1])[2]

    return Control(name, run.config.streams, threshold, score)


def anomaly_control(run: Run, cache: Cache) -> list[Control]:
    """The distance of motion from that of real training videos; nothing if the run has none."""
    anomaly = load_anomaly(run.folder)
    if anomaly is None:
        return []

    def score(data: Sequences) -> Floats:
        return by_video(data.clips, anomaly.distances(read_motion(cache, data)))[2]

    return [Control(ANOMALY, run.config.streams, anomaly.threshold, score, calibrated=False)]


def absent_controls(run: Run, cache: Cache) -> dict[str, str]:
    """Controls that there cannot be, and why."""
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
    training: Sequences,
    folds: Sequence[tuple[Indices, Indices]],
    *,
    device: str = "cpu",
    progress: Callable[[], object] = lambda: None,
) -> list[Control]:
    """Heads like those of the run, without order, or on one stream alone.

    Args:
        run: a trained run.
        cache: the embedding cache it was trained on.
        training: its training split, in the run's streams.
        folds: the run's.
        device: as torch names it.
        progress: called after each fold of each control.
    """

    def head(name: str, data: Sequences, prepare: Callable[[Sequences], Sequences]) -> Control:
        streams = run.config.streams if name == SHUFFLED else _alone(name)
        fitted = cross_fit(
            data,
            folds,
            dataclasses.replace(run.config.training, streams=streams),
            seed=run.config.seed,
            device=device,
            progress=progress,
        )
        ensemble = fitted.ensemble
        _, labels, logits = by_video(data.clips, fitted.out_of_fold)
        point = operating_point(labels, logits, max_fpr=run.config.max_fpr)

        def score(unseen: Sequences) -> Floats:
            with torch.inference_mode():
                found = ensemble(prepare(unseen).x).double().numpy()
            return expit(by_video(unseen.clips, found)[2] / point.temperature)

        return Control(name, streams, point.threshold, score)

    seed = run.config.seed
    few = training.x.nbytes <= MOST_BYTES
    disordered = shuffled(training, seed, orders=SHUFFLES if few else 1)
    controls = [head(SHUFFLED, disordered, lambda unseen: shuffled(unseen, seed + 1))]
    del disordered
    absent = absent_controls(run, cache)
    for name in ALONE.values():
        if name not in absent:
            data = load_sequences(cache, _alone(name), ("train", "val"))
            controls.append(head(name, data, lambda unseen: unseen))
    return controls


def n_trained(run: Run, cache: Cache) -> int:
    """How many controls `trained_controls` trains."""
    return len(set(TRAINED) - set(absent_controls(run, cache)))


def _alone(name: str) -> tuple[str, ...]:
    return tuple(stream for stream, alone in ALONE.items() if alone == name)


def shuffled(data: Sequences, seed: int, *, orders: int = 1) -> Sequences:
    """Every clip with its moments in a random order of its own; all streams of one stay together.

    Args:
        data: N clips.
        seed: of the orders.
        orders: how many there are of each clip, and of each of its copies; all but the first of
            the clip are copies, to train with.
    """
    generator = torch.Generator().manual_seed(seed)

    def disordered(x: torch.Tensor) -> torch.Tensor:
        order = torch.rand(x.shape[:2], generator=generator).argsort(1)  # (N, L)
        return x[torch.arange(len(x))[:, None], order]

    first, *copies = [disordered(x) for _ in range(orders) for x in (data.x, *data.copies)]
    return dataclasses.replace(data, x=first, copies=tuple(copies))
