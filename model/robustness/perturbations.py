"""What happens to videos on their way: re-encoding, scaling, dropped frames, blur, noise, light."""

import contextlib
import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

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
from pipeline.video.encode import x264_params
from pipeline.video.probe import packet_times, sampling_rate
from pipeline.video.resize import Size, Upright

Frame = npt.NDArray[np.uint8]  # (H, W, 3), RGB

NEARLY_LOSSLESS = 10  # CRF at which a change is stored, so that it is seen and not the encoder
PRESET = "veryfast"
SPARE = 2  # frames after the last one that is sampled, so that it counts as complete
DRIFT = 0.1  # frames by which clips may move if a rate is measured on a part of a video
FINEST = Fraction(1, 90_000)  # seconds, where a stream does not say what its times count


@dataclass(frozen=True)
class Perturbation:
    """One change of a video; all that is not given stays as it is.

    Attributes:
        name: as it is shown.
        crf: constant rate factor of H.264, 0 best to 51 worst.
        scale: of width and height.
        every: one of so many frames is kept, by time.
        blur: standard deviation of a Gaussian, as a share of the picture's height.
        noise: standard deviation of Gaussian noise, in grey levels of 255.
        gamma: exponent of the brightness; above 1 is darker.
    """

    name: str
    crf: int = NEARLY_LOSSLESS
    scale: float = 1.0
    every: int = 1
    blur: float = 0.0
    noise: float = 0.0
    gamma: float = 1.0


PERTURBATIONS = (
    Perturbation("CRF 10"),
    Perturbation("CRF 23", crf=23),
    Perturbation("CRF 32", crf=32),
    Perturbation("CRF 40", crf=40),
    Perturbation("CRF 48", crf=48),
    Perturbation("half size", scale=1 / 2),
    Perturbation("quarter size", scale=1 / 4),
    Perturbation("half frame rate", every=2),
    Perturbation("blur 0.5%", blur=0.005),
    Perturbation("blur 1.5%", blur=0.015),
    Perturbation("noise 5", noise=5),
    Perturbation("noise 15", noise=15),
    Perturbation("gamma 0.6", gamma=0.6),
    Perturbation("gamma 1.6", gamma=1.6),
)


def perturb(
    source: Path, target: Path, change: Perturbation, settings: Settings, n_frames: int
) -> None:
    """Write a changed copy of a video, no longer than extraction looks at it.

    Pictures are upright in the copy, their pixels keep their shape, times start at 0 and are else
    what they were. There is no sound. The same file gives the same bytes.

    Args:
        source: the video file.
        target: H.264 in MP4, 4:2:0; a side of odd length gets one more line of pixels.
        change: what to do.
        settings: of the extraction that the copy is for.
        n_frames: T, the frames of a clip.

    Raises:
        Rejected: as extraction does. Damage after sound frames only ends the copy.
    """
    own_rate, seconds = _needed(source, settings, n_frames, change.every)
    rate = own_rate / change.every
    with open_video(source) as container:
        frames: Iterator[tuple[float, av.VideoFrame]] = timed_frames(container)
        if change.every > 1:
            frames = at_equal_intervals(frames, rate)
        first = next(frames, None)
        if first is None:
            raise Rejected("too short", "0 frames")
        start, frame = first
        with converting():
            upright = Upright(video_stream(container), frame)
            width, height = (
                max(1, round(side * change.scale)) for side in (upright.width, upright.height)
            )
            scaled = upright.scaler(upright.whole, width, height)
            altered = _alteration(change, scaled(frame))
        ticks = frame.time_base or FINEST
        encoder = _encoder(target, change.crf, rate, (width, height), upright.pixel_aspect, ticks)
        # Extraction takes the sound frames of a damaged file, too.
        with encoder as encode, contextlib.suppress(Rejected):
            for time, frame in itertools.chain([first], frames):
                if time - start > seconds:
                    break
                with converting():
                    picture = scaled(frame)
                encode(altered(picture), round((time - start) / ticks))


def _needed(path: Path, settings: Settings, n_frames: int, every: int) -> tuple[float, float]:
    """A video's own rate, and up to which second extraction will look at one of ``every`` frames.

    Raises:
        Rejected: then it has too few frames per second.
    """
    with open_video(path) as container:
        times = np.sort(np.fromiter(packet_times(container), dtype=np.float64))
    own_rate = frame_rate(times)
    n = settings.clips * n_frames
    rate = sampling_rate(own_rate / every, settings.fps, settings.stride)
    seconds = (n + SPARE) / rate
    if settings.fps is None:  # extraction will measure the rate of what is there
        kept = times[: max(3, np.searchsorted(times, times[0] + seconds, "right"))]
        if abs(frame_rate(kept) / own_rate - 1) * n > DRIFT:
            seconds = math.inf
    return own_rate, seconds


def _alteration(change: Perturbation, first: Frame) -> Callable[[Frame], Frame]:
    """What changes the pixels of one picture after the other; the noise depends on the video."""
    rng = np.random.default_rng(zlib.crc32(first.tobytes()))
    greys = 255 * (np.arange(256) / 255) ** change.gamma
    table = np.rint(greys).astype(np.uint8)

    def altered(picture: Frame) -> Frame:
        result = np.ascontiguousarray(picture)
        if change.blur:
            result = cv2.GaussianBlur(result, (0, 0), change.blur * len(result))  # type: ignore[assignment]
        if change.noise:
            noise = rng.standard_normal(result.shape, np.float32)
            result = np.rint(np.clip(result + change.noise * noise, 0, 255)).astype(np.uint8)
        return table[result] if change.gamma != 1 else result

    return altered


@contextlib.contextmanager
def _encoder(
    path: Path, crf: int, rate: float, size: Size, pixel_aspect: Fraction, ticks: Fraction
) -> Iterator[Callable[[Frame, int], None]]:
    """A file to which pictures (height, width, 3) are written at times that are given in ticks."""
    width, height = size
    right, below = width % 2, height % 2  # chroma is stored at half the size
    options = {"preset": PRESET, "crf": str(crf)} | x264_params()
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(rate).limit_denominator(1001), options=options
        )
        stream.width, stream.height, stream.pix_fmt = width + right, height + below, "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.codec_context.time_base = ticks
        stream.codec_context.thread_count = 1  # processes use the cores

        def encode(picture: Frame, time: int) -> None:
            if right or below:
                picture = cv2.copyMakeBorder(  # type: ignore[assignment]
                    picture, 0, below, 0, right, cv2.BORDER_REPLICATE
                )
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, ticks
            container.mux(stream.encode(frame))

        yield encode
        container.mux(stream.encode())
