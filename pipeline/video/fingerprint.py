"""The same footage, recognised although it was encoded again or resized.

Two files can show the same recording and share no byte: a copy at another quality or size, or a
fake and the real video that it was made from. On two sides of a split they are a leak. A perceptual
hash of a few frames proposes pairs; takes of one person in one room look alike to it, so the motion
between those frames decides.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

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
BLOCK, MANY = 512, 16384  # clips compared with so many others at once

Pictures = npt.NDArray[np.uint8]  # (K, 32, 32), grey
Hashes = npt.NDArray[np.uint8]  # (K, 8)


class Thumbnails:
    """Small grey pictures of the beginning of a clip, at times that do not depend on its rate."""

    def __init__(self) -> None:
        self._wanted = INTERVAL * np.arange(MOST)
        self._nearest: list[tuple[float, Pictures | None]] = [(math.inf, None)] * MOST
        self._first: float | None = None
        self._last = 0.0

    def add(self, pictures: npt.NDArray[np.uint8], timestamps: npt.NDArray[np.float64]) -> None:
        """Look at the next moments.

        Args:
            pictures: (n, h, w) uint8, grey: the whole picture, whatever part of it a clip keeps.
            timestamps: (n,) seconds.
        """
        for whole, time in zip(pictures, timestamps.tolist(), strict=True):
            self._first = time if self._first is None else self._first
            self._last = time - self._first
            errors = np.abs(self._last - self._wanted)
            nearer = [n for n in range(MOST) if errors[n] < self._nearest[n][0]]
            if not nearer:
                continue
            picture: Any = cv2.resize(whole, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            for n in nearer:
                self._nearest[n] = (float(errors[n]), picture)

    def pictures(self) -> Pictures:
        """The frames nearest to 0, 0.2, 0.4, ... seconds, (K, 32, 32) uint8, 8 at most."""
        reached = self._wanted <= self._last + INTERVAL / 10
        taken = [p for (_, p), r in zip(self._nearest, reached, strict=True) if p is not None and r]
        return np.stack(taken)


def perceptual_hashes(pictures: Pictures) -> Hashes:
    """OpenCV's pHash of each picture: (K, 8) uint8 of (K, 32, 32)."""
    hasher = cv2.img_hash.PHash.create()
    return np.stack([hasher.compute(picture).ravel() for picture in pictures])


def same_footage(
    hashes: Sequence[Hashes], pictures_of: Callable[[int], Pictures]
) -> npt.NDArray[np.int64]:
    """Number the recordings that clips show.

    Every clip is compared with every other one: 10 s for 30,000 clips, two minutes for 100,000.

    Args:
        hashes: of N clips, as `perceptual_hashes` gives them.
        pictures_of: gives the pictures of the n-th clip; called where hashes are alike.

    Returns:
        (N,) int64: equal for clips of the same footage, directly or in a chain.
    """
    N = len(hashes)
    count = np.array([len(clip) for clip in hashes], np.float32)  # (N,)
    packed = np.zeros((N, MOST, 8), np.uint8)
    for n, clip in enumerate(hashes):
        packed[n, : len(clip)] = clip
    pairs = [np.zeros((0, 2), np.int64)]
    for start in range(0, N, BLOCK):
        rows = slice(start, start + BLOCK)
        ours = _signs(packed[rows], count[rows])
        for other in range(start, N, MANY):
            columns = slice(other, other + MANY)
            common = np.minimum(count[rows, None], count[None, columns])  # thumbnails
            products = ours @ _signs(packed[columns], count[columns]).T
            differ = (64 * common - products) / 2 / common  # bits per thumbnail
            alike = np.argwhere(differ <= FEW_BITS) + np.array([start, other])
            alike = alike[alike[:, 0] < alike[:, 1]]
            confirmed = [
                _moves_alike(pictures_of(i), pictures_of(j), float(differ[i - start, j - other]))
                for i, j in alike.tolist()
            ]
            pairs.append(alike[np.array(confirmed, bool)])
    a, b = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(N, N))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _signs(packed: Hashes, count: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Hashes as numbers whose products count equal bits: -1 or 1, 0 after the last picture."""
    bits = np.unpackbits(packed, axis=2).astype(np.float32)  # (n, MOST, 64)
    there = np.arange(MOST) < count[:, None]  # (n, MOST)
    return np.where(there[:, :, None], 2 * bits - 1, 0).reshape(len(packed), -1).astype(np.float32)


def _moves_alike(a: Pictures, b: Pictures, bits: float) -> bool:
    n = min(len(a), len(b))
    moving = [clip[:n] - clip[:n].mean(0, dtype=np.float32) for clip in (a, b)]  # (n, 32, 32)
    strength = [float(np.sqrt((m * m).mean())) for m in moving]
    if max(strength) < STILL:
        return bits <= VERY_FEW_BITS
    if min(strength) == 0:
        return False
    return float((moving[0] * moving[1]).mean()) >= CORRELATION * strength[0] * strength[1]
