"""Descriptors of absolute motion, which scaled flow maps do not carry, and of how it is spread."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

# Speeds over a map, as log(1 + pixels per second).
SPEEDS = ("mean", "std", "median", "p90", "p99", "max", "centre_mean", "border_mean", "camera")
NAMES = (
    *SPEEDS,
    "gradient",  # how much speed differs between neighbouring pixels, likewise
    "jerk",  # how much its change over time changes, log(1 + pixels per second cubed)
    "entropy",  # of the map's greys, bits: 0 if all moves alike, 5 if evenly at all speeds
    "centre_ratio",  # log of the centre's speed over the border's
)
BINS = 32  # of greys, for the entropy
BLOCK = 4  # pixels: blocks in which jerk is looked at, above the noise of single ones

GREYS = np.arange(256, dtype=np.float64)

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]  # (n, 256), of each grey


def motion_descriptors(
    flow: npt.NDArray[np.uint8],
    flow_range: Floats,
    timestamps: npt.NDArray[np.float64],
    camera: Floats,
) -> Floats:
    """Statistics of each flow map.

    Per second, by the time that really lies between the two frames, so that neither the frame
    rate nor a dropped frame looks like motion.

    Args:
        flow: (T-1, H, W) uint8, min-max scaled maps.
        flow_range: (T-1, 2) float32, what 0 and 255 stand for in pixels per frame.
        timestamps: (T,) float64, seconds.
        camera: (T-1, 6) float32, the camera's motion in pixels per frame, as a cache stores it.

    Returns:
        (T-1, K) float32, in the order of `NAMES`; the centre is the middle half of each side. The
        camera's speed is that at the middle of the map, 0 where it is not known. Jerk is 0 for the
        first two maps.

    Example:
        >>> flow = np.zeros((4, 32, 32), np.uint8)  # no contrast: everything moves alike,
        >>> by_two = np.full((4, 2), 2, np.float32)  # by two pixels a frame,
        >>> times = np.arange(5) / 25  # at 25 frames a second
        >>> found = motion_descriptors(flow, by_two, times, np.zeros((4, 6), np.float32))
        >>> np.expm1(found[:, NAMES.index("mean")]).round().tolist()
        [50.0, 50.0, 50.0, 50.0]
    """
    _, height, width = flow.shape
    middle = flow[:, height // 4 : -(height // 4), width // 4 : -(width // 4)]
    counts = _counts(flow)
    inner = _counts(middle)
    scaled = np.stack(
        [
            _mean(counts),
            np.sqrt(np.maximum(_mean(counts, GREYS**2) - _mean(counts) ** 2, 0)),
            *(_quantile(counts, q) for q in (0.5, 0.9, 0.99)),
            255 - (counts[:, ::-1] > 0).argmax(1),
            _mean(inner),
            _mean(counts - inner),
        ],
        axis=1,
    )  # in units of the map
    low, unit = flow_range[:, :1], (flow_range[:, 1:] - flow_range[:, :1]) / 255
    seconds = np.diff(timestamps)[:, None]
    offset = np.where(np.array(SPEEDS[:-1]) == "std", 0, low)
    of_camera = np.nan_to_num(np.hypot(camera[:, :1], camera[:, 1:2]))
    gradient = _gradients(flow)[:, None] * unit
    speeds = np.concatenate([offset + scaled * unit, of_camera, gradient], axis=1) / seconds
    inside, outside = (speeds[:, SPEEDS.index(f"{part}_mean")] for part in ("centre", "border"))
    others = [_jerk(flow, low, unit, timestamps), _entropies(counts), _log_ratio(inside, outside)]
    return np.column_stack([np.log1p(speeds), *others]).astype(np.float32)


def _gradients(flow: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """How much neighbouring pixels differ on average, along both axes, in greys: (n,)."""
    return np.array(
        [
            cv2.absdiff(grey[:, 1:], grey[:, :-1]).mean() + cv2.absdiff(grey[1:], grey[:-1]).mean()
            for grey in flow
        ]
    )


def _jerk(
    flow: npt.NDArray[np.uint8],
    low: npt.NDArray[Any],
    unit: npt.NDArray[Any],
    timestamps: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """The second change of speed over time, averaged over blocks: (n,), log(1 + px/s³)."""
    size = (max(1, flow.shape[2] // BLOCK), max(1, flow.shape[1] // BLOCK))
    small = [cv2.resize(grey, size, interpolation=cv2.INTER_AREA) for grey in flow]
    between = np.diff(timestamps)
    speed = (low + np.stack(small).reshape(len(flow), -1) * unit) / between[:, None]  # (n, blocks)
    when = (timestamps[1:] + timestamps[:-1]) / 2
    jerk = np.zeros(len(flow))
    if len(flow) > 2:
        acceleration = np.diff(speed, axis=0) / np.diff(when)[:, None]
        steps = (when[2:] - when[:-2]) / 2
        jerk[2:] = (np.abs(np.diff(acceleration, axis=0)) / steps[:, None]).mean(1)
    return np.log1p(jerk)


def _entropies(counts: Counts) -> npt.NDArray[np.float64]:
    """Shannon's entropy of the greys of each map, in bits: (n,)."""
    coarse = counts.reshape(len(counts), BINS, -1).sum(2)
    shares = coarse / coarse.sum(1, keepdims=True)
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(1)


def _counts(flow: npt.NDArray[np.uint8]) -> Counts:
    """How often each grey is in each map, from which all else follows: (n, 256)."""
    greys = (np.ascontiguousarray(grey) for grey in flow)
    counts = [cv2.calcHist([grey], [0], None, [256], [0, 256]) for grey in greys]
    return np.stack(counts).reshape(len(flow), 256).astype(np.int64)


def _mean(counts: Counts, of: npt.NDArray[np.float64] = GREYS) -> npt.NDArray[np.float64]:
    return counts @ of / counts.sum(1)


def _quantile(counts: Counts, q: float) -> npt.NDArray[np.float64]:
    """As NumPy's: between the two greys, in their order, that lie around it."""
    up_to = counts.cumsum(1)
    at = q * (up_to[:, -1:] - 1)
    below, above = ((up_to > np.floor(at) + step).argmax(1) for step in (0, 1))
    share = (at - np.floor(at))[:, 0]
    return np.where(share > 0, below + share * (above - below), below)


def _log_ratio(
    inside: npt.NDArray[np.float64], outside: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Of speeds in pixels per second; one is added to both, so that noise does not count."""
    return np.log((1 + inside) / (1 + outside))
