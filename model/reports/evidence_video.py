"""A video of evidence: frames, flow and heat of a verdict beside each other, moment by moment."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from features.embedding import scaled_maps
from model.explanation.explanation import Explanation
from pipeline.video.encode import x264_params

SIDE = 224  # pixels, the longer side of a pane
SMALLEST = 96  # below that nothing can be seen
GAP = 4  # pixels between panes
STRIP = 20  # pixels of text above and below them
QUALITY = 20  # of x264, smaller is better
WORST = 40
KEYFRAMES = 8  # every so many frames, so that a player can jump quickly
BRIGHTEST = 0.995  # of all motion is shown as slower than what is brightest
HOTTEST = 0.99  # of all cells are shown as paler than the hottest
OPAQUE = 0.8  # heat is at most
FAKE, REAL = (230, 97, 1), (33, 113, 220)  # RGB, which the colour-blind tell apart
TITLES = {
    "frames": "frames",
    "flow": "flow",
    "heat-frames": "heat: frames",
    "heat-flow": "heat: flow",
}

Picture = npt.NDArray[np.uint8]  # (h, w, 3), RGB
Rectangle = tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True)
class Evidence:
    """One clip, and why a run says what it says of it.

    Attributes:
        arrays: of the clip, as a shard has them, with frames.
        motion: (T-1, K) float32, its descriptors of motion.
        explanation: of it.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    motion: npt.NDArray[np.float32]
    explanation: Explanation

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """(M,) seconds into the video: of the later frame of each moment."""
        return self.arrays["timestamps"][1:]


@dataclass(frozen=True)
class Scales:
    """What the colours of a whole video stand for.

    Attributes:
        flow: px/frame, what the brightest colour is.
        heat: stream → the log-odds that the strongest colour is.
    """

    flow: float
    heat: Mapping[str, float]


@dataclass(frozen=True)
class Layout:
    """Where the panes of a mosaic are."""

    width: int
    height: int
    panes: Mapping[str, Rectangle]


@dataclass(frozen=True)
class Overlay:
    """An encoded mosaic.

    Attributes:
        content: of an MP4 file.
        fps: frames per second; frame n is moment n of all clips.
        layout: of each frame.
    """

    content: bytes
    fps: float
    layout: Layout


def scales_of(clips: Sequence[Evidence]) -> Scales:
    """One scale for all moments of a video, so that the same colour means the same."""
    fastest = []
    for clip in clips:
        low, high = clip.arrays["flow_range"].T
        quantiles = np.quantile(clip.arrays["flow"], BRIGHTEST, axis=(1, 2)) / 255
        fastest.append(low + quantiles * (high - low))
    heat = {
        stream: float(
            np.quantile(np.abs([clip.explanation.heat[stream] for clip in clips]), HOTTEST)
        )
        for stream in clips[0].explanation.heat
    }
    return Scales(max(float(np.quantile(np.concatenate(fastest), 0.95)), 0.1), heat)


def panes(clip: Evidence, moment: int, scales: Scales) -> dict[str, Picture]:
    """The pictures of one moment: the later frame, the flow to it, and the heat of each stream.

    Returns:
        ``frames``, ``flow``, ``heat-STREAM`` → (H, W, 3) uint8.
    """
    frame = clip.arrays["frames"][moment + 1]
    row = slice(moment, moment + 1)
    flow = scaled_maps(clip.arrays["flow"][row], clip.arrays["flow_range"][row], scales.flow)[0]
    shown = {"frames": frame, "flow": flow_colours(flow)}
    for stream, heat in clip.explanation.heat.items():
        shown[f"heat-{stream}"] = _heated(frame, heat[moment], scales.heat[stream])
    return shown


def flow_colours(grey: npt.NDArray[np.uint8]) -> Picture:
    """Greys (H, W) in the colours that flow is shown in."""
    colours: Any = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(colours[..., ::-1])


def _heated(frame: Picture, heat: npt.NDArray[np.float32], limit: float) -> Picture:
    """Heat (h, w) over a frame that is left without its colours."""
    height, width = frame.shape[:2]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    smooth = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    strength = np.clip(smooth / (limit or 1.0), -1, 1)[..., None]
    colour = np.where(strength > 0, np.array(FAKE, np.float32), np.array(REAL, np.float32))
    alpha = OPAQUE * np.abs(strength)
    return np.rint(grey * (1 - alpha) + colour * alpha).astype(np.uint8)


def encode(clips: Sequence[Evidence], scales: Scales, path: Path, *, most_bytes: float) -> Overlay:
    """Encode all clips one after the other as H.264, which most players and browsers know.

    Quality and then size are lowered until it fits. The same clips give the same bytes, with the
    same libraries.

    Args:
        clips: of one video.
        scales: of their colours.
        path: of the MP4 file.
        most_bytes: that it may have.
    """
    gaps = np.concatenate([np.diff(clip.arrays["timestamps"]) for clip in clips])
    fps = Fraction(1 / float(np.median(gaps))).limit_denominator(1001)
    side, quality = SIDE, QUALITY
    while True:
        layout = _layout(clips[0], side)
        _write(path, _mosaics(clips, scales, layout), layout, fps, quality)
        excess = path.stat().st_size / most_bytes
        if excess <= 1 or (side <= SMALLEST and quality >= WORST):
            return Overlay(path.read_bytes(), float(fps), layout)
        if quality < WORST:  # six more halve the bytes
            quality = min(WORST, quality + 1 + math.ceil(6 * math.log2(excess)))
        else:
            side = max(SMALLEST, side * 2 // 3)


def _layout(clip: Evidence, side: int) -> Layout:
    height, width = clip.arrays["frames"].shape[1:3]
    scale = side / max(height, width)
    w, h = (max(2, 2 * round(length * scale / 2)) for length in (width, height))
    names = ["frames", "flow", *(f"heat-{stream}" for stream in clip.explanation.heat)]
    rectangles = {name: (n * (w + GAP), STRIP, w, h) for n, name in enumerate(names)}
    return Layout(len(names) * (w + GAP) - GAP, h + 2 * STRIP, rectangles)


def _mosaics(clips: Sequence[Evidence], scales: Scales, layout: Layout) -> Iterator[Picture]:
    for clip in clips:
        for moment, time in enumerate(clip.times):
            mosaic = np.zeros((layout.height, layout.width, 3), np.uint8)
            for name, picture in panes(clip, moment, scales).items():
                x, y, w, h = layout.panes[name]
                mosaic[y : y + h, x : x + w] = resized(picture, w, h)
                _write_text(mosaic, TITLES[name], x, STRIP)
            said = f"{time:.2f} s  fake {clip.explanation.moments[moment]:.2f}"
            if clip.explanation.anomaly is not None:
                said += f"  motion {clip.explanation.anomaly[moment]:.1f}"
            _write_text(mosaic, said, 0, layout.height)
            yield mosaic


def resized(picture: Picture, width: int, height: int) -> Picture:
    """A picture at another size."""
    smaller = width < picture.shape[1]
    kind = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=kind), np.uint8)


def _write_text(mosaic: Picture, text: str, x: int, bottom: int) -> None:
    at = (x + 4, bottom - 6)
    cv2.putText(mosaic, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)


def _write(
    path: Path, pictures: Iterator[Picture], layout: Layout, fps: Fraction, quality: int
) -> None:
    options = {
        "crf": str(quality),
        "preset": "fast",
        "threads": "1",
        **x264_params(f"keyint={KEYFRAMES}", "bframes=0", "colormatrix=smpte170m", "range=tv"),
    }
    with av.open(
        str(path), "w", format="mp4", options={"movflags": "faststart", "fflags": "bitexact"}
    ) as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = layout.width, layout.height, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
