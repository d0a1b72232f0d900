"""The same footage, recognised although it was encoded again or resized.

Two files can show the same recording and share no byte: a copy at another quality or size, or a
fake and the real video that it was made from. On two sides of a split they are a leak. A perceptual
hash of a few frames proposes pairs; takes of one person in one room look alike to it, so the motion
between those frames decides.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIZE = 32  # pixels, of a thumbnail: what the hash is computed from
INTERVAL = 0.2  # seconds between thumbnails
MOST = 8  # thumbnails of a clip
# `benchmarks/footage.py` says how these tell real clips apart.
FEW_BITS = 12  # of 64, on average over the thumbnails, may differ
CORRELATION = 0.8  # of the motion, at least
STILL = 1.0  # grey levels: below this nothing moves, and the hash alone decides
VERY_FEW_BITS = 2
BLOCK = 512  # clips compared with all others at once

Thumbnails = npt.NDArray[np.uint8]


def thumbnails(frames: npt.NDArray[np.uint8], timestamps: npt.NDArray[np.float64]) -> Thumbnails:
    """Small grey pictures of the beginning of a clip, at times that do not depend on its rate.

    Args:
        frames: (T, H, W, 3) uint8, RGB.
        timestamps: (T,) seconds.

    Returns:
        (K, 32, 32) uint8: the frames nearest to 0, 0.2, 0.4, ... seconds, 8 at most.
    """
    times = timestamps - timestamps[0]
    wanted = INTERVAL * np.arange(MOST)
    nearest = [int(np.abs(times - w).argmin()) for w in wanted if w <= times[-1] + INTERVAL / 10]
    small = [cv2.resize(frames[n], (SIZE, SIZE), interpolation=cv2.INTER_AREA) for n in nearest]
    return np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in small])


def same_footage(clips: Sequence[Thumbnails]) -> npt.NDArray[np.int64]:
    """Number the recordings that clips show.

    Every clip is compared with every other one: 10 s for 30,000 clips, two minutes for 100,000.

    Args:
        clips: N arrays (K, 32, 32), as `thumbnails` gives them.

    Returns:
        (N,) int64: equal for clips of the same footage, directly or in a chain.
    """
    N = len(clips)
    count = np.array([len(clip) for clip in clips], np.float32)  # (N,)
    bits = np.stack([_bits(clip) for clip in clips]) if N else np.zeros((0, 1), np.float32)
    pairs = [np.zeros((0, 2), np.int64)]
    for start in range(0, N, BLOCK):
        rows = slice(start, start + BLOCK)
        common = np.minimum(count[rows, None], count[None, start:])  # (rows, N - start) thumbnails
        differ = (64 * common - bits[rows] @ bits[start:].T) / 2 / common  # bits per thumbnail
        alike = np.argwhere(differ <= FEW_BITS)
        alike = alike[alike[:, 0] < alike[:, 1]]
        confirmed = [
            _moves_alike(clips[start + i], clips[start + j], float(differ[i, j])) for i, j in alike
        ]
        pairs.append(alike[confirmed] + start if len(alike) else pairs[0])
    a, b = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(N, N))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _bits(clip: Thumbnails) -> npt.NDArray[np.float32]:
    """Perceptual hashes as numbers whose products count equal bits: -1 or 1, 0 where it ended."""
    hasher = cv2.img_hash.PHash.create()
    hashes = [np.unpackbits(hasher.compute(picture).ravel()) for picture in clip]
    values = np.zeros((MOST, 64), np.float32)
    values[: len(clip)] = 2.0 * np.stack(hashes) - 1
    return values.ravel()


def _moves_alike(a: Thumbnails, b: Thumbnails, bits: float) -> bool:
    n = min(len(a), len(b))
    moving = [clip[:n] - clip[:n].mean(0, dtype=np.float32) for clip in (a, b)]  # (n, 32, 32)
    strength = [float(np.sqrt((m * m).mean())) for m in moving]
    if max(strength) < STILL:
        return bits <= VERY_FEW_BITS
    if min(strength) == 0:
        return False
    return float((moving[0] * moving[1]).mean()) >= CORRELATION * strength[0] * strength[1]
