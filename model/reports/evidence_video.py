"""The evidence video: frames, flow and heat of a video's clips side by side, as H.264."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from features.embedding import scaled_maps
from model.explanation.explain import Explanation
from pipeline.video.encode import write_h264

PANE_SIDE = 224  # pixels, the longer side of a pane
MIN_PANE_SIDE = 96  # pixels; smaller panes show nothing
PANE_GAP = 4  # pixels between panes
TEXT_HEIGHT = 20  # pixels of text above and below the panes
CRF = 20  # of x264; larger means fewer bytes
MAX_CRF = 40
KEYFRAME_INTERVAL = 8  # frames, so that a player seeks quickly
FLOW_QUANTILE = 0.995  # of a map's pixels; faster ones all have the brightest colour
HEAT_QUANTILE = 0.99  # of a stream's cells; hotter ones all have the strongest colour
MAX_HEAT_OPACITY = 0.8
FAKE_COLOUR, REAL_COLOUR = (230, 97, 1), (33, 113, 220)  # RGB, safe for the colour-blind
TITLES = {
    "frames": "frames",
    "flow": "flow",
    "heat-frames": "heat: frames",
    "heat-flow": "heat: flow",
}

Picture = npt.NDArray[np.uint8]  # (H, W, 3), RGB
Rectangle = tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True)
class ClipEvidence:
    """One clip and the explanation of its score. It has M = T-1 moments, one per flow map."""

    arrays: Mapping[str, npt.NDArray[Any]]  # as in a shard, frames included
    motion: npt.NDArray[np.float32]  # (M, K) motion descriptors
    explanation: Explanation

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """Time of each moment's later frame, (M,) seconds into the video."""
        return self.arrays["timestamps"][1:]


@dataclass(frozen=True)
class ColourScales:
    """Values at the end of each colour scale, the same for all moments of a video."""

    flow: float  # px/frame
    heat: Mapping[str, float]  # stream → log-odds


@dataclass(frozen=True)
class Canvas:
    """Size of the video's frames in pixels, and the panes on them."""

    width: int
    height: int
    panes: Mapping[str, Rectangle]


@dataclass(frozen=True)
class EvidenceVideo:
    """Encoded evidence video; frame n shows moment n, counted over all clips."""

    content: bytes  # of the MP4 file
    fps: float
    canvas: Canvas


def colour_scales(clips: Sequence[ClipEvidence]) -> ColourScales:
    """Return the colour scales of a video."""
    fastest = []
    for clip in clips:
        low, high = clip.arrays["flow_range"].T
        quantiles = np.quantile(clip.arrays["flow"], FLOW_QUANTILE, axis=(1, 2)) / 255
        fastest.append(low + quantiles * (high - low))
    heat = {
        stream: float(
            np.quantile(np.abs([clip.explanation.heat[stream] for clip in clips]), HEAT_QUANTILE)
        )
        for stream in clips[0].explanation.heat
    }
    return ColourScales(max(float(np.quantile(np.concatenate(fastest), 0.95)), 0.1), heat)


def draw_panes(clip: ClipEvidence, moment: int, scales: ColourScales) -> dict[str, Picture]:
    """Draw a moment: ``frames`` (its later one), ``flow`` to it and ``heat-STREAM`` of streams."""
    frame = clip.arrays["frames"][moment + 1]
    row = slice(moment, moment + 1)
    flow = scaled_maps(clip.arrays["flow"][row], clip.arrays["flow_range"][row], scales.flow)[0]
    panes = {"frames": frame, "flow": flow_colours(flow)}
    for stream, heat in clip.explanation.heat.items():
        panes[f"heat-{stream}"] = _draw_heat(frame, heat[moment], scales.heat[stream])
    return panes


def draw_mean_heat(clip: ClipEvidence) -> dict[str, Picture]:
    """Draw the heat of each stream as a mean over the clip, on the frame in its middle."""
    frame = clip.arrays["frames"][len(clip.arrays["frames"]) // 2]
    means = {stream: heat.mean(0) for stream, heat in clip.explanation.heat.items()}
    return {
        stream: _draw_heat(frame, mean, float(np.abs(mean).max())) for stream, mean in means.items()
    }


def flow_colours(grey: npt.NDArray[np.uint8]) -> Picture:
    """Colour a flow map, (H, W) uint8."""
    colours: Any = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(colours[..., ::-1])


def _draw_heat(frame: Picture, heat: npt.NDArray[np.float32], limit: float) -> Picture:
    """Blend heat, (h, w) log-odds, over the frame in grey."""
    height, width = frame.shape[:2]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    smooth = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    strength = np.clip(smooth / (limit or 1.0), -1, 1)[..., None]
    colour = np.where(strength > 0, *np.array([FAKE_COLOUR, REAL_COLOUR], np.float32))
    alpha = MAX_HEAT_OPACITY * np.abs(strength)
    return np.rint(grey * (1 - alpha) + colour * alpha).astype(np.uint8)


def write_evidence_video(
    clips: Sequence[ClipEvidence], scales: ColourScales, path: Path, *, max_bytes: float
) -> EvidenceVideo:
    """Write all clips of a video, with quality, then size, lowered until the file fits."""
    gaps = np.concatenate([np.diff(clip.arrays["timestamps"]) for clip in clips])
    fps = Fraction(1 / float(np.median(gaps))).limit_denominator(1001)
    side, crf = PANE_SIDE, CRF
    while True:
        canvas = _arrange(clips[0], side)
        write_h264(
            path,
            enumerate(_draw_frames(clips, scales, canvas)),
            fps,
            preset="fast",
            crf=crf,
            x264=[f"keyint={KEYFRAME_INTERVAL}", "bframes=0", "colormatrix=smpte170m", "range=tv"],
            faststart=True,
        )
        excess = path.stat().st_size / max_bytes
        if excess <= 1 or (side <= MIN_PANE_SIDE and crf >= MAX_CRF):
            return EvidenceVideo(path.read_bytes(), float(fps), canvas)
        if crf < MAX_CRF:  # six steps halve the bytes
            crf = min(MAX_CRF, crf + 1 + math.ceil(6 * math.log2(excess)))
        else:
            side = max(MIN_PANE_SIDE, side * 2 // 3)


def _arrange(clip: ClipEvidence, side: int) -> Canvas:
    height, width = clip.arrays["frames"].shape[1:3]
    scale = side / max(height, width)
    w, h = (max(2, 2 * round(length * scale / 2)) for length in (width, height))
    names = ["frames", "flow", *(f"heat-{stream}" for stream in clip.explanation.heat)]
    panes = {name: (n * (w + PANE_GAP), TEXT_HEIGHT, w, h) for n, name in enumerate(names)}
    return Canvas(len(names) * (w + PANE_GAP) - PANE_GAP, h + 2 * TEXT_HEIGHT, panes)


def _draw_frames(
    clips: Sequence[ClipEvidence], scales: ColourScales, canvas: Canvas
) -> Iterator[Picture]:
    for clip in clips:
        for moment, time in enumerate(clip.times):
            frame = np.zeros((canvas.height, canvas.width, 3), np.uint8)
            for name, picture in draw_panes(clip, moment, scales).items():
                x, y, w, h = canvas.panes[name]
                frame[y : y + h, x : x + w] = resize(picture, w, h)
                _write_text(frame, TITLES[name], x, TEXT_HEIGHT)
            text = f"{time:.2f} s  fake {clip.explanation.moments[moment]:.2f}"
            text += f"  motion {clip.explanation.anomaly[moment]:.1f}"
            _write_text(frame, text, 0, canvas.height)
            yield frame


def resize(picture: Picture, width: int, height: int) -> Picture:
    """Return a picture at another size, averaged where it shrinks."""
    smaller = width < picture.shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation), np.uint8)


def _write_text(picture: Picture, text: str, x: int, bottom: int) -> None:
    at = (x + 4, bottom - 6)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
