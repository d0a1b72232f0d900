"""Appearance of actors and rooms, painted in layers.

Head coordinates: (0, 0) is the middle of the head, x points right, y down, 1 is half its height.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Colour = tuple[float, float, float]  # RGB, 0..255

SKIN = ((242, 205, 180), (226, 180, 148), (198, 146, 112), (150, 104, 76), (104, 72, 54))
HAIR = ((32, 26, 24), (70, 46, 30), (120, 80, 46), (186, 150, 96), (120, 118, 116), (126, 58, 30))
EYES = ((84, 56, 34), (58, 92, 60), (72, 110, 150), (50, 36, 28), (110, 100, 70))
REACH = 1.6  # the canvas of a head covers [-REACH, REACH]² in head coordinates
WHITE = (255.0, 255.0, 255.0)
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 64)) for f in (np.cos, np.sin)], axis=1)  # (64, 2)


@dataclass(frozen=True)
class Actor:
    """Appearance of an actor; lengths are in half head heights."""

    number: int
    skin: Colour
    hair: Colour
    eyes: Colour
    lips: Colour
    shirt: Colour
    hair_length: float  # y of the lower end
    hairline: float  # y of the upper end of the forehead
    width: float
    chin: float  # 0 round .. 1 pointed
    eye_gap: float
    eye_size: float
    brow: float
    nose: float
    mouth: float
    skin_seed: int


@dataclass(frozen=True)
class Layer:
    """A picture with transparency."""

    paint: Array  # (H, W, 3) uint8, RGB
    alpha: Array  # (H, W) float32, 0..1


@dataclass(frozen=True)
class Face:
    """Face of an actor, ready to animate on a canvas of S x S pixels."""

    actor: Actor
    paint: Array  # (S, S, 3) uint8, without eyes and mouth
    gain: Array  # (S, S, 3) float32, shading and skin texture
    alpha: Array  # (S, S) float32
    depth: Array  # (S, S) float32, shift per radian as the head turns
    jaw: Array  # (S, S) float32, drop as the mouth opens fully


def cast_actor(number: int, seed: int = 0) -> Actor:
    """Return the actor with a number; the same seed gives the same actor."""
    rng = np.random.default_rng([seed, number])
    tone = rng.uniform(0, len(SKIN) - 1)
    skin = [
        float(np.interp(tone, range(len(SKIN)), channel)) for channel in zip(*SKIN, strict=True)
    ]
    red, green, blue = skin
    return Actor(
        number=number,
        skin=(red, green, blue),
        hair=HAIR[rng.integers(len(HAIR))],
        eyes=EYES[rng.integers(len(EYES))],
        lips=(red * 0.88, green * rng.uniform(0.6, 0.74), blue * 0.7),
        shirt=tuple(rng.uniform(35, 200, 3)),
        hair_length=rng.choice([0.0, 0.8, 1.2]),
        hairline=rng.uniform(-0.72, -0.58),
        width=rng.uniform(0.70, 0.80),
        chin=rng.uniform(0.2, 0.6),
        eye_gap=rng.uniform(0.29, 0.35),
        eye_size=rng.uniform(0.12, 0.145),
        brow=rng.uniform(0.02, 0.05),
        nose=rng.uniform(0.26, 0.36),
        mouth=rng.uniform(0.22, 0.31),
        skin_seed=int(rng.integers(2**31)),
    )


def _blobs(rng: np.random.Generator, shape: tuple[int, int], height: float, width: float) -> Array:
    """Return smooth noise, (H, W, 1) float32, with blobs of height x width pixels."""
    rows, columns = 2 + int(shape[0] / height), 2 + int(shape[1] / width)
    coarse = rng.standard_normal((rows, columns), np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)[..., None]


@cache
def grid_of(canvas: int) -> Array:
    """Return head coordinates of every pixel of a canvas, (2, S, S) float32."""
    axis = ((np.arange(canvas) + 0.5) / canvas * 2 - 1).astype(np.float32) * REACH
    return np.stack(np.meshgrid(axis, axis))


def pixels_of(points: Array, canvas: int) -> Array:
    """Convert head coordinates to pixels of a canvas."""
    return (points + REACH) * (canvas / (2 * REACH)) - 0.5


def _spot(canvas: int, x: float, y: float, a: float, b: float) -> Array:
    """Return a Gaussian spot, (S, S, 1) float32, 1 at its middle."""
    across, down = grid_of(canvas)
    return np.exp(-(((across - x) / a) ** 2) - ((down - y) / b) ** 2)[..., None]


def _polygon(image: Array, points: Array, colour: Colour) -> None:
    """Fill a polygon, (N, 2) in head coordinates, with smooth edges."""
    sixteenths = np.round(pixels_of(points, len(image)) * 16).astype(np.int32)
    cv2.fillPoly(image, [sixteenths], colour, cv2.LINE_AA, shift=4)


def fill_ellipse(image: Array, x: float, y: float, a: float, b: float, colour: Colour) -> None:
    """Fill an ellipse with half-axes a and b, in head coordinates."""
    _polygon(image, CIRCLE * (a, b) + (x, y), colour)


def _shade(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def _layer(paint: Array, coverage: Array) -> Layer:
    alpha = cv2.GaussianBlur(coverage, (0, 0), 1.0).astype(np.float32) / 255
    return Layer(np.clip(paint, 0, 255).astype(np.uint8), alpha)


def over(top: Layer, bottom: Array) -> Array:
    """Lay a layer over an image."""
    return cv2.blendLinear(top.paint, bottom, top.alpha, 1 - top.alpha)


def paint_face(actor: Actor, canvas: int, light: float) -> Face:
    """Paint a head without hair, eyes and mouth; light is -1 (left) to 1 (right)."""
    rng = np.random.default_rng([actor.skin_seed, 0])
    x, y = grid_of(canvas)
    taper = 1.02 - (0.14 + 0.22 * actor.chin) * np.clip(CIRCLE[:, 1:], 0, 1) ** 2
    paint = np.full((canvas, canvas, 3), actor.skin, np.float32)
    coverage = np.zeros((canvas, canvas), np.uint8)
    _polygon(coverage, CIRCLE * np.hstack([actor.width * taper, np.ones_like(taper)]), WHITE)
    for side in (-1, 1):
        fill_ellipse(coverage, side * (actor.width + 0.01), 0.06, 0.10, 0.20, WHITE)  # ears
        paint *= 1 - 0.35 * _spot(canvas, side * (actor.width + 0.03), 0.05, 0.05, 0.12)
        paint *= 1 - np.array([0, 0.10, 0.07]) * _spot(
            canvas, side * 0.40, 0.30, 0.2, 0.16
        )  # cheeks
        paint *= 1 - 0.22 * _spot(canvas, side * actor.eye_gap, -0.10, 0.2, 0.12)  # eye sockets
    image = np.clip(paint, 0, 255).astype(np.uint8)

    along = np.linspace(-1, 1, 16)
    arch = -0.30 - 0.05 * np.cos(along * 1.4) + 0.02 * along
    thick = actor.brow * (1 - 0.7 * np.clip(along, 0, 1)) * np.sqrt(1.02 - along**2)
    brow = np.stack(
        [np.r_[along, along[::-1]] * 0.17, np.r_[arch - thick, (arch + thick)[::-1]]], 1
    )
    red, green, blue = (np.array(actor.skin) + 3 * np.array(actor.hair)) / 4
    for side in (-1, 1):
        _polygon(
            image,
            np.array([side, 1]) * brow + np.array([side * actor.eye_gap, 0]),
            (red, green, blue),
        )
        nostril = (side * 0.06, actor.nose + 0.015, 0.03, 0.017)
        fill_ellipse(image, *nostril, _shade(actor.skin, 0.45))
    cv2.GaussianBlur(image, (0, 0), canvas / 260, dst=image)

    round_ = np.sqrt(np.clip(1.05 - (x / (actor.width * 1.08)) ** 2 - (y / 1.08) ** 2, 0.02, 1))
    gain = (0.80 + 0.30 * round_ + 0.22 * (x * light / actor.width - 0.3 * y))[..., None]
    gain = gain * (1 + 0.13 * _spot(canvas, 0, 0.08, 0.05, 0.26))  # ridge of the nose
    gain *= 1 - 0.16 * _spot(canvas, -0.12 * np.sign(light), 0.12, 0.05, 0.20)  # its dark side
    gain *= 1 + 0.12 * _spot(canvas, 0, actor.nose - 0.05, 0.07, 0.07)  # its tip
    gain *= 1 - 0.22 * _spot(canvas, 0, actor.nose + 0.06, 0.12, 0.04)  # its shadow
    gain *= 1 - 0.10 * _spot(canvas, 0, 0.66, 0.20, 0.05)  # under the lip
    for strength, cell in ((0.035, canvas / 14), (0.03, canvas / 45), (0.03, canvas / 128)):
        gain *= 1 + strength * _blobs(rng, (canvas, canvas), cell, cell)
    gain = gain * np.ones(3)
    for _ in range(rng.integers(0, 14)):  # freckles and moles
        across, down, radius = rng.uniform((-0.5, -0.5, 0.012), (0.5, 0.7, 0.03))
        gain *= 1 - np.array([0.20, 0.34, 0.40]) * _spot(canvas, across, down, radius, radius)

    depth = 0.45 * np.sqrt(np.clip(1 - (x / actor.width) ** 2 - y**2, 0, 1))
    depth += 0.12 * _spot(canvas, 0, actor.nose - 0.1, 0.12, 0.2)[..., 0]
    jaw = 0.12 * np.clip((y - 0.4) / 0.4, 0, 1)
    alpha = coverage.astype(np.float32) / 255
    return Face(actor, image, gain.astype(np.float32), alpha, depth, jaw)


def paint_hair(actor: Actor, canvas: int, light: float) -> tuple[Layer, Layer]:
    """Paint the hair behind the head and in front of it."""
    rng = np.random.default_rng([actor.skin_seed, 1])
    shape = (canvas, canvas)
    gloss = 0.85 + 0.5 * _spot(canvas, light * 0.6, -0.85, 0.5, 0.16)
    strands = 0.16 * _blobs(rng, shape, canvas / 6, canvas / 160)
    strands += 0.10 * _blobs(rng, shape, canvas / 3, canvas / 45)
    paint = gloss * (1 + strands) * actor.hair
    back, front = np.zeros((2, *shape), np.uint8)
    if actor.hair_length > 0.5:
        wide, low = actor.width + 0.16, actor.hair_length
        sides = np.array([[wide, -0.1], [wide + 0.04, low], [-wide - 0.04, low], [-wide, -0.1]])
        _polygon(back, sides, WHITE)
    x = np.linspace(-1, 1, 48)
    crown = np.stack([x * (actor.width + 0.08), -0.08 - 1.05 * np.sqrt(1 - np.abs(x) ** 2.6)], 1)
    forehead = actor.hairline + (-0.02 - actor.hairline) * np.abs(x) ** 5
    edge = np.stack([x * actor.width * 0.97, forehead], 1)
    _polygon(front, np.concatenate([crown, edge[::-1]]), WHITE)
    return _layer(paint * 0.7, back), _layer(paint, front)


def paint_body(actor: Actor, canvas: int, light: float) -> Layer:
    """Paint neck and shoulders, at half the head's scale."""
    rng = np.random.default_rng([actor.skin_seed, 2])
    shape = (canvas, canvas)
    paint = np.full((*shape, 3), actor.shirt, np.float32)
    coverage = np.zeros(shape, np.uint8)
    neck = np.array([[-0.26, 0.2], [0.26, 0.2], [0.29, 0.60], [0.0, 0.76], [-0.29, 0.60]])
    _polygon(coverage, neck, WHITE)
    fill_ellipse(coverage, 0, 1.35, 1.12, 0.76, WHITE)
    fill_ellipse(paint, 0, 0.60, 0.36, 0.20, _shade(actor.shirt, 0.72))
    _polygon(paint, neck, _shade(actor.skin, 0.88))
    cv2.GaussianBlur(paint, (0, 0), 1.0, dst=paint)
    paint *= 1 - 0.45 * _spot(canvas, 0, 0.46, 0.5, 0.16)  # the chin's shadow
    paint *= 1 + 0.25 * light * grid_of(canvas)[0][..., None]
    paint *= 1 + 0.05 * _blobs(rng, shape, canvas / 30, canvas / 30)
    paint *= 1 + 0.03 * _blobs(rng, shape, canvas / 12, canvas / 90)
    return _layer(paint, coverage)


def paint_room(rng: np.random.Generator, size: tuple[int, int], light: float) -> Array:
    """Paint a wall with objects, out of focus, (H, W, 3) uint8."""
    width, height = size
    down, across = np.mgrid[:height, :width] / height
    room = rng.uniform(70, 190) + rng.uniform(-22, 22, 3) + np.zeros((height, width, 3))
    for _ in range(rng.integers(5, 10)):
        x, y = rng.uniform((-0.1, -0.1), (0.95, 0.7)) * size
        right, bottom = (x, y) + rng.uniform(0.06, 0.35, 2) * width
        colour = np.clip(rng.uniform(40, 215) + rng.uniform(-30, 30, 3), 10, 240)
        for tint, line in ((colour, -1), (colour * 0.6, 2)):
            cv2.rectangle(room, (int(x), int(y)), (int(right), int(bottom)), tint.tolist(), line)
    cv2.GaussianBlur(room, (0, 0), height * rng.uniform(0.004, 0.014), dst=room)
    room *= (1 + 0.3 * light * (across - 0.66) - 0.25 * down)[..., None]
    room *= 1 + 0.03 * _blobs(rng, (height, width), height / 40, height / 40)
    return np.clip(room, 0, 255).astype(np.uint8)


def express(face: Face, mouth: float, blink: float, gaze: Array) -> Array:
    """Draw eyes and mouth, then light the face, (S, S, 3) uint8."""
    actor, image = face.actor, face.paint.copy()
    eyes = np.full_like(image, (226, 220, 214))
    opening = np.zeros(image.shape[:2], np.uint8)
    size = actor.eye_size * 0.46
    for side in (-1, 1):
        x, y = side * actor.eye_gap, -0.10
        iris = (x + 0.03 * gaze[0], y - 0.008 + 0.012 * gaze[1])
        fill_ellipse(
            image, x, y - 0.005, actor.eye_size * 1.12, size * 1.22, _shade(actor.skin, 0.62)
        )
        fill_ellipse(
            image, x, y + 0.012, actor.eye_size * 1.08, size * 1.10, _shade(actor.skin, 0.86)
        )
        fill_ellipse(eyes, *iris, size * 1.05, size * 1.05, _shade(actor.eyes, 0.55))
        fill_ellipse(eyes, *iris, size * 0.88, size * 0.88, actor.eyes)
        fill_ellipse(eyes, *iris, size * 0.42, size * 0.42, (14, 12, 12))
        fill_ellipse(eyes, iris[0] + 0.018, iris[1] - 0.02, 0.012, 0.012, WHITE)
        fill_ellipse(opening, x, y + 0.6 * size * blink, actor.eye_size, size * (1 - blink), WHITE)
    cv2.copyTo(eyes, opening, image)

    y, gap = 0.56, 0.11 * mouth
    fill_ellipse(image, 0, y - 0.012, actor.mouth, 0.052 + 0.3 * gap, _shade(actor.lips, 0.92))
    fill_ellipse(image, 0, y + 0.022 + gap, actor.mouth * 0.86, 0.062 + 0.3 * gap, actor.lips)
    fill_ellipse(image, 0, y + gap / 2, actor.mouth * 0.9, 0.009 + gap * 0.7, (52, 22, 22))
    fill_ellipse(image, 0, y - 0.004, actor.mouth * 0.6, gap * 0.35, (222, 216, 206))
    return cv2.multiply(image, face.gain, dtype=cv2.CV_8U)
