"""What every backend has to give: OpenCV's flow, within these tolerances, on these sequences.

At the picture's border the method is not continuous: a pixel that moves out by a billionth is
treated otherwise than one that stays. Where nothing moves at all the last bit decides which it is,
and where texture is poor that spreads. So single pixels may differ by much, and the bounds are on
the mean and on 99.9% of the pixels of a sequence; and no picture here is at rest to the last bit.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

MEAN = 1e-4  # px, of the distance between the ends of two flow vectors
MOST = 5e-3  # px, its 99.9th percentile
EQUAL = 0.999  # share of the pixels of all maps
DIFFERING = 1e-2  # px: where flow differs by more, a map may differ by more than one grey level


@dataclass(frozen=True)
class Differences:
    """How far a backend is from OpenCV on one sequence."""

    mean: float  # px
    most: float  # px, 99.9th percentile
    largest: float  # px
    equal: float  # share of map pixels
    off: int  # grey levels, outside the pixels whose flow differs by more than DIFFERING

    def pass_gate(self):
        return self.mean <= MEAN and self.most <= MOST and self.equal >= EQUAL and self.off <= 1


def reference(frames):
    """(T-1, H, W, 2) float32 by ``cv2.calcOpticalFlowFarneback``."""
    arguments = (None, 0.5, 3, 15, 3, 5, 1.2, 0)
    flow = [cv2.calcOpticalFlowFarneback(a, b, *arguments) for a, b in pairwise(frames)]
    return np.stack(flow)


def map_of(flow):
    """(H, W) uint8 of (H, W, 2)."""
    magnitude, _ = cv2.cartToPolar(*cv2.split(flow))
    return cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)


def compare(frames, flow, maps):
    """Compare flow (T-1, H, W, 2) and maps (T-1, H, W) with OpenCV's."""
    expected = reference(frames)
    distance = np.sqrt(((flow - expected) ** 2).sum(-1))
    off = np.abs(maps.astype(int) - np.stack([map_of(f) for f in expected]))
    alike = distance <= DIFFERING
    return Differences(
        mean=float(distance.mean()),
        most=float(np.quantile(distance, 0.999)),
        largest=float(distance.max()),
        equal=float((off == 0).mean()),
        off=int(off[alike].max(initial=0)),
    )


def texture(height, width, n=4, dx=1.7, dy=-0.9, seed=0):
    """A smooth texture that moves by (dx, dy) pixels a frame."""
    rng = np.random.default_rng(seed)
    margin = int(max(abs(dx), abs(dy)) * n) + 8
    noise = rng.integers(0, 256, (height + 2 * margin, width + 2 * margin)).astype(np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    moves = [np.float32([[1, 0, -margin - dx * i], [0, 1, -margin - dy * i]]) for i in range(n)]
    return np.stack([cv2.warpAffine(smooth, move, (width, height)) for move in moves])


def noise_over_a_still_picture(height, width, n=4):
    rng = np.random.default_rng(1)
    still = texture(height, width, 1)[0].astype(float)
    frames = [still + rng.normal(0, 2, still.shape) for _ in range(n)]
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def a_cut(height, width):
    return np.concatenate([texture(height, width, 2), texture(height, width, 2, seed=9)])


def a_head_on_a_wall(height, width, n=4):
    """A textured disc that moves over a texture at rest, as a camera sees it: with noise."""
    rng = np.random.default_rng(2)
    wall, head = texture(height, width, 1)[0], texture(height, width, 1, seed=5)[0]
    frames = []
    for i in range(n):
        mask = np.zeros((height, width), np.uint8)
        cv2.circle(mask, (width // 2 + 4 * i, height // 2), height // 4, 1, -1)
        moved = cv2.warpAffine(head, np.float32([[1, 0, 4 * i], [0, 1, 0]]), (width, height))
        picture = np.where(mask == 1, moved, wall) + rng.normal(0, 1, wall.shape)
        frames.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    return np.stack(frames)


SIZES = [
    (31, 40),
    (32, 32),
    (33, 95),
    (63, 64),
    (64, 63),
    (65, 66),
    (127, 129),
    (128, 128),
    (255, 257),
    (32, 1000),
    (900, 33),
    (101, 103),
]
CASES = {
    **{f"texture {h}x{w}": lambda h=h, w=w: texture(h, w) for h, w in SIZES},
    "texture 224x224": lambda: texture(224, 224),
    "large motion": lambda: texture(240, 320, dx=23.4, dy=-11.2),
    "noise over a still picture": lambda: noise_over_a_still_picture(224, 224),
    "noise, odd size": lambda: noise_over_a_still_picture(225, 227),
    "a scene cut": lambda: a_cut(224, 224),
    "a head on a wall": lambda: a_head_on_a_wall(240, 320),
    "flat": lambda: np.full((3, 64, 96), 128, np.uint8),
    "from black to white": lambda: np.stack([np.full((64, 64), v, np.uint8) for v in (0, 255)]),
    "white noise": lambda: np.random.default_rng(0).integers(0, 256, (3, 96, 96)).astype(np.uint8),
}
