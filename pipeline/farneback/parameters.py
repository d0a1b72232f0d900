"""Farneback's parameters and the tables computed from them.

The method is G. Farnebäck, "Two-frame motion estimation based on polynomial expansion", SCIA 2003;
the tables are those of OpenCV's ``modules/video/src/optflowgf.cpp``, whose flow all backends
reproduce.
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
    """The arguments of ``cv2.calcOpticalFlowFarneback``, under OpenCV's names.

    Attributes:
        pyr_scale: size of each level of the pyramid relative to the one below.
        levels: most levels above the frame itself.
        winsize: side of the square over which motion is averaged, in pixels.
        iterations: iterations at each level.
        poly_n: reach of the expanded neighbourhood around its centre, in pixels.
        poly_sigma: standard deviation of the weights in it, in pixels.
        flags: OpenCV's, such as ``cv2.OPTFLOW_FARNEBACK_GAUSSIAN``.
    """

    pyr_scale: float = 0.5
    levels: int = 3
    winsize: int = 15
    iterations: int = 3
    poly_n: int = 5
    poly_sigma: float = 1.2
    flags: int = 0


def level_sizes(height: int, width: int, parameters: Parameters) -> list[tuple[int, int]]:
    """Return the heights and widths of the levels, the frame itself first."""
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
    """Return blurring and shrinking along one axis as a single linear map.

    OpenCV blurs the whole frame (``cv2.GaussianBlur``, mirrored borders) and then resizes it
    bilinearly. Both are linear and separable, so each pixel of the level is a weighted sum of a few
    neighbouring pixels of the frame along each axis. Each level has half the size of the one below.

    Args:
        n: pixels of the frame.
        m: pixels of the level.
        level: 0 is the frame itself, which is blurred by [1/4 1/2 1/4] too.

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
    """Return the weights of bilinear resizing from n to m pixels, as in ``cv2.resize``.

    Returns:
        The left of two neighbours, (m,), and the weight of the right one, (m,).
    """
    at = (np.arange(m) + 0.5) * (n / m) - 0.5
    left = np.floor(at).astype(np.int64)
    share = (at - left).astype(np.float32)
    outside = (left < 0) | (left >= n - 1)
    return np.clip(left, 0, n - 1), np.where(outside, np.float32(0), share)


@dataclass(frozen=True)
class Expansion:
    """Weights of the polynomial expansion; see `expansion`.

    Attributes:
        g: (n+1,) a Gaussian from its centre outwards, of sum 1 over both sides.
        xg: (n+1,) the same times the distance.
        xxg: (n+1,) the same times the squared distance.
        ig11, ig03, ig33, ig55: entries of the inverse of the moments, which turn correlations into
            coefficients.
    """

    g: Floats
    xg: Floats
    xxg: Floats
    ig11: float
    ig03: float
    ig33: float
    ig55: float


def expansion(poly_n: int, poly_sigma: float) -> Expansion:
    """Return the tables of OpenCV's ``FarnebackPrepareGaussian``.

    A neighbourhood is approximated by r1 + r2 x + r3 y + r4 x² + r5 y² + r6 xy in the least squares
    weighted by a Gaussian. The matrix G of that problem holds moments of the Gaussian; by its
    symmetry only four entries of its inverse are needed.
    """
    x = np.arange(-poly_n, poly_n + 1)
    g = np.exp(-x * x / (2 * poly_sigma**2)).astype(np.float32)
    g = (g / g.astype(np.float64).sum()).astype(np.float32)
    moment = [float((g.astype(np.float64) * x**k).sum()) for k in (0, 2, 4)]
    G = np.zeros((6, 6))  # of 1, x, y, x², y², xy
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
    """Return the weights of pixels by their distance from the ends of an axis, (n,)."""
    weights = np.ones(n, np.float32)
    for distance, weight in enumerate(BORDER_WEIGHTS):
        weights[distance] *= np.float32(weight)
        weights[n - 1 - distance] *= np.float32(weight)
    return weights
