"""Kinds of fakes: each draws once per clip how it changes it, but for what is meant to move.

A strength of 1 is meant to be learned from; at 0 nothing changes. Lengths are in eye distances.
"""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from pipeline.own_fakes.changes import Change, Part
from pipeline.own_fakes.clip import REACH, Clip, Floats, Ints
from pipeline.own_fakes.masks import SHARES, Rng
from pipeline.own_fakes.swapping import matched_colours, matching_frames

Kind = Callable[[Change, Clip, Rng, float], Change]  # change so far, clip, generator, strength

GRID = 32  # points along a side of a field of displacements
ORGAN_SIZE = 0.45  # eye distances, sigma of what moves along with an organ
MAX_SLIP = (0.03, 0.10)  # eye distances that a face that follows late is off at most
DEGREE = np.pi / 180


def blend(change: Change, clip: Clip, rng: Rng, strength: float) -> Change:
    """Blend the face in again, shifted, scaled, recoloured and blurred, all constant over time.

    Self-blended images (Shiohara, Yamasaki, CVPR 2022), drawn once per clip.
    """
    x, y = strength * rng.uniform(-0.06, 0.06, 2)
    scale = np.exp(strength * rng.uniform(-0.05, 0.05))
    motion = np.tile(_similarity(x, y, scale, 0.0), (len(clip), 1, 1))
    change = replace(change, share=change.share * float(rng.choice(SHARES)))
    return _filtered(_recoloured(change.moved(motion), rng, strength), rng, strength)


def drift(change: Change, clip: Clip, rng: Rng, strength: float) -> Change:
    """Let the face and its organs drift against the head (video-level blending)."""
    n = len(clip)
    tau = np.exp(rng.uniform(np.log(0.3), np.log(6)))  # frames
    whole, organ = strength * np.exp(rng.uniform(np.log(0.005), np.log(0.05), 2))
    turn, growth = strength * rng.uniform(0.2, 1.5) * DEGREE, strength * rng.uniform(0.002, 0.015)
    x, y = whole * _noise(n, 2, tau, rng)
    angle = turn * _noise(n, 1, max(tau, 0.6), rng)[0]
    scale = np.exp(growth * _noise(n, 1, max(tau, 0.6), rng)[0])
    motion = np.stack([_similarity(*row) for row in zip(x, y, scale, angle, strict=True)])
    paths = organ * _noise(n, 10, max(tau, 0.6), rng).reshape(5, 2, n)
    bumps = np.stack([_bump(point) for point in clip.template])  # (5, G, G)

    def field(t: int) -> np.ndarray:
        return np.tensordot(bumps, paths[..., t].astype(np.float32), axes=(0, 0))

    return change.moved(motion).displaced(field)


def lag(change: Change, clip: Clip, rng: Rng, strength: float) -> Change:
    """Let the face follow the head late, and now and then its expression too."""
    late = strength * rng.uniform(0.5, 3)  # frames
    times = clip.within_shot(np.arange(len(clip)) - late)
    before = np.floor(times).astype(int)
    part = (times - before)[:, None, None]
    poses = (1 - part) * clip.poses[before] + part * clip.poses[np.ceil(times).astype(int)]
    change = change.moved(_slip(clip, poses, strength * rng.uniform(*MAX_SLIP)))
    if rng.random() < 0.5:
        when = clip.within_shot(np.arange(len(clip)) - round(late))
        change = change.retimed(_known(clip, when))
    return change


def smooth(change: Change, clip: Clip, rng: Rng, strength: float) -> Change:
    """Low-pass the face's motion, and now and then its looks, as generators that regress do."""
    sigma = strength * rng.uniform(1.5, 6)  # frames
    poses = clip.poses.copy()
    for shot in np.unique(clip.shots) if sigma else ():
        inside = clip.shots == shot
        poses[inside] = gaussian_filter1d(poses[inside], sigma, axis=0, mode="nearest")
    change = change.moved(_slip(clip, poses, strength * rng.uniform(*MAX_SLIP)))
    side = strength * rng.choice([0, 0.2, 0.3])  # weight of the frame before, and after
    if side:
        t = np.arange(len(clip))
        whens = [_known(clip, clip.within_shot(t + step)) for step in (-1, 0, 1)]
        weights = [np.full(len(clip), weight) for weight in (side, 1 - 2 * side, side)]
        change = change.averaged(whens, weights)
    return change


def swap(change: Change, clip: Clip, rng: Rng, strength: float, donor: Clip) -> Change:
    """Blend in another person's face, at each moment the one whose pose is most alike."""
    at = matching_frames(clip, donor)
    sources = ((at, np.ones(len(clip))),)
    share = change.share * min(1.0, strength) * rng.uniform(0.85, 1)
    change = replace(change, donor=donor, sources=sources, share=share)
    return change.seen_as(_colours(*matched_colours(clip, donor)))


def mouth(change: Change, clip: Clip, rng: Rng, strength: float) -> Change:
    """Replace the mouth alone, by itself at other times and a little blurred (lip sync)."""
    n = len(clip)
    offset = rng.uniform(0.1, 0.4) * clip.rate * _noise(n, 1, rng.uniform(6, 20), rng)[0]
    times = clip.within_shot(np.arange(n) + strength * offset)
    if rng.random() < 0.5:  # blend neighbours, where the other half repeats and skips frames
        before, after = np.floor(times).astype(int), np.ceil(times).astype(int)
        weights = [1 - (times - before), times - before]
        change = change.averaged([_known(clip, before), _known(clip, after)], weights)
    else:
        change = change.retimed(_known(clip, np.rint(times).astype(int)))
    change = _recoloured(replace(change, region="mouth"), rng, strength / 2)
    return change.seen_as(_bottleneck(rng.uniform(14, 40), strength * rng.uniform(0.4, 1)))


def soft(change: Change, clip: Clip, rng: Rng, strength: float) -> Change:
    """Put the face through a bottleneck of few pixels and back in, steadily."""
    change = _recoloured(change, rng, strength / 3)
    return change.seen_as(_bottleneck(rng.uniform(10, 26), strength * rng.uniform(0.6, 1)))


def flicker(change: Change, clip: Clip, rng: Rng, strength: float) -> Change:
    """Add residue that is independent from frame to frame: light, colour and fine structure."""
    coarse, fine = strength * rng.uniform(0.5, 3), strength * rng.uniform(0.5, 3)  # grey levels
    seed = int(rng.integers(2**62))
    grain = rng.uniform(2.0, 4.0)  # pixels

    def look(part: Part, t: int, to_part: Floats) -> Part:
        noise = np.random.default_rng([seed, t])
        height, width = part.shape[:2]
        light = noise.standard_normal((5, 5, 3), np.float32) * np.float32(0.4)
        light += noise.standard_normal((5, 5, 1), np.float32)
        light = cv2.resize(light, (width, height), interpolation=cv2.INTER_CUBIC)
        part += np.float32(coarse) * light
        rows, columns = (max(2, round(side / grain)) for side in (height, width))
        structure = noise.standard_normal((rows, columns), np.float32) * np.float32(fine)
        part += cv2.resize(structure, (width, height))[..., None]
        return part

    return change.seen_as(look)


def whole(change: Change, clip: Clip, rng: Rng, strength: float) -> Change:
    """Make the whole picture anew: its textures boil and swim, as in generated video."""
    n = len(clip)
    swims = [
        _swimming(rng, n, 4, rng.uniform(4, 12)),
        _swimming(rng, n, 10, rng.uniform(1, 5)),
    ]
    sizes = strength * np.array([rng.uniform(0.002, 0.008), rng.uniform(0.001, 0.004)]) * 2 * REACH

    def field(t: int) -> np.ndarray:
        return sum(np.float32(s) * swim(t) for s, swim in zip(sizes, swims, strict=True))  # type: ignore[return-value]

    boil, keep = strength * rng.uniform(0.2, 0.8), 1 - strength * rng.uniform(0, 0.4)
    amounts = _swimming(rng, n, 16, rng.uniform(0.5, 3))

    def look(part: Part, t: int, to_part: Floats) -> Part:
        height, width = part.shape[:2]
        small = cv2.resize(part, (width // 3, height // 3), interpolation=cv2.INTER_AREA)
        base = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        amount = keep + boil * (amounts(t)[..., 0])
        weight = cv2.resize(np.clip(amount, 0, 2), (width, height))
        return cv2.blendLinear(part, base, weight, 1 - weight)  # type: ignore[return-value]

    return replace(change, region="whole").displaced(field).seen_as(look)


ALONE = {"whole": whole}
ON_A_FACE: dict[str, Kind] = {
    "blend": blend,
    "drift": drift,
    "lag": lag,
    "smooth": smooth,
    "mouth": mouth,
    "soft": soft,
    "flicker": flicker,
}
KINDS = (
    "swap",
    "blend",
    "drift",
    "lag",
    "smooth",
    "mouth",
    "soft",
    "flicker",
    "whole",
)  # as applied
# By default without those that taught nothing about real fakes, see docs/benchmarks.md:
DEFAULT_KINDS = ("swap", "blend", "drift", "lag", "mouth", "soft")
# How often a fake begins with a kind, by the same table; once for the others:
FIRST = {"swap": 8.0, "soft": 6.0, "drift": 3.0, "blend": 2.0}
MAX_COMPANIONS = 2
# Chance of each kind to join another one:
COMPANIONS = {"blend": 0.25, "drift": 0.4, "lag": 0.15, "smooth": 0.2, "soft": 0.2, "flicker": 0.2}


def draw_mixture(first: str, kinds: tuple[str, ...], rng: Rng) -> tuple[str, ...]:
    """Return a kind and those that join it, in the order of `KINDS`."""
    if first == "whole":
        return ("whole",)
    joining = [kind for kind, chance in COMPANIONS.items() if rng.random() < chance]
    joining = [kind for kind in rng.permutation(joining) if kind in kinds and kind != first]
    return tuple(kind for kind in KINDS if kind in (first, *joining[:MAX_COMPANIONS]))


def _similarity(x: float, y: float, scale: float, angle: float) -> Floats:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y], [0, 0, 1]])


def _noise(n: int, count: int, tau: float, rng: Rng) -> Floats:
    """Return noise of variance 1, (count, n), correlated over about ``tau`` frames."""
    pad = int(4 * tau) + 1
    white = rng.standard_normal((count, n + 2 * pad))
    smooth = gaussian_filter1d(white, tau, axis=1)
    impulse = np.zeros(2 * pad + 1)
    impulse[pad] = 1
    return smooth[:, pad:-pad] / np.linalg.norm(gaussian_filter1d(impulse, tau))


def _bump(point: Floats) -> np.ndarray:
    """Return a Gaussian about a point in head coordinates, (G, G)."""
    places = (np.arange(GRID) + 0.5) * (2 * REACH / GRID) - REACH
    x, y = np.exp(-((places - point[:, None]) ** 2) / (2 * ORGAN_SIZE**2))
    return np.outer(y, x).astype(np.float32)


def _swimming(rng: Rng, n: int, cells: int, tau: float) -> Callable[[int], np.ndarray]:
    """Return smooth noise of variance about 1, (G, G, 2), at each frame."""
    noise = _noise(n, cells * cells * 2, tau, rng).reshape(cells, cells, 2, n).astype(np.float32)
    return lambda t: cv2.resize(
        np.ascontiguousarray(noise[..., t]), (GRID, GRID), interpolation=cv2.INTER_CUBIC
    )


def _slip(clip: Clip, poses: Floats, limit: float) -> Floats:
    """Return the motion of a face that is drawn at other poses, off by ``limit`` at most."""
    motion = np.linalg.inv(poses) @ clip.poses  # drawn place → true one
    off = motion - np.eye(3)
    corners = np.column_stack([clip.template, np.ones(len(clip.template))]).T  # (3, 5)
    size = np.linalg.norm((off @ corners)[:, :2], axis=1).max(axis=1)  # (T,)
    with np.errstate(divide="ignore"):
        factor = 1 / np.sqrt(1 + (size / limit) ** 2) if limit else np.zeros(len(size))
    return np.eye(3) + off * factor[:, None, None]


def _known(clip: Clip, when: Ints) -> Ints:
    """Replace times at which there is no face by the frame itself."""
    return np.where(clip.presence[when] > 0, when, np.arange(len(when)))


def _recoloured(change: Change, rng: Rng, strength: float) -> Change:
    """Change light, colour balance, saturation and contrast."""
    gain = np.exp(strength * (rng.uniform(-0.1, 0.1) + rng.uniform(-0.05, 0.05, 3)))
    saturation = np.exp(strength * rng.uniform(-0.3, 0.3))
    bias = strength * (rng.uniform(-12, 12) + rng.uniform(-8, 8, 3))
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    matrix = gain[:, None] * (grey + saturation * (np.eye(3) - grey))
    return change.seen_as(_colours(matrix, bias))


def _colours(matrix: Floats, bias: Floats) -> Callable[[Part, int, Floats], Part]:
    """Return the look of a linear change of colours; exactly none for the identity."""
    table = np.column_stack([matrix, bias]).astype(np.float32)
    if np.allclose(table, np.eye(3, 4), atol=1e-6):
        return lambda part, t, to_part: part
    return lambda part, t, to_part: cv2.transform(part, table)  # type: ignore[return-value]


def _filtered(change: Change, rng: Rng, strength: float) -> Change:
    """Blur, sharpen, or neither."""
    sigma, amount = rng.uniform(0.5, 1.3), strength * rng.choice([-0.8, 0, 0, 0, 0.6, 1])

    def look(part: Part, t: int, to_part: Floats) -> Part:
        return part + np.float32(amount) * (cv2.GaussianBlur(part, (0, 0), sigma) - part)

    return change.seen_as(look) if amount else change


def _bottleneck(pixels: float, amount: float) -> Callable[[Part, int, Floats], Part]:
    """Return the look of a face through so many pixels per eye distance, steady on the head."""
    side = round(2 * REACH * pixels)
    to_few = np.array([[pixels, 0, REACH * pixels], [0, pixels, REACH * pixels], [0, 0, 1]])

    def look(part: Part, t: int, to_part: Floats) -> Part:
        height, width = part.shape[:2]
        scale = np.sqrt(abs(np.linalg.det(to_part[:2, :2]))) / pixels  # pixels of the part for one
        if scale <= 1 or not amount:
            return part
        blurred = cv2.GaussianBlur(part, (0, 0), 0.4 * scale)
        there = (to_part @ np.linalg.inv(to_few))[:2]  # few pixels → part
        few = cv2.warpAffine(
            blurred, there, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        back = cv2.warpAffine(
            few, there, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        return part + np.float32(min(amount, 1.0)) * (back - part)

    return look
