"""Descriptors of motion that scaled flow maps lose: its speed and distribution."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

# Statistics of speed over a map, log(1 + px/s).
SPEEDS = ("mean", "std", "median", "p90", "p99", "max", "centre_mean", "border_mean", "camera")
NAMES = (
    *SPEEDS,
    "gradient",  # mean difference in speed between neighbouring pixels, log(1 + px/s)
    "jerk",  # second derivative of speed over time, log(1 + px/s³)
    "entropy",  # of the map's greys, 0 to 5 bits
    "centre_ratio",  # log of the centre's mean speed over the border's
)
ENTROPY_BINS = 32
JERK_BLOCK = 4  # pixels, side of the averaged blocks; single pixels are too noisy

GREYS = np.arange(256, dtype=np.float64)

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]  # (n, 256), pixels of each grey


def motion_descriptors(
    flow: npt.NDArray[np.uint8],
    flow_range: Floats,
    timestamps: npt.NDArray[np.float64],
    camera: Floats,
) -> Floats:
    """Compute statistics of each flow map, independent of frame rate and dropped frames.

    Args:
        flow: maps, each min-max scaled, (T-1, H, W) uint8.
        flow_range: motion that 0 and 255 stand for, (T-1, 2) float32, px/frame.
        timestamps: (T,) float64, seconds.
        camera: motion of the camera as a cache stores it, (T-1, 6) float32, px/frame.

    Returns:
        (T-1, K) float32, in the order of `NAMES`. The centre is the middle half of each side; the
        camera's speed is that at the middle of the map, 0 where unknown; the first two jerks are 0.

    Example:
        >>> flow = np.zeros((4, 32, 32), np.uint8)
        >>> by_two = np.full((4, 2), 2, np.float32)  # px/frame
        >>> times = np.arange(5) / 25  # seconds
        >>> motion = motion_descriptors(flow, by_two, times, np.zeros((4, 6), np.float32))
        >>> np.expm1(motion[:, NAMES.index("mean")]).round().tolist()
        [50.0, 50.0, 50.0, 50.0]
    """
    _, height, width = flow.shape
    counts = _counts(flow)
    inner = _counts(flow[:, height // 4 : -(height // 4), width // 4 : -(width // 4)])
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
    )  # (T-1, 8), greys
    low, unit = flow_range[:, :1], (flow_range[:, 1:] - flow_range[:, :1]) / 255
    seconds = np.diff(timestamps)[:, None]
    offset = np.where(np.array(SPEEDS[:-1]) == "std", 0, low)  # px/frame
    camera_speed = np.nan_to_num(np.hypot(camera[:, :1], camera[:, 1:2]))
    gradient = _gradients(flow)[:, None] * unit
    speeds = np.concatenate([offset + scaled * unit, camera_speed, gradient], axis=1) / seconds
    centre, border = (speeds[:, SPEEDS.index(f"{part}_mean")] for part in ("centre", "border"))
    ratio = np.log((1 + centre) / (1 + border))  # one is added against noise
    others = [_jerk(flow, low, unit, timestamps), _entropies(counts), ratio]
    return np.column_stack([np.log1p(speeds), *others]).astype(np.float32)


def _gradients(flow: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
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
    """Return the mean jerk of blocks: (n,), log(1 + px/s³)."""
    size = (max(1, flow.shape[2] // JERK_BLOCK), max(1, flow.shape[1] // JERK_BLOCK))
    small = [cv2.resize(grey, size, interpolation=cv2.INTER_AREA) for grey in flow]
    seconds = np.diff(timestamps)
    speed = (low + np.stack(small).reshape(len(flow), -1) * unit) / seconds[:, None]  # (n, blocks)
    middle = (timestamps[1:] + timestamps[:-1]) / 2
    jerk = np.zeros(len(flow))
    if len(flow) > 2:
        acceleration = np.diff(speed, axis=0) / np.diff(middle)[:, None]
        steps = (middle[2:] - middle[:-2]) / 2
        jerk[2:] = (np.abs(np.diff(acceleration, axis=0)) / steps[:, None]).mean(1)
    return np.log1p(jerk)


def _entropies(counts: Counts) -> npt.NDArray[np.float64]:
    coarse = counts.reshape(len(counts), ENTROPY_BINS, -1).sum(2)
    shares = coarse / coarse.sum(1, keepdims=True)
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(1)


def _counts(flow: npt.NDArray[np.uint8]) -> Counts:
    greys = (np.ascontiguousarray(grey) for grey in flow)
    counts = [cv2.calcHist([grey], [0], None, [256], [0, 256]) for grey in greys]
    return np.stack(counts).reshape(len(flow), 256).astype(np.int64)


def _mean(counts: Counts, values: npt.NDArray[np.float64] = GREYS) -> npt.NDArray[np.float64]:
    return counts @ values / counts.sum(1)


def _quantile(counts: Counts, q: float) -> npt.NDArray[np.float64]:
    """Return a quantile of each map as np.quantile does: (n,), greys."""
    cumulative = counts.cumsum(1)
    rank = q * (cumulative[:, -1:] - 1)
    below, above = ((cumulative > np.floor(rank) + step).argmax(1) for step in (0, 1))
    share = (rank - np.floor(rank))[:, 0]
    return np.where(share > 0, below + share * (above - below), below)
