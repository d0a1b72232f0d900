"""Perturbed copies of videos: re-encoded, scaled, slower, blurred, noisy, lighter or darker."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np

from pipeline.common.errors import Rejected
from pipeline.settings import Settings
from pipeline.video.decode import (
    at_equal_intervals,
    converting,
    frame_rate,
    open_video,
    timed_frames,
    video_stream,
)
from pipeline.video.encode import Frame, write_h264
from pipeline.video.probe import packet_times
from pipeline.video.resize import Upright

VISUALLY_LOSSLESS_CRF = 10  # of copies that are not about compression
EXTRA_FRAMES = 2  # after the last sampled frame, so that extraction counts it as complete
MAX_CLIP_SHIFT = 0.1  # frames, if extraction measures the frame rate on a part of a video
DEFAULT_TIME_BASE = Fraction(1, 90_000)  # seconds, for streams without their own


@dataclass(frozen=True)
class Perturbation:
    """One change of a video."""

    name: str
    crf: int = VISUALLY_LOSSLESS_CRF  # constant rate factor of H.264, 0 best to 51 worst
    every: int = 1  # keeps one frame in this many, by its time
    filters: str = "null"  # FFmpeg's, on upright frames in planar RGB of {height} pixels


def _blur(share: float) -> str:  # standard deviation over the frame's height
    # Six steps are within 3% of the Gaussian's spread from 2 pixels on; one step is 25% off.
    return f"gblur=sigma={share}*{{height}}:steps=6"


def _noise(level: float) -> str:  # standard deviation in 1/255 of full scale
    # FFmpeg's strength is an integer, sqrt(3) times the standard deviation (to within 5%).
    return f"noise=alls={round(level * math.sqrt(3))}:allf=t:all_seed=0"


def _gamma(exponent: float) -> str:  # of each colour; above 1 is darker
    # lutrgb cuts decimals off: 0.5 more rounds.
    return "lutrgb=" + ":".join(f"{colour}=gammaval({exponent})+0.5" for colour in "rgb")


PERTURBATIONS = (
    Perturbation("CRF 10"),
    Perturbation("CRF 23", crf=23),
    Perturbation("CRF 32", crf=32),
    Perturbation("CRF 40", crf=40),
    Perturbation("CRF 48", crf=48),
    Perturbation("half size", filters="scale=round(iw/2):round(ih/2):flags=area"),
    Perturbation("quarter size", filters="scale=round(iw/4):round(ih/4):flags=area"),
    Perturbation("half frame rate", every=2),
    Perturbation("blur 0.5%", filters=_blur(0.005)),
    Perturbation("blur 1.5%", filters=_blur(0.015)),
    Perturbation("noise 5", filters=_noise(5)),
    Perturbation("noise 15", filters=_noise(15)),
    Perturbation("gamma 0.6", filters=_gamma(0.6)),
    Perturbation("gamma 1.6", filters=_gamma(1.6)),
)


def perturb(
    source: Path, target: Path, perturbation: Perturbation, settings: Settings, n_frames: int
) -> None:
    """Write a perturbed copy of the part of a video that extraction reads, as H.264 in MP4, 4:2:0.

    Frames are upright, pixels keep their aspect ratio, and timestamps start at 0 and keep their
    distances; a side of odd length gets one more line of pixels. There is no sound. The same file
    gives the same bytes. Raise `Rejected` as extraction does; damage after sound frames only ends
    the copy.
    """
    source_rate, seconds = _rate_and_length(source, settings, n_frames, perturbation.every)
    rate = source_rate / perturbation.every
    with open_video(source) as container:
        frames: Iterator[tuple[float, av.VideoFrame]] = timed_frames(container)
        if perturbation.every > 1:
            frames = at_equal_intervals(frames, rate)
        first = next(frames, None)
        if first is None:
            raise Rejected("too short", "0 frames")
        start, frame = first
        with converting():
            upright = Upright(video_stream(container), frame)
            to_rgb = upright.scaler(upright.whole, upright.width, upright.height)
            apply = _filter_graph(perturbation.filters, upright.width, upright.height)
        time_base = frame.time_base or DEFAULT_TIME_BASE

        def perturbed() -> Iterator[tuple[int, Frame]]:
            # as extraction reads a damaged file up to the damage
            with contextlib.suppress(Rejected):
                for time, frame in itertools.chain([first], frames):
                    if time - start > seconds:
                        break
                    with converting():
                        yield round((time - start) / time_base), apply(to_rgb(frame))

        write_h264(
            target,
            perturbed(),
            rate,
            time_base=time_base,
            crf=perturbation.crf,
            pixel_aspect=upright.pixel_aspect,
        )


def _rate_and_length(
    path: Path, settings: Settings, n_frames: int, every: int
) -> tuple[float, float]:
    """Return a video's frame rate, and the seconds of a copy that extraction reads."""
    with open_video(path) as container:
        times = np.sort(np.fromiter(packet_times(container), dtype=np.float64))
    source_rate = frame_rate(times)
    n = settings.clips * n_frames
    rate = settings.rate(source_rate / every)
    seconds = (n + EXTRA_FRAMES) / rate
    if settings.fps is None:  # extraction measures the rate of the copy
        copied = times[: max(3, np.searchsorted(times, times[0] + seconds, "right"))]
        if abs(frame_rate(copied) / source_rate - 1) * n > MAX_CLIP_SHIFT:
            seconds = math.inf
    return source_rate, seconds


def _filter_graph(filters: str, width: int, height: int) -> Callable[[Frame], Frame]:
    """Return a function of RGB frames, (height, width, 3) uint8."""
    graph = av.filter.Graph()
    graph.threads = 1  # processes use the cores
    nodes = [graph.add_buffer(None, width, height, av.VideoFormat("rgb24"), "", Fraction(1))]
    for text in f"format=gbrp,{filters},format=rgb24,buffersink".format(height=height).split(","):
        name, _, arguments = text.partition("=")
        nodes.append(graph.add(name, arguments or None))
    graph.link_nodes(*nodes).configure()

    def apply(array: Frame) -> Frame:
        graph.push(av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24"))
        return graph.pull().to_ndarray()  # type: ignore[union-attr,return-value]

    return apply
