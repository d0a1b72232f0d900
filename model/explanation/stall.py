"""STALL: how likely the frames and the steps of a clip are among those of real clips.

Ben Hayun et al., Training-free Detection of Generated Videos via Spatial-Temporal Likelihoods, 2026
(arXiv 2603.15026): embeddings, and differences of successive ones scaled to length 1, each have a
Gaussian of real clips; a clip has the likelihood of its most likely frame and of its least likely
step. Theirs whitens with tens of thousands of videos. Here few videos have to do: a Gaussian has
the variance of its `N_COMPONENTS` principal components, and one variance in all other directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

N_COMPONENTS = 32
MIN_VARIANCE = 1e-6  # of the mean variance of a feature; smaller ones are rounding


@dataclass(frozen=True)
class Gaussian:
    """Gaussian over D features with K variances of its own and one for all other directions.

    Tipping and Bishop, Probabilistic principal component analysis, 1999.
    """

    mean: npt.NDArray[np.float32]  # (D,)
    axes: npt.NDArray[np.float32]  # (K, D), orthonormal
    variances: Floats  # (K,) along the axes
    rest: Floats  # (), the variance along all others

    def log_likelihood(self, x: Floats) -> Floats:
        """Return the log-likelihood of vectors: (M, D) to (M,)."""
        k, d = self.axes.shape
        from_mean = x - self.mean
        along = from_mean @ self.axes.T.astype(np.float64)  # (M, K)
        others = np.maximum((from_mean**2).sum(1) - (along**2).sum(1), 0)
        squared = (along**2 / self.variances).sum(1) + others / self.rest
        log_det = np.log(self.variances).sum() + (d - k) * np.log(self.rest)
        return -(squared + log_det + d * np.log(2 * np.pi)) / 2  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Stall:
    """Gaussians of frames and of steps, one of each per fold, and how likely unseen clips are."""

    frames: tuple[Gaussian, ...]
    steps: tuple[Gaussian, ...]
    frame_reference: Floats  # ascending, of real clips by the fold that did not see them
    step_reference: Floats


def steps_of(z: Floats) -> Floats:
    """Return the directions of steps between embeddings, (M, D); a step of length 0 has none."""
    steps = np.diff(z, axis=0)
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    return (steps / np.where(lengths > 0, lengths, 1))[lengths[:, 0] > 0]


def log_likelihoods(frames: Sequence[Gaussian], steps: Sequence[Gaussian], z: Floats) -> Floats:
    """Return that of the likeliest frame and of the unlikeliest step of a clip, (2,).

    Each is the mean over Gaussians of the folds; NaN without a step.
    """
    directions = steps_of(z)
    if not len(directions):
        return np.full(2, np.nan)
    return np.array(
        [
            np.mean([gaussian.log_likelihood(z).max() for gaussian in frames]),
            np.mean([gaussian.log_likelihood(directions).min() for gaussian in steps]),
        ]
    )


def fit_gaussian(x: npt.NDArray[Any]) -> Gaussian:
    """Fit a Gaussian to vectors, (M, D)."""
    from sklearn.decomposition import PCA  # takes seconds, and is only for training

    x = x.astype(np.float32)
    k = min(N_COMPONENTS, max(1, min(x.shape) // 2))
    with np.errstate(invalid="ignore"):  # of equal vectors, whose variance is 0
        pca = PCA(k, random_state=0).fit(x)
    least = MIN_VARIANCE * float(x.var(0).mean()) + np.finfo(np.float32).tiny
    rest = np.array(max(float(pca.noise_variance_), least), np.float64)
    variances = np.maximum(pca.explained_variance_.astype(np.float64), rest)
    return Gaussian(
        pca.mean_.astype(np.float32), pca.components_.astype(np.float32), variances, rest
    )
