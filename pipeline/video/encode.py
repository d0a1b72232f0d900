"""H.264 files with the same bytes on every machine."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]  # (H, W, 3), RGB

AVX_512 = 13  # OpenCV's number for it


def write_h264(
    path: Path,
    frames: Iterable[tuple[int, Frame]],
    fps: float | Fraction,
    *,
    time_base: Fraction | None = None,
    preset: str = "veryfast",
    crf: int | None = None,
    x264: Iterable[str] = (),
    pixel_aspect: Fraction | None = None,
    faststart: bool = False,
) -> None:
    """Write frames as an MP4 file of H.264, 4:2:0; the same frames give the same bytes.

    Args:
        frames: rising times in units of ``time_base`` (by default one frame), and frames of one
            size; a side of odd length gets one more line, as chroma has half the size.
        fps: nominal.
        crf: 0 best to 51 worst; by default x264's own, 23.
        x264: further parameters: ``["keyint=24", "bframes=0"]``.
        pixel_aspect: width of a pixel over its height.
        faststart: put the index first, for browsers.

    Raises:
        ValueError: there are no frames.
    """
    params = list(x264)
    if cv2.checkHardwareSupport(AVX_512):
        # With it, PyAV 18's x264 now and then gives other bytes for the same frames.
        params.insert(0, "asm=avx2")
    options = {"preset": preset, "x264-params": ":".join(params)}
    if crf is not None:
        options["crf"] = str(crf)
    rate = Fraction(fps).limit_denominator(1001)  # as 30000/1001
    time_base = time_base or 1 / rate
    flags = {"fflags": "+bitexact"} | ({"movflags": "faststart"} if faststart else {})
    with av.open(str(path), "w", format="mp4", options=flags) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        for time, array in frames:
            height, width = array.shape[:2]
            right, below = width % 2, height % 2
            if right or below:
                array = np.pad(array, ((0, below), (0, right), (0, 0)), "edge")
            if not stream.codec_context.is_open:
                stream.width, stream.height = width + right, height + below
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = time_base
                stream.codec_context.thread_count = 1  # the bytes depend on the number of threads
                if pixel_aspect is not None:
                    stream.codec_context.sample_aspect_ratio = pixel_aspect
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        if not stream.codec_context.is_open:
            raise ValueError(f"{path}: no frames to write")
        container.mux(stream.encode())
