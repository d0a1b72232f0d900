"""Renderer of stylised talking heads, with their own or a swapped face.

A head moves irregularly, blinks and talks in front of a background. A fake blends in the face of
another actor; as in real face swaps, its pose is smoothed over time and its texture is warped a
little differently in every frame.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from data.looks import (
    CIRCLE,
    REACH,
    Actor,
    Array,
    Face,
    Layer,
    express,
    fill_ellipse,
    grid_of,
    over,
    paint_body,
    paint_face,
    paint_hair,
    paint_room,
    pixels_of,
)

SIZE = (400, 300)
HEAD = 0.29  # half the head's height, as a fraction of the frame's
SWAPPED_ELLIPSE = (0.0, 0.15, 0.66, 0.72)  # centre x, y and half-axes, in head coordinates
FEATHER = 0.20  # width of the ellipse's blended border
SMOOTHING = (0.08, 0.20)  # seconds over which a swap averages the pose: smallest, largest
JITTER = (0.009, 0.016)  # standard deviation of a swap's warp: smallest, largest
BODY_FOLLOWS = (0.4, 0.3, 0, 0, 0, 0)  # share of the head's pose that the body takes on
BODY_SCALE = (0, 0, 0, np.log(2), 0, 0)


@dataclass(frozen=True)
class Performance:
    """Motion of a face over T frames."""

    pose: Array  # (T, 6): x, y (half head heights), roll (rad), log scale, yaw, pitch (rad)
    mouth: Array  # (T,) 0 closed .. 1 open
    blink: Array  # (T,) 0 open .. 1 closed
    gaze: Array  # (T, 2) -1..1


def drift(
    rng: np.random.Generator, n_frames: int, fps: float, low: float, high: float
) -> npt.NDArray[np.float64]:
    """Return noise between `low` and `high` hertz, (n_frames,), of variance about 1."""
    length = n_frames + int(20 * fps)  # several periods of `low`
    hertz = np.fft.rfftfreq(length, 1 / fps)
    spectrum = rng.standard_normal(hertz.size) + 1j * rng.standard_normal(hertz.size)
    signal = np.fft.irfft(np.where((hertz >= low) & (hertz <= high), spectrum, 0), length)
    return signal[:n_frames] / signal.std()


def perform(rng: np.random.Generator, n_frames: int, fps: float) -> Performance:
    """Return irregular head motion, speech in bouts and a blink every few seconds."""
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
    """Average a performance over `smoothing` seconds, as a face swap reproduces it."""
    seconds = np.arange(len(performance.pose)) / fps
    weights = np.exp(-0.5 * ((seconds[:, None] - seconds) / smoothing) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)  # (T, T)
    return Performance(
        pose=weights @ performance.pose,
        mouth=weights @ performance.mouth,
        blink=performance.blink,
        gaze=performance.gaze,
    )


def animate(face: Face, shown: Performance, acted: Performance, t: int, warp: Array) -> Layer:
    """Draw frame t of a face, which moves as `acted`, on the canvas of a head moving as `shown`.

    `warp`, (2, S, S) or broadcastable, is an additional displacement in head coordinates.
    """
    canvas = len(face.alpha)
    x, y = grid = grid_of(canvas)
    slip_x, slip_y, spin, growth = (acted.pose - shown.pose)[t, :4].tolist()  # to first order
    yaw, pitch = acted.pose[t, 4:].tolist()
    mouth, blink = float(acted.mouth[t]), float(acted.blink[t])
    across = face.depth * yaw + growth * x - spin * y + slip_x
    down = face.depth * pitch + growth * y + spin * x + slip_y + face.jaw * mouth
    to_x, to_y = pixels_of(grid - np.stack([across, down]) - warp, canvas)
    paint = cv2.remap(
        express(face, mouth, blink, acted.gaze[t]), to_x, to_y, cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return Layer(paint, cv2.remap(face.alpha, to_x, to_y, cv2.INTER_LINEAR))


def _to_frame(pose: Array, canvas: int, size: tuple[int, int]) -> Array:
    """Return the homography from canvas to frame, (3, 3), of a plane that turns in space."""
    x, y, roll, log_scale, yaw, pitch = pose
    unit, step = HEAD * size[1], 2 * REACH / canvas
    turn, _ = cv2.Rodrigues(np.array([-pitch, yaw, 0.0]))
    distance = 7  # of the camera
    plane = np.array([[*turn[0, :2], 0], [*turn[1, :2], 0], [*turn[2, :2] / distance, 1]])
    c, s = np.array([np.cos(roll), np.sin(roll)]) * unit * np.exp(log_scale)
    camera = np.array(
        [[c, -s, size[0] / 2 + x * unit], [s, c, 0.45 * size[1] + y * unit], [0, 0, 1]]
    )
    head = np.array([[step, 0, step / 2 - REACH], [0, step, step / 2 - REACH], [0, 0, 1]])
    return camera @ plane @ head


def _place(layer: Layer, to_frame: Array, size: tuple[int, int]) -> Layer:
    paint = cv2.warpPerspective(layer.paint, to_frame, size, borderMode=cv2.BORDER_REPLICATE)
    return Layer(paint, cv2.warpPerspective(layer.alpha, to_frame, size))


def _box(to_frame: Array, canvas: int, size: tuple[int, int]) -> Array:
    """Return the box around the swapped region, (4,): x, y, width and height in pixels."""
    x, y, a, b = SWAPPED_ELLIPSE
    rim = pixels_of(CIRCLE * (a + FEATHER / 2, b + FEATHER / 2) + (x, y), canvas)
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
    """Render a real video of an actor, or a fake with the source's face.

    With the same seed, a real video and its fake differ inside the boxes only.

    Returns:
        Frames, (T, H, W, 3) uint8 RGB, and the box around the face that a fake replaces in each
        frame, (T, 4) int64: x, y, width and height in pixels.
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
        fill_ellipse(region, *SWAPPED_ELLIPSE, (1, 1, 1))
        kernel = 1 + 2 * round(FEATHER * canvas / (4 * REACH))
        cv2.GaussianBlur(region, (kernel, kernel), 0, dst=region)

    frames = np.empty((n_frames, height, width, 3), np.uint8)
    boxes = np.empty((n_frames, 4), np.int64)
    for t in range(n_frames):
        head = animate(face, shown, shown, t, np.zeros((2, 1, 1), np.float32))
        if source is not None:
            warp = cv2.resize(jitter[t], (canvas, canvas), interpolation=cv2.INTER_CUBIC)
            swap = animate(swapped, shown, acted, t, warp.transpose(2, 0, 1))
            head = Layer(over(Layer(swap.paint, region), head.paint), head.alpha)
        paint = over(hair_front, over(head, hair_back.paint))
        alpha = np.maximum(np.maximum(hair_front.alpha, hair_back.alpha), head.alpha)

        to_frame = _to_frame(shown.pose[t], canvas, size)
        follow = _to_frame(shown.pose[t] * BODY_FOLLOWS + BODY_SCALE, canvas, size)
        frame = over(_place(body, follow, size), room)
        frame = over(_place(Layer(paint, alpha), to_frame, size), frame)
        noise = cv2.merge([rng.standard_normal((height, width), np.float32)] * 3)
        frames[t] = cv2.addWeighted(frame, brightness[t], noise, grain, 0, dtype=cv2.CV_8U)
        boxes[t] = _box(to_frame, canvas, size)
    return frames, boxes
