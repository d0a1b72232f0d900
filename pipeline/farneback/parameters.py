"""Farneback's parameters and the tables computed from them.

G. Farnebäck, "Two-frame motion estimation based on polynomial expansion", SCIA 2003; tables as in
OpenCV's ``modules/video/src/optflowgf.cpp``.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

MIN_SIDE = 32  # pixels: OpenCV makes no level with a shorter side
BORDER_WEIGHTS = (0.14, 0.14, 0.4472, 0.4472, 0.4472)  # of the outermost pixels

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Parameters:
    """The arguments of ``cv2.calcOpticalFlowFarneback``, under OpenCV's names."""

    pyr_scale: float = 0.5  # size of a level relative to the one below
    levels: int = 3  # at most, above the frame itself
    winsize: int = 15  # side of the square for averaging, in pixels
    iterations: int = 3  # at each level
    poly_n: int = 5  # reach of the expanded neighbourhood, in pixels
    poly_sigma: float = 1.2  # of its Gaussian weights, in pixels
    flags: int = 0  # such as cv2.OPTFLOW_FARNEBACK_GAUSSIAN


def level_sizes(height: int, width: int, parameters: Parameters) -> list[tuple[int, int]]:
    """Return heights and widths of the levels, the frame first."""
    sizes = [(height, width)]
    scale = 1.0
    for _ in range(parameters.levels):
        scale *= parameters.pyr_scale
        if min(height, width) * scale < MIN_SIDE:
            break
        sizes.append((int(np.rint(height * scale)), int(np.rint(width * scale))))
    return sizes


@functools.lru_cache(maxsize=64)
def smoothing_taps(n: int, m: int, level: int) -> tuple[Ints, Floats]:
    """Return OpenCV's blurring and bilinear shrinking from n to m pixels of an axis as sums.

    Returns:
        The first pixel of each sum, (m,), and its weights, (m, taps).
    """
    sigma = (2.0**level - 1) / 2
    size = max(int(np.rint(sigma * 5)) | 1, 3)
    kernel = cv2.getGaussianKernel(size, sigma, cv2.CV_32F).ravel().astype(np.float64)
    taps = min(size + 1, n)
    start, weights = np.zeros(m, np.int64), np.zeros((m, taps))
    for i, (left, share) in enumerate(zip(*bilinear_taps(n, m), strict=True)):
        sums: dict[int, float] = {}
        for pixel, part in (
            (int(left), 1 - float(share)),
            (min(int(left) + 1, n - 1), float(share)),
        ):
            for t, weight in enumerate(kernel if part else ()):
                at = abs(pixel + t - size // 2)
                at = min(at, 2 * n - 2 - at)
                sums[at] = sums.get(at, 0.0) + part * float(weight)
        start[i] = max(min(min(sums), n - taps), 0)
        for at, total in sums.items():
            weights[i, at - start[i]] = total
    return start, weights.astype(np.float32)


def bilinear_taps(n: int, m: int) -> tuple[Ints, Floats]:
    """Return ``cv2.resize``'s left of two neighbours, (m,), and weight of the right one, (m,)."""
    at = (np.arange(m) + 0.5) * (n / m) - 0.5
    left = np.floor(at).astype(np.int64)
    share = (at - left).astype(np.float32)
    outside = (left < 0) | (left >= n - 1)
    return np.clip(left, 0, n - 1), np.where(outside, np.float32(0), share)


@dataclass(frozen=True)
class Expansion:
    """Weights of the polynomial expansion."""

    g: Floats  # (n+1,) a Gaussian from its centre outwards, of sum 1 over both sides
    xg: Floats  # (n+1,) times the distance
    xxg: Floats  # (n+1,) times the squared distance
    ig11: float  # entries of the inverse moments
    ig03: float
    ig33: float
    ig55: float


def expansion(poly_n: int, poly_sigma: float) -> Expansion:
    """Return the tables of OpenCV's ``FarnebackPrepareGaussian``."""
    x = np.arange(-poly_n, poly_n + 1)
    g = np.exp(-x * x / (2 * poly_sigma**2)).astype(np.float32)
    g = (g / g.astype(np.float64).sum()).astype(np.float32)
    moment = [float((g.astype(np.float64) * x**k).sum()) for k in (0, 2, 4)]
    G = np.zeros((6, 6))  # moments of 1, x, y, x², y², xy; its inverse has four distinct entries
    G[0, 0] = moment[0] ** 2
    G[1, 1] = G[2, 2] = moment[1] * moment[0]
    G[0, 3] = G[3, 0] = G[0, 4] = G[4, 0] = moment[1] * moment[0]
    G[3, 3] = G[4, 4] = moment[2] * moment[0]
    G[5, 5] = G[3, 4] = G[4, 3] = moment[1] ** 2
    inverse = np.linalg.inv(G)
    right = x >= 0
    return Expansion(
        g=g[right],
        xg=(x * g).astype(np.float32)[right],
        xxg=(x * x * g).astype(np.float32)[right],
        ig11=inverse[1, 1],
        ig03=inverse[0, 3],
        ig33=inverse[3, 3],
        ig55=inverse[5, 5],
    )


def border_weights(n: int) -> Floats:
    """Return the weights of pixels along an axis, (n,)."""
    weights = np.ones(n, np.float32)
    for distance, weight in enumerate(BORDER_WEIGHTS):
        weights[distance] *= np.float32(weight)
        weights[n - 1 - distance] *= np.float32(weight)
    return weights
