"""Unusual motion, measured by a density of the motion of real videos that never saw a fake."""

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
UNUSUAL_QUANTILE = 0.95  # of real training videos; more is fake for the control
MAX_FAMILIAR = 2.0  # times the largest distance of a real training video
MIN_SPREAD = 0.1  # robust standard deviations; smaller differences are noise
N_DRIVERS = 3  # descriptors named in a text
TITLES = [(f"{n} speed" if n in SPEEDS else n).replace("_", " ") for n in NAMES]
CLIP_TITLES = (*TITLES, *(f"variation of {title}" for title in TITLES))


@dataclass(frozen=True)
class Density:
    """Gaussian over P descriptors, fitted to real clips."""

    centre: Floats  # medians, (P,); NaN: never measured, ignored
    scale: Floats  # robust standard deviations, (P,): interquartile ranges over that of N(0, 1)
    mean: Floats  # (P,) in these units
    covariance: Floats  # (P, P) in these units

    def deviations(self, x: Floats) -> Floats:
        """Return descriptors, (M, P), in robust standard deviations from the median."""
        return (x - self.centre) / self.scale

    def parts(self, x: Floats) -> Floats:
        """Split squared Mahalanobis distances over P by descriptor: (M, P) to (M, P).

        Each part is that of the decorrelated variable nearest to its descriptor (Garthwaite and
        Koch, Evaluating the contributions of individual variables to a quadratic form, 2016). An
        unknown descriptor (NaN) has none: known ones are scaled up. Rows of NaN only stay NaN.
        """
        from_mean = self.deviations(x) - self.mean
        parts = np.full(from_mean.shape, np.nan)
        patterns, pattern_of_row = np.unique(~np.isnan(from_mean), axis=0, return_inverse=True)
        for n, known in enumerate(patterns):
            if known.any():
                rows = np.flatnonzero(pattern_of_row.ravel() == n)
                cells = np.ix_(rows, np.flatnonzero(known))
                whiten = _decorrelating(self.covariance[np.ix_(known, known)])
                parts[rows] = 0
                parts[cells] = (from_mean[cells] @ whiten.T) ** 2 / known.sum()
        return parts


@dataclass(frozen=True)
class Anomaly:
    """Density of usual motion, fitted to the real training videos of each of F folds.

    ``motion`` has the descriptors of a clip, (T-1, K), or of N clips.
    """

    clips: tuple[Density, ...]  # of means and standard deviations over time
    moments: tuple[Density, ...]
    reference: Floats  # ascending distances of real videos from folds without their identities

    def distances(self, motion: Sequence[npt.NDArray[Any]]) -> Floats:
        """Return the distances of clips from usual motion, (N,); 1 is usual, NaN is unknown."""
        x = _clip_descriptors(motion)
        return np.mean([_distances(density, x) for density in self.clips], axis=0)

    def by_moment(self, motion: npt.NDArray[Any]) -> Floats:
        """Return the distances of the moments of a clip, (T-1,); 1 is usual, NaN is unknown."""
        x = _known(motion)
        return np.mean([_distances(density, x) for density in self.moments], axis=0)

    def quantile(self, distance: float) -> float:
        """Return the share of real training videos that are less unusual; ties count half."""
        below, above = (self.reference < distance).sum(), (self.reference > distance).sum()
        return float(1 + (below - above) / len(self.reference)) / 2

    @property
    def threshold(self) -> float:
        """Distance that `UNUSUAL_QUANTILE` of the real videos do not reach."""
        return float(np.quantile(self.reference, UNUSUAL_QUANTILE))

    def is_unfamiliar(self, motion: Sequence[npt.NDArray[Any]]) -> bool:
        """Return whether a video is `MAX_FAMILIAR` times as unusual as any real training video."""
        distance = self._of_video(motion)
        return distance is not None and distance > MAX_FAMILIAR * float(self.reference.max())

    def drivers(self, motion: Sequence[npt.NDArray[Any]]) -> list[tuple[str, float, float]]:
        """Return the descriptors that make clips unusual, the strongest first.

        Each has a name, a share of the squared distance (they sum to 1), and the distance from the
        median of real clips in robust standard deviations.
        """
        return _drivers(self.clips, _clip_descriptors(motion), CLIP_TITLES)

    def drivers_at(self, motion: npt.NDArray[Any], moment: int) -> list[tuple[str, float, float]]:
        """Return the descriptors that make one moment of a clip unusual, as `drivers` does."""
        return _drivers(self.moments, _known(motion)[[moment]], TITLES)

    def of_video(self, motion: Sequence[npt.NDArray[Any]]) -> tuple[float | None, str]:
        """Return a video's quantile, None if its motion is unknown, and its drivers as text."""
        distance = self._of_video(motion)
        if distance is None:
            return None, ""
        drivers = self.drivers(motion)[:N_DRIVERS]
        return self.quantile(distance), ", ".join(f"{name} {sd:+.1f} sd" for name, _, sd in drivers)

    def _of_video(self, motion: Sequence[npt.NDArray[Any]]) -> float | None:
        distances = self.distances(motion)
        known = distances[~np.isnan(distances)]
        return float(known.mean()) if len(known) else None


def fit_anomaly(
    motion: Sequence[npt.NDArray[Any]],
    training: Sequences,
    folds: Sequence[tuple[Indices, Indices]],
) -> Anomaly:
    """Fit a density per fold to its real training clips; fakes are not used.

    The reference for new videos are its real validation videos, whose identities it did not see.
    """
    real = np.flatnonzero(training.labels == 0)
    features = _clip_descriptors(motion)
    clips, moments = [], []
    distances = np.full(len(motion), np.nan)
    for train, val in folds:
        seen, unseen = np.intersect1d(train, real), np.intersect1d(val, real)
        if training.labels[seen].any() or training.labels[unseen].any():
            raise AssertionError("a fake clip is among the real ones")
        clips.append(_density(features[seen]))
        moments.append(_density(np.concatenate([_known(motion[n]) for n in seen])))
        distances[unseen] = _distances(clips[-1], features[unseen])
    _, _, of_videos = by_video([training.clips[n] for n in real], distances[real])
    reference = np.sort(of_videos[~np.isnan(of_videos)])
    return Anomaly(tuple(clips), tuple(moments), reference)


def percent(share: float) -> str:
    """Return a share as a percentage that is never rounded up."""
    return f"{int(100 * share + 1e-9)}%"


def read_motion(cache: Cache, data: Sequences) -> list[npt.NDArray[np.float32]]:
    """Read the descriptors of N clips, (T-1, K) float32 each."""
    return [cache.read(clip, "motion") for clip in data.clips]


def save_anomaly(folder: Path, anomaly: Anomaly) -> None:
    """Write ``anomaly.npz`` into the folder of a run."""
    arrays = {"names": np.array(NAMES), "reference": anomaly.reference}
    for kind in ("clips", "moments"):
        for name in Density.__dataclass_fields__:
            arrays[f"{kind}_{name}"] = np.stack([getattr(d, name) for d in getattr(anomaly, kind)])

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_whole(folder / ANOMALY, write)


def load_anomaly(folder: Path) -> Anomaly:
    """Read what `save_anomaly` wrote; raise `IntegrityError` if it is damaged."""
    path = folder / ANOMALY
    try:
        with np.load(path, allow_pickle=False) as npz:
            if npz["names"].tolist() != list(NAMES):
                raise ValueError("it is about other descriptors of motion")
            densities = {}
            for kind in ("clips", "moments"):
                arrays = [npz[f"{kind}_{name}"] for name in Density.__dataclass_fields__]
                densities[kind] = tuple(Density(*fold) for fold in zip(*arrays, strict=True))
            return Anomaly(**densities, reference=npz["reference"])
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise IntegrityError(f"{path} is damaged: {error}", "fit the run again") from error


def _known(motion: npt.NDArray[Any]) -> Floats:
    """Return descriptors as float64, NaN where they were not measured.

    Unknown motion of the camera is stored as speed 0, and the first two maps have no jerk.
    """
    x = motion.astype(np.float64)
    x[:2, NAMES.index("jerk")] = np.nan
    camera = x[:, NAMES.index("camera")]
    camera[camera == 0] = np.nan
    x[~np.isfinite(x)] = np.nan
    return x


def _clip_descriptors(motion: Sequence[npt.NDArray[Any]]) -> Floats:
    """Return the means, then the standard deviations of descriptors over time, (N, 2K)."""
    known = [np.ma.masked_invalid(_known(one)) for one in motion]
    over_time = [[one.mean(0).filled(np.nan), one.std(0).filled(np.nan)] for one in known]
    return np.array(over_time).reshape(len(motion), len(CLIP_TITLES))


def _density(x: Floats) -> Density:
    """Fit a density to descriptors, (M, P); an unknown one counts as the median."""
    from sklearn.covariance import LedoitWolf  # takes seconds, and is only for training
    from sklearn.preprocessing import RobustScaler

    centre, scale = np.full(x.shape[1], np.nan), np.ones(x.shape[1])
    measured = ~np.isnan(x).all(0)
    scaler = RobustScaler(unit_variance=True).fit(x[:, measured])
    centre[measured], scale[measured] = scaler.center_, scaler.scale_
    gaussian = LedoitWolf().fit(np.nan_to_num((x - centre) / scale))
    covariance = gaussian.covariance_ + MIN_SPREAD**2 * np.eye(x.shape[1])
    return Density(centre, scale, gaussian.location_, covariance)


def _drivers(
    densities: Sequence[Density], x: Floats, names: Sequence[str]
) -> list[tuple[str, float, float]]:
    parts = np.ma.masked_invalid([density.parts(x) for density in densities])
    deviations = np.ma.masked_invalid([density.deviations(x) for density in densities])
    part, sd = parts.mean((0, 1)), deviations.mean((0, 1))  # (P,)
    total = float(part.sum()) or 1.0
    return [
        (names[n], float(part[n]) / total, float(sd[n]))
        for n in np.argsort(-part.filled(-1), kind="stable")
        if not (np.ma.is_masked(part[n]) or np.ma.is_masked(sd[n]))
    ]


def _distances(density: Density, x: Floats) -> Floats:
    return np.sqrt(density.parts(x).sum(1))


def _decorrelating(covariance: Floats) -> Floats:
    """Return W, (P, P): the length of W x is the Mahalanobis distance, and W x is close to x."""
    sd = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(sd, sd))
    return (vectors / np.sqrt(values)) @ vectors.T / sd  # type: ignore[no-any-return]
