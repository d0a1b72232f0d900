"""Descriptors of absolute motion, which the scaled flow maps no longer carry."""

import numpy as np
import numpy.typing as npt

NAMES = (
    "mean",
    "std",
    "median",
    "p90",
    "p99",
    "max",
    "centre_mean",
    "border_mean",
    "camera",
)


def motion_descriptors(
    flow: npt.NDArray[np.uint8],
    flow_range: npt.NDArray[np.float32],
    timestamps: npt.NDArray[np.float64],
    camera: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Statistics of each flow map, as log(1 + pixels per second).

    Per second, by the time that really lies between the two frames, so that neither the frame
    rate nor a dropped frame looks like motion.

    Args:
        flow: (T-1, H, W) uint8, min-max scaled maps.
        flow_range: (T-1, 2) float32, what 0 and 255 stand for in pixels per frame.
        timestamps: (T,) float64, seconds.
        camera: (T-1, 6) float32, the camera's motion in pixels per frame, as a cache stores it.

    Returns:
        (T-1, K) float32, in the order of `NAMES`; the centre is the middle half of each side. The
        camera's is its speed at the middle of the map, 0 where it is not known.
    """
    _, height, width = flow.shape
    middle = (slice(None), slice(height // 4, -(height // 4)), slice(width // 4, -(width // 4)))
    pixels = flow.reshape(len(flow), -1).astype(np.float32)
    centre = flow[middle].reshape(len(flow), -1).astype(np.float32)
    n_border = pixels.shape[1] - centre.shape[1]
    scaled = np.stack(
        [
            pixels.mean(1),
            pixels.std(1),
            *np.quantile(pixels, [0.5, 0.9, 0.99], axis=1),
            pixels.max(1),
            centre.mean(1),
            (pixels.sum(1) - centre.sum(1)) / n_border,
        ],
        axis=1,
    )  # (T-1, K), in units of the map
    low, high = flow_range[:, :1], flow_range[:, 1:]
    offset = np.where(np.array(NAMES[:-1]) == "std", 0, low)
    per_frame = offset + scaled / 255 * (high - low)  # pixels
    speed = np.nan_to_num(np.hypot(camera[:, :1], camera[:, 1:2]))
    per_frame = np.concatenate([per_frame, speed], axis=1)
    return np.log1p(per_frame / np.diff(timestamps)[:, None]).astype(np.float32)
