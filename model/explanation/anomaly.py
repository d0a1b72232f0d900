"""How strange a video moves beside real ones: a density of real motion that never saw a fake."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.motion import NAMES, SPEEDS
from model.run.per_video_scores import by_video
from model.training.sequences import Sequences
from pipeline.cache import Cache
from pipeline.common.errors import IntegrityError
from pipeline.common.files import write_whole

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

ANOMALY = "anomaly.npz"
RARE = 0.95  # of real training videos move less strangely than one that is called fake for it
FAR = 2.0  # times the strangest real training video, beyond which it is of another kind
FLOOR = 0.1  # robust standard deviations; differences below it are noise
SHOWN = 3  # descriptors in a text
TITLES = [(f"{n} speed" if n in SPEEDS else n).replace("_", " ") for n in NAMES]
OF_A_CLIP = (*TITLES, *(f"variation of {title}" for title in TITLES))


@dataclass(frozen=True)
class Density:
    """A Gaussian over P descriptors, learned from real clips.

    Attributes:
        centre: (P,) medians; NaN for one that was never known, which is left out from then on.
        scale: (P,) robust standard deviations: interquartile ranges, as of a normal distribution.
        mean: (P,) in these units.
        covariance: (P, P) in these units.
    """

    centre: Floats
    scale: Floats
    mean: Floats
    covariance: Floats

    def deviations(self, x: Floats) -> Floats:
        """(M, P) descriptors in robust standard deviations from the median."""
        return (x - self.centre) / self.scale

    def parts(self, x: Floats) -> Floats:
        """The squared Mahalanobis distances of (M, P) descriptors, by descriptor.

        A row sums to the squared distance over P. Each part is that of the decorrelated variable
        that is nearest to its descriptor. An unknown descriptor (NaN) has no part: the distance is
        that among the known ones, scaled up to P of them.

        Returns:
            (M, P), NaN where nothing of a row is known.

        References:
            Garthwaite and Koch, Evaluating the contributions of individual variables to a
            quadratic form, 2016.
        """
        from_mean = self.deviations(x) - self.mean
        found = np.full(from_mean.shape, np.nan)
        patterns, which = np.unique(~np.isnan(from_mean), axis=0, return_inverse=True)
        for n, known in enumerate(patterns):
            if known.any():
                rows = np.flatnonzero(which.ravel() == n)
                whiten = _decorrelating(self.covariance[np.ix_(known, known)])
                found[rows] = 0
                white = from_mean[np.ix_(rows, np.flatnonzero(known))] @ whiten.T
                found[np.ix_(rows, np.flatnonzero(known))] = white**2 / known.sum()
        return found


@dataclass(frozen=True)
class Anomaly:
    """What is usual, as each fold's real training videos have it.

    Attributes:
        clips: F densities of clips: each descriptor's mean and standard deviation over time.
        moments: F densities of single moments.
        reference: (R,) ascending: the distances of the real training videos, each by the density of
            the fold that did not see its people.
    """

    clips: tuple[Density, ...]
    moments: tuple[Density, ...]
    reference: Floats

    def distances(self, motion: Sequence[npt.NDArray[Any]]) -> Floats:
        """How far clips are from usual, about 1 for a usual one; NaN where nothing is known.

        Args:
            motion: N times (T-1, K) descriptors of motion.

        Returns:
            (N,), averaged over folds; the distance of a video is the mean of its clips'.
        """
        x = _of_clips(motion)
        return np.mean([_distances(density, x) for density in self.clips], axis=0)

    def by_moment(self, motion: npt.NDArray[Any]) -> Floats:
        """(T-1,) how far each moment of a clip is from usual, about 1 for a usual one."""
        x = _known(motion)
        return np.mean([_distances(density, x) for density in self.moments], axis=0)

    def quantile(self, distance: float) -> float:
        """The share of real training videos that move less strangely, ties by half."""
        below, above = (self.reference < distance).sum(), (self.reference > distance).sum()
        return float(1 + (below - above) / len(self.reference)) / 2

    @property
    def threshold(self) -> float:
        """The distance from which on a video is stranger than `RARE` of the real ones."""
        return float(np.quantile(self.reference, RARE))

    def is_foreign(self, motion: Sequence[npt.NDArray[Any]]) -> bool:
        """Whether a video is more than `FAR` times as far from usual as any real training video.

        Args:
            motion: N times (T-1, K), of all its clips.
        """
        distance = self._of_all(motion)
        return distance is not None and distance > FAR * float(self.reference.max())

    def drivers(self, motion: Sequence[npt.NDArray[Any]]) -> list[tuple[str, float, float]]:
        """What makes clips of a video strange, most of it first.

        Args:
            motion: N times (T-1, K).

        Returns:
            of each known descriptor its name, its share of the squared distance (all sum to 1),
            and how far it is from the median of real clips, in robust standard deviations.
        """
        return _drivers(self.clips, _of_clips(motion), OF_A_CLIP)

    def drivers_at(self, motion: npt.NDArray[Any], moment: int) -> list[tuple[str, float, float]]:
        """What makes one moment of a clip strange, as `drivers` has it.

        Args:
            motion: (T-1, K), of the clip.
            moment: which of the T-1.
        """
        return _drivers(self.moments, _known(motion)[[moment]], TITLES)

    def of_video(self, motion: Sequence[npt.NDArray[Any]]) -> tuple[float | None, str]:
        """The quantile of a video, None where nothing is known, and what drives it, in words.

        Args:
            motion: N times (T-1, K), of all its clips.
        """
        distance = self._of_all(motion)
        if distance is None:
            return None, ""
        first = self.drivers(motion)[:SHOWN]
        text = ", ".join(f"{name} {sd:+.1f} sd" for name, _, sd in first)
        return self.quantile(distance), text

    def _of_all(self, motion: Sequence[npt.NDArray[Any]]) -> float | None:
        """The mean distance of a video's clips, None where nothing is known."""
        distances = self.distances(motion)
        known = distances[~np.isnan(distances)]
        return float(known.mean()) if len(known) else None


def fit_anomaly(
    motion: Sequence[npt.NDArray[Any]],
    training: Sequences,
    folds: Sequence[tuple[Indices, Indices]],
) -> Anomaly:
    """Learn what motion is usual from the real clips of a training split.

    A density per fold, from its real training clips; its real validation videos, whose people it
    did not see, are the ones that new videos are compared with. Fakes are not looked at.

    Args:
        motion: N times (T-1, K) descriptors of motion.
        training: the N clips.
        folds: rows to train on and rows to validate on.
    """
    real = np.flatnonzero(training.labels == 0)
    features = _of_clips(motion)
    clips, moments = [], []
    apart = np.full(len(motion), np.nan)
    for train, val in folds:
        seen, unseen = np.intersect1d(train, real), np.intersect1d(val, real)
        if training.labels[seen].any() or training.labels[unseen].any():
            raise AssertionError("a fake clip is among the real ones")
        clips.append(_density(features[seen]))
        moments.append(_density(np.concatenate([_known(motion[n]) for n in seen])))
        apart[unseen] = _distances(clips[-1], features[unseen])
    _, _, of_videos = by_video([training.clips[n] for n in real], apart[real])
    reference = np.sort(of_videos[~np.isnan(of_videos)])
    return Anomaly(tuple(clips), tuple(moments), reference)


def percent(share: float) -> str:
    """A share as a percentage that is never rounded up."""
    return f"{int(100 * share + 1e-9)}%"


def read_motion(cache: Cache, data: Sequences) -> list[npt.NDArray[np.float32]]:
    """N times (T-1, K): the descriptors of motion of the clips of some sequences."""
    return [cache.read(clip, "motion") for clip in data.clips]


def save_anomaly(folder: Path, anomaly: Anomaly) -> None:
    """Write ``anomaly.npz`` into the folder of a run: plain arrays."""
    arrays = {"names": np.array(NAMES), "reference": anomaly.reference}
    for kind in ("clips", "moments"):
        for name in Density.__dataclass_fields__:
            arrays[f"{kind}_{name}"] = np.stack([getattr(d, name) for d in getattr(anomaly, kind)])

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_whole(folder / ANOMALY, write)


def load_anomaly(folder: Path) -> Anomaly | None:
    """What `save_anomaly` wrote; None if the run has none, as of earlier versions.

    Raises:
        IntegrityError: the file is damaged, or about other descriptors.
    """
    path = folder / ANOMALY
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            if held["names"].tolist() != list(NAMES):
                raise ValueError("it is about other descriptors of motion")
            names = tuple(Density.__dataclass_fields__)
            densities = {
                kind: tuple(
                    Density(*arrays)
                    for arrays in zip(*(held[f"{kind}_{name}"] for name in names), strict=True)
                )
                for kind in ("clips", "moments")
            }
            return Anomaly(**densities, reference=held["reference"])
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise IntegrityError(f"{path} is damaged: {error}", "fit the run again") from error


def _known(motion: npt.NDArray[Any]) -> Floats:
    """Descriptors as float64, NaN where they are not measured.

    A camera whose motion is unknown has speed 0, and the first two maps have no jerk.
    """
    x = motion.astype(np.float64)
    x[:2, NAMES.index("jerk")] = np.nan
    camera = x[:, NAMES.index("camera")]
    camera[camera == 0] = np.nan
    x[~np.isfinite(x)] = np.nan
    return x


def _of_clips(motion: Sequence[npt.NDArray[Any]]) -> Floats:
    """(N, 2K) of each descriptor the mean and standard deviation over time, in that order."""
    known = [np.ma.masked_invalid(_known(one)) for one in motion]
    over_time = [[one.mean(0).filled(np.nan), one.std(0).filled(np.nan)] for one in known]
    return np.array(over_time).reshape(len(motion), len(OF_A_CLIP))


def _density(x: Floats) -> Density:
    """Learn from (M, P) descriptors; an unknown one counts as the median."""
    from sklearn.covariance import LedoitWolf  # seconds, which a prediction need not wait
    from sklearn.preprocessing import RobustScaler

    centre, scale = np.full(x.shape[1], np.nan), np.ones(x.shape[1])
    ever = ~np.isnan(x).all(0)
    scaler = RobustScaler(unit_variance=True).fit(x[:, ever])
    centre[ever], scale[ever] = scaler.center_, scaler.scale_
    gaussian = LedoitWolf().fit(np.nan_to_num((x - centre) / scale))
    covariance = gaussian.covariance_ + FLOOR**2 * np.eye(x.shape[1])
    return Density(centre, scale, gaussian.location_, covariance)


def _drivers(
    densities: Sequence[Density], x: Floats, names: Sequence[str]
) -> list[tuple[str, float, float]]:
    parts = np.ma.masked_invalid([density.parts(x) for density in densities])
    away = np.ma.masked_invalid([density.deviations(x) for density in densities])
    part, sd = parts.mean((0, 1)), away.mean((0, 1))  # (P,)
    total = float(part.sum()) or 1.0
    return [
        (names[n], float(part[n]) / total, float(sd[n]))
        for n in np.argsort(-part.filled(-1), kind="stable")
        if not (np.ma.is_masked(part[n]) or np.ma.is_masked(sd[n]))
    ]


def _distances(density: Density, x: Floats) -> Floats:
    return np.sqrt(density.parts(x).sum(1))


def _decorrelating(covariance: Floats) -> Floats:
    """(P, P) W, so that the length of W x is the Mahalanobis distance, and W x like x."""
    sd = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(sd, sd))
    return (vectors / np.sqrt(values)) @ vectors.T / sd  # type: ignore[no-any-return]
