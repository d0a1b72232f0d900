"""A demo corpus: stylised talking heads, half of them face swaps, that differ in how they move.

Each video shows an actor's head, moving irregularly, blinking and talking, before a background.
In a fake the face is painted a second time with another actor's features and blended in. As in
real face swaps its pose is smoothed over time and its texture is warped a little differently in
every frame. Frame rate, length, bit rate and scene are drawn without looking at the label, and the
encoder holds the bit rate, so that nothing but the picture tells real from fake.

Names and actors follow DeepFakeDetection: `<actor>__<scene>.mp4` is real,
`<target>_<source>__<scene>__<id>.mp4` shows the target with the source's face.
"""

import json
import string
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import click
import cloup
import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

Array = npt.NDArray[Any]
Colour = tuple[float, float, float]  # RGB, 0..255

SCENES = (
    "answering_door_smiling", "desk_call_quiet", "hallway_chat_laughing", "kitchen_talk_angry",
    "leaving_office_waving", "podium_speech_serious", "reading_letter_aloud", "sofa_story_disgust",
    "standing_window_pensive", "street_greeting_happy", "talking_at_shelf", "waiting_room_still",
)  # fmt: skip
SKIN = ((242, 205, 180), (226, 180, 148), (198, 146, 112), (150, 104, 76), (104, 72, 54))
HAIR = ((32, 26, 24), (70, 46, 30), (120, 80, 46), (186, 150, 96), (120, 118, 116), (126, 58, 30))
EYES = ((84, 56, 34), (58, 92, 60), (72, 110, 150), (50, 36, 28), (110, 100, 70))

PAIRS, SINGLES = 6, 4  # groups of actors that no video links to one another
SIZE = (400, 300)
LENGTHS = (60, 120)  # frames
FPS = (24, 25, 30)
BITS_PER_PIXEL = (0.15, 0.22)  # in one frame of 25 a second

# Head coordinates: the middle of the head is (0, 0), x to the right, y down, 1 half its height.
REACH = 1.6  # the head is painted on a canvas over [-REACH, REACH]²
HEAD = 0.29  # half the head's height, as a fraction of the frame's
FACE = (0.0, 0.15, 0.66, 0.72)  # the ellipse that a swap replaces: centre x, y, half-axes
FEATHER = 0.20  # width of its blended border
SMOOTHING = (0.08, 0.20)  # seconds over which a swap averages the pose
JITTER = (0.009, 0.016)  # standard deviation of its warp jitter
BODY_FOLLOWS = (0.4, 0.3, 0, 0, 0, 0)  # how much of the head's pose
BODY_SCALE = (0, 0, 0, np.log(2), 0, 0)
WHITE = (255.0, 255.0, 255.0)
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 64)) for f in (np.cos, np.sin)], axis=1)  # (64, 2)

REAL, FAKE = "DFD_REAL", "DFD_FAKE"
README = """\
Stylised talking heads made by `python -m data.demo`, free to use for anything.
DFD_REAL/<actor>__<scene>.mp4                   real
DFD_FAKE/<target>_<source>__<scene>__<id>.mp4   the target, with the source's face
new/                                            two videos of actors who are nowhere else
truth.json                                      for each fake, the box of the face in every frame
"""


@dataclass(frozen=True)
class Actor:
    """How an actor looks; lengths are in half head heights."""

    number: int
    skin: Colour
    hair: Colour
    eyes: Colour
    lips: Colour
    shirt: Colour
    hair_length: float  # where the hair ends, y
    hairline: float  # where the forehead ends, y
    width: float
    chin: float  # 0 round .. 1 pointed
    eye_gap: float
    eye_size: float
    brow: float
    nose: float
    mouth: float
    skin_seed: int


@dataclass(frozen=True)
class Performance:
    """What a face does, frame by frame."""

    pose: Array  # (T, 6): x, y (half head heights), roll (rad), log scale, yaw, pitch (rad)
    mouth: Array  # (T,) 0 closed .. 1 open
    blink: Array  # (T,) 0 open .. 1 closed
    gaze: Array  # (T, 2) -1..1


@dataclass(frozen=True)
class Layer:
    """A picture with holes, to be laid over another."""

    paint: Array  # (H, W, 3) uint8, RGB
    alpha: Array  # (H, W) float32, 0..1


@dataclass(frozen=True)
class Face:
    """An actor's face, ready to be animated."""

    actor: Actor
    paint: Array  # (S, S, 3) uint8, without eyes and mouth
    gain: Array  # (S, S, 3) float32, shading and skin texture
    alpha: Array  # (S, S) float32
    depth: Array  # (S, S) float32, how far it stands out: that much moves as the head turns
    jaw: Array  # (S, S) float32, how far it drops as the mouth opens


@dataclass(frozen=True)
class Video:
    """One video of the corpus; `source` is the actor whose face was put in, None if it is real."""

    path: str  # within the corpus
    target: int
    source: int | None
    n_frames: int
    fps: int
    size: tuple[int, int]  # width, height
    bit_rate: int
    seed: tuple[int, ...]


def cast_actor(number: int, seed: int = 0) -> Actor:
    """Return the actor of that number (0 or more); the same seed gives the same one."""
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


def drift(
    rng: np.random.Generator, n_frames: int, fps: float, low: float, high: float
) -> npt.NDArray[np.float64]:
    """Return band-limited noise, (n_frames,), variance about 1, between low and high hertz."""
    length = n_frames + int(20 * fps)  # long enough to hold several periods of `low`
    hertz = np.fft.rfftfreq(length, 1 / fps)
    spectrum = rng.standard_normal(hertz.size) + 1j * rng.standard_normal(hertz.size)
    signal = np.fft.irfft(np.where((hertz >= low) & (hertz <= high), spectrum, 0), length)
    return signal[:n_frames] / signal.std()


def perform(rng: np.random.Generator, n_frames: int, fps: float) -> Performance:
    """Act: irregular head motion, speech in bouts, blinks every few seconds."""
    amplitudes = np.array([0.10, 0.05, 0.05, 0.02, 0.16, 0.09]) * rng.uniform(0.7, 1.3)
    pose = [drift(rng, n_frames, fps, 0.1, 0.8) + 0.2 * drift(rng, n_frames, fps, 0.8, 3)
            for _ in amplitudes]  # fmt: skip
    bouts = np.clip(0.5 + drift(rng, n_frames, fps, 0.1, 0.6), 0, 1)
    seconds = np.arange(n_frames) / fps
    blinks = np.cumsum(rng.uniform(1.2, 4.0, 2 + int(seconds[-1]))) - 1.0
    return Performance(
        pose=np.stack(pose, axis=1) * amplitudes,
        mouth=np.clip(0.6 * bouts * np.abs(drift(rng, n_frames, fps, 1.5, 4)), 0, 1),
        blink=np.exp(-(((seconds[:, None] - blinks) / 0.07) ** 2)).max(axis=1),
        gaze=np.tanh([drift(rng, n_frames, fps, 0.1, 1.0) for _ in range(2)]).T,
    )


def resynthesise(performance: Performance, fps: float, smoothing: float) -> Performance:
    """Return the performance as a face swap reproduces it: averaged over `smoothing` seconds."""
    seconds = np.arange(len(performance.pose)) / fps
    weights = np.exp(-0.5 * ((seconds[:, None] - seconds) / smoothing) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)  # (T, T)
    return Performance(
        pose=weights @ performance.pose,
        mouth=weights @ performance.mouth,
        blink=performance.blink,
        gaze=performance.gaze,
    )


def _blobs(rng: np.random.Generator, shape: tuple[int, int], height: float, width: float) -> Array:
    """Smooth noise, (H, W, 1) float32, with blobs of about height × width pixels."""
    rows, columns = 2 + int(shape[0] / height), 2 + int(shape[1] / width)
    coarse = rng.standard_normal((rows, columns), np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)[..., None]


@cache
def _grid(canvas: int) -> Array:
    """Head coordinates x and y of every pixel of a canvas, (2, S, S) float32."""
    axis = ((np.arange(canvas) + 0.5) / canvas * 2 - 1).astype(np.float32) * REACH
    return np.stack(np.meshgrid(axis, axis))


def _pixels(points: Array, canvas: int) -> Array:
    """Pixel coordinates of points in head coordinates."""
    return (points + REACH) * (canvas / (2 * REACH)) - 0.5


def _spot(canvas: int, x: float, y: float, a: float, b: float) -> Array:
    """A Gaussian spot in head coordinates, (S, S, 1) float32, 1 at its middle."""
    across, down = _grid(canvas)
    return np.exp(-(((across - x) / a) ** 2) - ((down - y) / b) ** 2)[..., None]


def _polygon(image: Array, points: Array, colour: Colour) -> None:
    """Fill a polygon, points (N, 2) in head coordinates, with smooth edges."""
    sixteenths = np.round(_pixels(points, len(image)) * 16).astype(np.int32)
    cv2.fillPoly(image, [sixteenths], colour, cv2.LINE_AA, shift=4)


def _ellipse(image: Array, x: float, y: float, a: float, b: float, colour: Colour) -> None:
    """Fill an ellipse with half-axes a and b, in head coordinates."""
    _polygon(image, CIRCLE * (a, b) + (x, y), colour)


def _shade(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def _layer(paint: Array, coverage: Array) -> Layer:
    """Make a layer of paint, any numbers, and coverage, (H, W) uint8."""
    alpha = cv2.GaussianBlur(coverage, (0, 0), 1.0).astype(np.float32) / 255
    return Layer(np.clip(paint, 0, 255).astype(np.uint8), alpha)


def _over(top: Layer, bottom: Array) -> Array:
    """Lay a layer over an image, (H, W, 3) uint8."""
    return cv2.blendLinear(top.paint, bottom, top.alpha, 1 - top.alpha)


def paint_face(actor: Actor, canvas: int, light: float) -> Face:
    """Paint a head without hair, eyes and mouth, lit from the left (-1) to the right (1)."""
    rng = np.random.default_rng([actor.skin_seed, 0])
    x, y = _grid(canvas)
    taper = 1.02 - (0.14 + 0.22 * actor.chin) * np.clip(CIRCLE[:, 1:], 0, 1) ** 2
    paint = np.full((canvas, canvas, 3), actor.skin, np.float32)
    coverage = np.zeros((canvas, canvas), np.uint8)
    _polygon(coverage, CIRCLE * np.hstack([actor.width * taper, np.ones_like(taper)]), WHITE)
    for side in (-1, 1):
        _ellipse(coverage, side * (actor.width + 0.01), 0.06, 0.10, 0.20, WHITE)  # ears
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
        _ellipse(image, *nostril, _shade(actor.skin, 0.45))
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
    """Paint the hair behind the head and before it."""
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
    _ellipse(coverage, 0, 1.35, 1.12, 0.76, WHITE)
    _ellipse(paint, 0, 0.60, 0.36, 0.20, _shade(actor.shirt, 0.72))
    _polygon(paint, neck, _shade(actor.skin, 0.88))
    cv2.GaussianBlur(paint, (0, 0), 1.0, dst=paint)
    paint *= 1 - 0.45 * _spot(canvas, 0, 0.46, 0.5, 0.16)  # the chin's shadow
    paint *= 1 + 0.25 * light * _grid(canvas)[0][..., None]
    paint *= 1 + 0.05 * _blobs(rng, shape, canvas / 30, canvas / 30)
    paint *= 1 + 0.03 * _blobs(rng, shape, canvas / 12, canvas / 90)
    return _layer(paint, coverage)


def paint_room(rng: np.random.Generator, size: tuple[int, int], light: float) -> Array:
    """Paint a wall with things on it, out of focus, (H, W, 3) uint8."""
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
    """Draw eyes and mouth and light the face, (S, S, 3) uint8."""
    actor, image = face.actor, face.paint.copy()
    eyes = np.full_like(image, (226, 220, 214))
    opening = np.zeros(image.shape[:2], np.uint8)
    size = actor.eye_size * 0.46
    for side in (-1, 1):
        x, y = side * actor.eye_gap, -0.10
        iris = (x + 0.03 * gaze[0], y - 0.008 + 0.012 * gaze[1])
        _ellipse(image, x, y - 0.005, actor.eye_size * 1.12, size * 1.22, _shade(actor.skin, 0.62))
        _ellipse(image, x, y + 0.012, actor.eye_size * 1.08, size * 1.10, _shade(actor.skin, 0.86))
        _ellipse(eyes, *iris, size * 1.05, size * 1.05, _shade(actor.eyes, 0.55))
        _ellipse(eyes, *iris, size * 0.88, size * 0.88, actor.eyes)
        _ellipse(eyes, *iris, size * 0.42, size * 0.42, (14, 12, 12))
        _ellipse(eyes, iris[0] + 0.018, iris[1] - 0.02, 0.012, 0.012, WHITE)
        _ellipse(opening, x, y + 0.6 * size * blink, actor.eye_size, size * (1 - blink), WHITE)
    cv2.copyTo(eyes, opening, image)

    y, gap = 0.56, 0.11 * mouth
    _ellipse(image, 0, y - 0.012, actor.mouth, 0.052 + 0.3 * gap, _shade(actor.lips, 0.92))
    _ellipse(image, 0, y + 0.022 + gap, actor.mouth * 0.86, 0.062 + 0.3 * gap, actor.lips)
    _ellipse(image, 0, y + gap / 2, actor.mouth * 0.9, 0.009 + gap * 0.7, (52, 22, 22))
    _ellipse(image, 0, y - 0.004, actor.mouth * 0.6, gap * 0.35, (222, 216, 206))
    return cv2.multiply(image, face.gain, dtype=cv2.CV_8U)


def animate(face: Face, shown: Performance, acted: Performance, t: int, warp: Array) -> Layer:
    """Draw the face in frame t as it is acted, on the canvas of a head that moves as is shown.

    `warp`, (2, S, S) or anything that broadcasts, moves it further, in head coordinates.
    """
    canvas = len(face.alpha)
    x, y = grid = _grid(canvas)
    slip_x, slip_y, spin, growth = (acted.pose - shown.pose)[t, :4].tolist()  # to first order
    yaw, pitch = acted.pose[t, 4:].tolist()
    mouth, blink = float(acted.mouth[t]), float(acted.blink[t])
    across = face.depth * yaw + growth * x - spin * y + slip_x
    down = face.depth * pitch + growth * y + spin * x + slip_y + face.jaw * mouth
    to_x, to_y = _pixels(grid - np.stack([across, down]) - warp, canvas)
    paint = cv2.remap(
        express(face, mouth, blink, acted.gaze[t]), to_x, to_y, cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return Layer(paint, cv2.remap(face.alpha, to_x, to_y, cv2.INTER_LINEAR))


def _to_frame(pose: Array, canvas: int, size: tuple[int, int]) -> Array:
    """Homography, (3, 3), from canvas to frame: a plane that turns in space before a camera."""
    x, y, roll, log_scale, yaw, pitch = pose
    unit, step = HEAD * size[1], 2 * REACH / canvas
    turn, _ = cv2.Rodrigues(np.array([-pitch, yaw, 0.0]))
    plane = np.array([[*turn[0, :2], 0], [*turn[1, :2], 0], [*turn[2, :2] / 7, 1]])  # 7 units away
    c, s = np.array([np.cos(roll), np.sin(roll)]) * unit * np.exp(log_scale)
    camera = np.array(
        [[c, -s, size[0] / 2 + x * unit], [s, c, 0.45 * size[1] + y * unit], [0, 0, 1]]
    )
    head = np.array([[step, 0, step / 2 - REACH], [0, step, step / 2 - REACH], [0, 0, 1]])
    return camera @ plane @ head


def _place(layer: Layer, to_frame: Array, size: tuple[int, int]) -> Layer:
    """Warp a layer from its canvas into the frame."""
    paint = cv2.warpPerspective(layer.paint, to_frame, size, borderMode=cv2.BORDER_REPLICATE)
    return Layer(paint, cv2.warpPerspective(layer.alpha, to_frame, size))


def _box(to_frame: Array, canvas: int, size: tuple[int, int]) -> Array:
    """The box around the swapped region, in the frame: (4,) x, y, width, height in pixels."""
    x, y, a, b = FACE
    rim = _pixels(CIRCLE * (a + FEATHER / 2, b + FEATHER / 2) + (x, y), canvas)
    rim = cv2.perspectiveTransform(rim[None], to_frame)[0]
    low = np.clip(np.floor(rim.min(axis=0)), 0, size)
    high = np.clip(np.ceil(rim.max(axis=0)) + 1, 0, size)
    return np.concatenate([low, high - low]).astype(np.int64)


def render(
    actor: Actor,
    *,
    source: Actor | None = None,
    n_frames: int = 60,
    fps: float = 25.0,
    size: tuple[int, int] = SIZE,
    seed: int | tuple[int, ...] = 0,
) -> tuple[Array, Array]:
    """Render a video of the actor; with the face of `source` put in it is a fake.

    With one seed, a real video and its fake differ inside the box only.

    Args:
        actor: whose head, body and performance the video shows.
        source: whose face is put in; none for a real video.
        n_frames: length, T.
        fps: frames per second.
        size: width and height in pixels.
        seed: of room, light, performance and noise.

    Returns:
        Frames, (T, H, W, 3) uint8 RGB, and for each frame the box around the face, which is what
        a fake replaces: (T, 4) int64, x, y, width, height in pixels.
    """
    rng, swap_rng = np.random.default_rng(seed).spawn(2)
    width, height = size
    canvas = round(2 * REACH * HEAD * height)
    light = rng.uniform(0.2, 0.8) * rng.choice([-1, 1])
    room = paint_room(rng, size, light)
    body = paint_body(actor, canvas, light)
    hair_back, hair_front = paint_hair(actor, canvas, light)
    face = paint_face(actor, canvas, light)
    shown = perform(rng, n_frames, fps)
    brightness = 1 + 0.02 * drift(rng, n_frames, fps, 0.05, 0.5)
    grain = rng.uniform(2.0, 4.0)

    if source is not None:
        look = replace(source, skin=actor.skin, hair=actor.hair, width=actor.width, chin=actor.chin)
        swapped = paint_face(look, canvas, light)
        acted = resynthesise(shown, fps, swap_rng.uniform(*SMOOTHING))
        jitter = swap_rng.standard_normal((n_frames, 5, 5, 2), np.float32)
        jitter *= swap_rng.uniform(*JITTER)
        region = np.zeros((canvas, canvas), np.float32)
        _ellipse(region, *FACE, (1, 1, 1))
        kernel = 1 + 2 * round(FEATHER * canvas / (4 * REACH))
        cv2.GaussianBlur(region, (kernel, kernel), 0, dst=region)

    frames = np.empty((n_frames, height, width, 3), np.uint8)
    boxes = np.empty((n_frames, 4), np.int64)
    for t in range(n_frames):
        head = animate(face, shown, shown, t, np.zeros((2, 1, 1), np.float32))
        if source is not None:
            warp = cv2.resize(jitter[t], (canvas, canvas), interpolation=cv2.INTER_CUBIC)
            swap = animate(swapped, shown, acted, t, warp.transpose(2, 0, 1))
            head = Layer(_over(Layer(swap.paint, region), head.paint), head.alpha)
        paint = _over(hair_front, _over(head, hair_back.paint))
        alpha = np.maximum(np.maximum(hair_front.alpha, hair_back.alpha), head.alpha)

        to_frame = _to_frame(shown.pose[t], canvas, size)
        follow = _to_frame(shown.pose[t] * BODY_FOLLOWS + BODY_SCALE, canvas, size)
        frame = _over(_place(body, follow, size), room)
        frame = _over(_place(Layer(paint, alpha), to_frame, size), frame)
        noise = cv2.merge([rng.standard_normal((height, width), np.float32)] * 3)
        frames[t] = cv2.addWeighted(frame, brightness[t], noise, grain, 0, dtype=cv2.CV_8U)
        boxes[t] = _box(to_frame, canvas, size)
    return frames, boxes


def write_video(path: Path, frames: Array, fps: int, *, bit_rate: int = 800_000) -> None:
    """Encode frames, (T, H, W, 3) uint8 RGB, as an H.264 file that appears whole or not at all.

    The bit rate, bits per second, is constant: the encoder fills up what a calm picture leaves
    over, so that the size of the file says nothing about what is in it. The same frames give the
    same bytes.
    """
    kilobits = bit_rate // 1000
    options = {
        "preset": "superfast",
        "x264-params": f"threads=1:nal-hrd=cbr:bitrate={kilobits}:vbv-maxrate={kilobits}"
        f":vbv-bufsize={kilobits // 2}",
    }
    part = path.with_name(f".{path.name}.part")
    with av.open(str(part), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    part.replace(path)


def plan_corpus(
    seed: int = 0, size: tuple[int, int] = SIZE, lengths: tuple[int, int] = LENGTHS
) -> list[Video]:
    """Decide on every video of a corpus: 16 real, 16 fake, and one of each for `new`.

    Each group of actors has as many real as fake videos, and no video links two groups. Length,
    frame rate, bit rate and scene are drawn alike for all.

    Args:
        seed: of everything.
        size: width and height in pixels, even numbers.
        lengths: the least and the largest number of frames.

    Raises:
        ValueError: a size that H.264 cannot hold, or no length to choose from.
    """
    if min(size) < 64 or size[0] % 2 or size[1] % 2:
        raise ValueError(f"size must be two even numbers, 64 or more: {size[0]}x{size[1]}")
    if not 1 < lengths[0] <= lengths[1]:
        raise ValueError(f"lengths must be two numbers, 2 or more, in rising order: {lengths}")
    rng = np.random.default_rng([seed, 0])
    actors = iter((rng.permutation(28) + 1).tolist())
    links: list[tuple[str, int, int | None]] = []  # folder, target, source
    for _ in range(PAIRS):
        a, b = next(actors), next(actors)
        links += [(REAL, a, None), (REAL, b, None), (FAKE, a, b), (FAKE, b, a)]
    for _ in range(SINGLES):
        a, b = next(actors), next(actors)
        links += [(REAL, a, None), (FAKE, a, b)]
    links += [("new", next(actors), None), ("new", next(actors), next(actors))]

    videos = []
    for index, (folder, target, source) in enumerate(links):
        scene = rng.choice(SCENES)
        code = "".join(rng.choice(list(string.ascii_uppercase + string.digits), 8))
        if folder == "new":
            name = "unseen_real" if source is None else "unseen_fake"
        elif source is None:
            name = f"{target:02d}__{scene}"
        else:
            name = f"{target:02d}_{source:02d}__{scene}__{code}"
        videos.append(
            Video(
                path=f"{folder}/{name}.mp4",
                target=target,
                source=source,
                n_frames=int(rng.integers(lengths[0], lengths[1] + 1)),
                fps=int(rng.choice(FPS)),
                size=size,
                bit_rate=int(rng.uniform(*BITS_PER_PIXEL) * size[0] * size[1] * 25),
                seed=(seed, 1, index),
            )
        )
    return videos


def _make_video(video: Video, out: Path, seed: int) -> list[list[int]]:
    """Render and write one video; return its boxes."""
    cv2.setNumThreads(1)
    frames, boxes = render(
        cast_actor(video.target, seed),
        source=None if video.source is None else cast_actor(video.source, seed),
        n_frames=video.n_frames,
        fps=video.fps,
        size=video.size,
        seed=video.seed,
    )
    write_video(out / video.path, frames, video.fps, bit_rate=video.bit_rate)
    return boxes.tolist()


def make_demo(
    out: Path,
    *,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    lengths: tuple[int, int] = LENGTHS,
    jobs: int | None = None,
) -> list[Video]:
    """Make the corpus; the same settings give the same bytes.

    Args:
        out: gets `DFD_REAL/`, `DFD_FAKE/`, `new/`, `README.txt` and `truth.json`: for each fake,
            the box around what was manipulated, frame by frame.
        seed: of everything.
        size: width and height in pixels, even numbers.
        lengths: the least and the largest number of frames.
        jobs: processes to use, by default one per core.

    Returns:
        What was made.

    Raises:
        ValueError: wrong settings, or other videos are in `out` already.
    """
    videos = plan_corpus(seed, size, lengths)
    for folder in (REAL, FAKE, "new"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    strangers = {file.relative_to(out).as_posix() for file in out.glob("*/*.mp4")}
    strangers -= {video.path for video in videos}
    if strangers:
        raise ValueError(
            f"{out} holds videos of another corpus ({min(strangers)}): name a new folder"
        )
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    with pool, tqdm(total=len(videos), unit="video", disable=None) as bar:
        boxes = []
        for video_boxes in pool.map(partial(_make_video, out=out, seed=seed), videos):
            boxes.append(video_boxes)
            bar.update()
    truth = {
        video.path: {"size": video.size, "fps": video.fps, "boxes_xywh": video_boxes}
        for video, video_boxes in zip(videos, boxes, strict=True)
        if video.source is not None
    }
    (out / "truth.json").write_text(json.dumps(truth) + "\n")
    (out / "README.txt").write_text(README)
    return videos


def _parse_size(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    try:
        width, height = map(int, value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not like 480x360") from None
    return width, height


@cloup.command(
    epilog="Example: python -m data.demo -o demo --seed 1", context_settings={"show_default": True}
)
@cloup.option_group(
    "What to make",
    cloup.option("-o", "--out", type=click.Path(path_type=Path), default="demo", help="Folder."),
    cloup.option(
        "--seed", type=click.IntRange(min=0), default=0, help="Another seed, another corpus."
    ),
    cloup.option("--size", callback=_parse_size, default="400x300", help="Width x height, pixels."),
)
@cloup.option_group(
    "How to work",
    cloup.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one per core]"),
)
def main(out: Path, seed: int, size: tuple[int, int], jobs: int | None) -> None:
    """Make a small corpus of stylised talking heads, 16 real and 16 with swapped faces."""
    try:
        videos = make_demo(out, seed=seed, size=size, jobs=jobs)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{len(videos)} videos in {out}: {REAL}, {FAKE}, and new/ for two unseen actors")


if __name__ == "__main__":
    main()
