"""Unusual motion and trajectories, by densities of real videos that never saw a fake."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

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
T = TypeVar("T")

ANOMALY = "anomaly.npz"
UNUSUAL_QUANTILE = 0.95  # of real training videos; more is fake for the control
MAX_FAMILIAR = 2.0  # times the largest distance of a real training video
MIN_SPREAD = 0.1  # robust standard deviations; smaller differences are noise
N_DRIVERS = 3  # descriptors named in a text


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
    """Density of usual descriptors, fitted to the real training videos of each of F folds.

    ``motion`` has the descriptors of a clip, (T, K), or of N clips, in the order of ``names``:
    those of motion, or another stream's, where NaN is unknown.
    """

    clips: tuple[Density, ...]  # of means and standard deviations over time
    moments: tuple[Density, ...]  # of single rows; empty if not fitted
    reference: Floats  # ascending distances of real videos from folds without their identities
    names: tuple[str, ...] = NAMES

    @property
    def titles(self) -> list[str]:
        """Titles of the descriptors for people, (K,)."""
        return [(f"{n} speed" if n in SPEEDS else n).replace("_", " ") for n in self.names]

    @property
    def clip_titles(self) -> list[str]:
        """Titles of a clip's means, then of its standard deviations over time, (2K,)."""
        return [*self.titles, *(f"variation of {title}" for title in self.titles)]

    def distances(self, motion: Iterable[npt.NDArray[Any]]) -> Floats:
        """Return the distances of clips from usual motion, (N,); 1 is usual, NaN is unknown."""
        x = _clip_descriptors(motion, self.names)
        return np.mean([_distances(density, x) for density in self.clips], axis=0)

    def by_moment(self, motion: npt.NDArray[Any]) -> Floats:
        """Return the distances of the moments of a clip, (T-1,); 1 is usual, NaN is unknown."""
        x = _known(motion, self.names)
        return np.mean([_distances(density, x) for density in self.moments], axis=0)

    def quantile(self, distance: float) -> float:
        """Return the share of real training videos that are less unusual; ties count half."""
        return float(share_below(self.reference, distance))

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
        return _drivers(self.clips, _clip_descriptors(motion, self.names), self.clip_titles)

    def drivers_at(self, motion: npt.NDArray[Any], moment: int) -> list[tuple[str, float, float]]:
        """Return the descriptors that make one moment of a clip unusual, as `drivers` does."""
        return _drivers(self.moments, _known(motion, self.names)[[moment]], self.titles)

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
    """Fit a density of motion per fold to its real training clips; fakes are not used.

    The reference for new videos are its real validation videos, whose identities it did not see.
    """
    return fit_densities(motion, training, folds, NAMES, moments=True)[0]


def fit_densities(
    clips: Iterable[npt.NDArray[Any]],
    training: Sequences,
    folds: Sequence[tuple[Indices, Indices]],
    names: tuple[str, ...],
    *,
    moments: bool = False,
) -> tuple[Anomaly, Floats]:
    """Fit a density per fold to the descriptors of N clips; return it and their distances, (N,).

    A distance is that of the fold that did not see the clip; NaN for fakes, and where unknown.
    With ``moments``, for which the clips are read again, single rows have a density too.
    """
    features = _clip_descriptors(clips, names)
    of_clips, of_moments, distances = [], [], np.full(len(features), np.nan)
    for seen, unseen in real_folds(training, folds):
        of_clips.append(_density(features[seen]))
        distances[unseen] = _distances(of_clips[-1], features[unseen])
        if moments:
            assert isinstance(clips, Sequence)
            rows = np.concatenate([_known(clips[n], names) for n in seen])
            of_moments.append(_density(rows))
    reference = real_reference(training, distances)
    return Anomaly(tuple(of_clips), tuple(of_moments), reference, names), distances


def real_folds(
    training: Sequences, folds: Sequence[tuple[Indices, Indices]]
) -> list[tuple[Indices, Indices]]:
    """Return the folds without their fakes: the clips to fit to, and those unseen."""
    real = np.flatnonzero(training.labels == 0)
    found = [(np.intersect1d(train, real), np.intersect1d(val, real)) for train, val in folds]
    for rows in found:
        if training.labels[np.concatenate(rows)].any():
            raise AssertionError("a fake clip is among the real ones")
    return found


def real_reference(training: Sequences, values: Floats) -> Floats:
    """Average values of N clips by real training video; return the known ones, ascending."""
    real = np.flatnonzero(training.labels == 0)
    _, _, of_videos = by_video([training.clips[n] for n in real], values[real])
    return np.sort(of_videos[~np.isnan(of_videos)])


def share_below(reference: Floats, values: npt.ArrayLike) -> Floats:
    """Return the share of an ascending reference below each value; ties count half, NaN is NaN."""
    values = np.asarray(values, np.float64)
    sides = [np.searchsorted(reference, values, side) for side in ("left", "right")]
    return np.where(np.isnan(values), np.nan, np.add(*sides) / (2 * len(reference)))


def percent(share: float) -> str:
    """Return a share as a percentage that is never rounded up."""
    return f"{int(100 * share + 1e-9)}%"


def read_motion(cache: Cache, data: Sequences) -> list[npt.NDArray[np.float32]]:
    """Read the descriptors of N clips, (T-1, K) float32 each."""
    return [cache.read(clip, "motion") for clip in data.clips]


def save_anomaly(folder: Path, anomaly: Anomaly) -> None:
    """Write ``anomaly.npz`` into the folder of a run."""
    write_arrays(folder, arrays_of(anomaly))


def arrays_of(anomaly: Anomaly) -> dict[str, npt.NDArray[Any]]:
    """Return what a file stores of a density."""
    arrays = {"names": np.array(anomaly.names), "reference": anomaly.reference}
    for kind in ("clips", "moments"):
        if densities := getattr(anomaly, kind):
            for name in Density.__dataclass_fields__:
                arrays[f"{kind}_{name}"] = np.stack([getattr(d, name) for d in densities])
    return arrays


def anomaly_of(arrays: Mapping[str, npt.NDArray[Any]]) -> Anomaly:
    """Return the density that `arrays_of` was given."""
    names = tuple(arrays["names"].tolist())
    densities = {}
    for kind in ("clips", "moments"):
        keys = [f"{kind}_{name}" for name in Density.__dataclass_fields__]
        stored = [arrays[key] for key in keys if kind == "clips" or key in arrays]
        densities[kind] = tuple(Density(*fold) for fold in zip(*stored, strict=True))
    return Anomaly(**densities, reference=arrays["reference"], names=names)


def write_arrays(folder: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write ``anomaly.npz`` into the folder of a run."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_whole(folder / ANOMALY, write)


def load_anomaly(folder: Path) -> Anomaly:
    """Read the density of motion of a run; raise `IntegrityError` if it is damaged."""
    return read_arrays(folder, motion_of)


def motion_of(arrays: Mapping[str, npt.NDArray[Any]]) -> Anomaly:
    """Return the density of motion in ``anomaly.npz``."""
    anomaly = anomaly_of(arrays)
    if anomaly.names != NAMES:
        raise ValueError("it is about other descriptors of motion")
    return anomaly


def read_arrays(folder: Path, read: Callable[[Mapping[str, npt.NDArray[Any]]], T]) -> T:
    """Read ``anomaly.npz`` of a run; raise `IntegrityError` if it is damaged."""
    path = folder / ANOMALY
    try:
        with np.load(path, allow_pickle=False) as npz:
            return read(npz)
    except Exception as error:  # whatever an arbitrary file makes a parser raise
        raise IntegrityError(f"{path} is damaged: {error}", "fit the run again") from error


def _known(descriptors: npt.NDArray[Any], names: Sequence[str]) -> Floats:
    """Return descriptors as float64, NaN where they were not measured.

    Unknown motion of the camera is stored as speed 0, and the first two maps have no jerk.
    """
    x = descriptors.astype(np.float64)
    if tuple(names) == NAMES:
        x[:2, NAMES.index("jerk")] = np.nan
        camera = x[:, NAMES.index("camera")]
        camera[camera == 0] = np.nan
    x[~np.isfinite(x)] = np.nan
    return x


def _clip_descriptors(clips: Iterable[npt.NDArray[Any]], names: Sequence[str]) -> Floats:
    """Return the means, then the standard deviations of descriptors over time, (N, 2K)."""
    known = (np.ma.masked_invalid(_known(clip, names)) for clip in clips)
    over_time = [[one.mean(0).filled(np.nan), one.std(0).filled(np.nan)] for one in known]
    return np.array(over_time).reshape(-1, 2 * len(names))


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
