"""Fingerprints that recognise the same footage after re-encoding or resizing.

A perceptual hash of a few frames proposes pairs; takes of one person in one room have similar
hashes, so the motion between those frames decides.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL_SIDE = 32  # pixels
THUMBNAIL_INTERVAL = 0.2  # seconds
MAX_THUMBNAILS = 8  # of a clip
# Bounds measured on real clips by `benchmarks/footage.py`:
MAX_BITS = 12  # of 64 that differ, mean over the thumbnails
MIN_MOTION_CORRELATION = 0.8
MIN_MOTION = 1.0  # grey levels, RMS; below it nothing moves, and the hash alone decides
MAX_BITS_IF_STILL = 2
BLOCK_ROWS, BLOCK_COLUMNS = 512, 16384  # clips that are compared at once

Thumbnails = npt.NDArray[np.uint8]  # (K, 32, 32), grey
Hashes = npt.NDArray[np.uint8]  # (K, 8)


class ThumbnailCollector:
    """Collects small frames of the beginning of a clip, at times independent of its rate."""

    def __init__(self) -> None:
        self._wanted = THUMBNAIL_INTERVAL * np.arange(MAX_THUMBNAILS)
        self._nearest: list[tuple[float, Thumbnails | None]] = [(math.inf, None)] * MAX_THUMBNAILS
        self._first: float | None = None
        self._last = 0.0

    def add(self, frames: npt.NDArray[np.uint8], timestamps: npt.NDArray[np.float64]) -> None:
        """Take the clip's next frames, whole and grey, (n, h, w), at (n,) seconds."""
        for whole, time in zip(frames, timestamps.tolist(), strict=True):
            self._first = time if self._first is None else self._first
            self._last = time - self._first
            errors = np.abs(self._last - self._wanted)
            nearer = [n for n in range(MAX_THUMBNAILS) if errors[n] < self._nearest[n][0]]
            if not nearer:
                continue
            small: Any = cv2.resize(whole, (THUMBNAIL_SIDE,) * 2, interpolation=cv2.INTER_AREA)
            for n in nearer:
                self._nearest[n] = (float(errors[n]), small)

    def collected(self) -> Thumbnails:
        """Return the frames nearest to 0, 0.2, 0.4, ... seconds, at most 8."""
        reached = self._wanted <= self._last + THUMBNAIL_INTERVAL / 10
        return np.stack(
            [p for (_, p), r in zip(self._nearest, reached, strict=True) if p is not None and r]
        )


def perceptual_hashes(thumbnails: Thumbnails) -> Hashes:
    """Compute OpenCV's pHash of thumbnails."""
    hasher = cv2.img_hash.PHash.create()
    return np.stack([hasher.compute(thumbnail).ravel() for thumbnail in thumbnails])


def same_footage(
    hashes: Sequence[Hashes], thumbnails_of: Callable[[int], Thumbnails]
) -> npt.NDArray[np.int64]:
    """Number the recordings that N clips show, (N,).

    All pairs are compared, 30,000 clips in 10 s, 100,000 in two minutes. ``thumbnails_of(n)`` is
    called for the n-th clip where hashes are similar.
    """
    N = len(hashes)
    count = np.array([len(clip) for clip in hashes], np.float32)  # (N,)
    packed = np.zeros((N, MAX_THUMBNAILS, 8), np.uint8)
    for n, clip in enumerate(hashes):
        packed[n, : len(clip)] = clip
    pairs = [np.zeros((0, 2), np.int64)]
    for start in range(0, N, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        row_signs = _signs(packed[rows], count[rows])
        for other in range(start, N, BLOCK_COLUMNS):
            columns = slice(other, other + BLOCK_COLUMNS)
            common = np.minimum(count[rows, None], count[None, columns])  # thumbnails of both
            products = row_signs @ _signs(packed[columns], count[columns]).T
            differ = (64 * common - products) / 2 / common  # bits per thumbnail
            similar = np.argwhere(differ <= MAX_BITS) + np.array([start, other])
            similar = similar[similar[:, 0] < similar[:, 1]]
            confirmed = [
                _is_same_motion(thumbnails_of(i), thumbnails_of(j), differ[i - start, j - other])
                for i, j in similar.tolist()
            ]
            pairs.append(similar[np.array(confirmed, bool)])
    a, b = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(N, N))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _signs(packed: Hashes, count: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return bits as -1 and 1, whose products count equal ones; 0 after the last thumbnail."""
    bits = np.unpackbits(packed, axis=2).astype(np.float32)  # (n, MAX_THUMBNAILS, 64)
    exists = np.arange(MAX_THUMBNAILS) < count[:, None]  # (n, MAX_THUMBNAILS)
    return np.where(exists[:, :, None], 2 * bits - 1, 0).reshape(len(packed), -1).astype(np.float32)


def _is_same_motion(a: Thumbnails, b: Thumbnails, bits: float) -> bool:
    n = min(len(a), len(b))
    moving = [clip[:n] - clip[:n].mean(0, dtype=np.float32) for clip in (a, b)]  # (n, 32, 32)
    strength = [float(np.sqrt((m * m).mean())) for m in moving]
    if max(strength) < MIN_MOTION:
        return bits <= MAX_BITS_IF_STILL
    if min(strength) == 0:
        return False
    return (
        float((moving[0] * moving[1]).mean()) >= MIN_MOTION_CORRELATION * strength[0] * strength[1]
    )
