"""Moments and colours of another person's face that suit a clip."""

import numpy as np

from pipeline.own_fakes.clip import Clip, Floats, Ints

JUMP_COST = 0.02  # of a step in the donor's clip that differs from one frame, per frame
MAX_SKIP = 3  # frames of the donor's clip from one moment to the next
GAINS = (0.6, 1.6)  # smallest and largest change of contrast
N_COLOUR_FRAMES = 8
COLOUR_SPOTS = 12  # points along a side of the grid over the face where colours are compared


def matching_frames(clip: Clip, donor: Clip) -> Ints:
    """Return for each frame the donor's whose five points are most alike, (T,), without haste."""
    shapes, others = _shapes(clip), _shapes(donor)  # (T, 10), (D, 10)
    known = np.flatnonzero(donor.presence > 0)
    cost = np.linalg.norm(shapes[:, None] - others[None, known], axis=2)  # (T, D)
    n = len(known)
    steps = np.arange(-MAX_SKIP, MAX_SKIP + 1)
    costs = JUMP_COST * np.minimum(abs(steps - 1), abs(steps + 1))
    best = cost[0]
    came_from = np.zeros((len(shapes), n), np.int64)
    for t in range(1, len(shapes)):
        before = np.arange(n)[:, None] - steps  # (D, S)
        valid = (before >= 0) & (before < n)
        options = best[np.clip(before, 0, n - 1)] + costs
        options[~valid] = np.inf
        choice = options.argmin(axis=1)
        came_from[t] = before[np.arange(n), choice]
        best = options[np.arange(n), choice] + cost[t]
    path = np.empty(len(shapes), np.int64)
    path[-1] = best.argmin()
    for t in range(len(shapes) - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return known[path]


def _shapes(clip: Clip) -> Floats:
    """Return what a pose's linear part says of turns of the head, (T, 10): template, unturned."""
    linear = clip.poses[:, :2, :2]
    scale = np.sqrt(np.abs(np.linalg.det(linear)))
    turn = np.arctan2(linear[:, 1, 0], linear[:, 0, 0])
    c, s = np.cos(turn), np.sin(turn)
    back = np.stack([np.stack([c, s], 1), np.stack([-s, c], 1)], 1)  # (T, 2, 2)
    upright = back @ linear / scale[:, None, None]
    return (clip.template @ np.swapaxes(upright, 1, 2)).reshape(len(linear), -1)


def matched_colours(clip: Clip, donor: Clip) -> tuple[Floats, Floats]:
    """Return the matrix and bias that give the donor's face the mean and contrast of the clip's.

    Reinhard et al., "Color transfer between images", 2001, channel by channel.
    """
    wanted, given = _colours_of(clip), _colours_of(donor)
    gain = np.clip(wanted.std(axis=0) / np.maximum(given.std(axis=0), 1), *GAINS)
    return np.diag(gain), wanted.mean(axis=0) - gain * given.mean(axis=0)


def _colours_of(clip: Clip) -> Floats:
    """Return colours at points of the face over the clip, (N, 3)."""
    known = np.flatnonzero(clip.presence > 0)
    chosen = known[np.linspace(0, len(known) - 1, N_COLOUR_FRAMES).astype(int)]
    x, y = np.meshgrid(*[np.linspace(-0.7, 0.7, COLOUR_SPOTS)] * 2)
    spots = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    colours = []
    for t in chosen:
        height, width = clip.frames[t].shape[:2]
        px, py = np.rint((clip.poses[t] @ spots)[:2]).astype(int)
        inside = (px >= 0) & (px < width) & (py >= 0) & (py < height)
        colours.append(clip.frames[t][py[inside], px[inside]])
    return np.concatenate(colours).astype(np.float64)
