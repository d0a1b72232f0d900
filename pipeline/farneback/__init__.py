"""Dense optical flow after Farnebäck (2003): one front, one backend per way to compute it.

Example:
    >>> import numpy as np
    >>> from pipeline import farneback
    >>> frames = np.zeros((5, 64, 64), np.uint8)
    >>> farneback.flow(frames).shape
    (4, 64, 64, 2)
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.common.errors import SettingsError
from pipeline.farneback import cpu, cuda, opencv, opencv_cuda
from pipeline.farneback.parameters import SMALLEST, Parameters

__all__ = [
    "BACKENDS",
    "Backend",
    "Parameters",
    "Stream",
    "flow",
    "magnitude_maps",
    "resolve",
    "scaled",
]

Backend = Literal["cpu", "cuda", "opencv", "opencv-cuda"]
BACKENDS: tuple[str, ...] = ("auto", "cpu", "cuda", "opencv", "opencv-cuda")
# The same function up to rounding: `opencv-cuda` computes something else.
EQUIVALENT = ("cpu", "cuda", "opencv")

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
DEFAULT = Parameters()
_log = logging.getLogger(__name__)


def resolve(name: str) -> Backend:
    """The backend that a name stands for on this machine, ready for use.

    Its kernels are compiled when this returns, so that processes started later find them.

    Args:
        name: a backend, or ``auto``: ``cuda`` where PyTorch sees a CUDA device, else ``cpu``.
            Instead of ``cpu`` it is ``opencv`` where kernels cannot be compiled, with a warning.

    Raises:
        SettingsError: no such backend, or not on this machine.
    """
    if name not in BACKENDS:
        raise SettingsError(f"no flow backend {name!r}", f"there are: {', '.join(BACKENDS)}")
    if name == "opencv-cuda" and not opencv_cuda.available():
        raise SettingsError(
            "this OpenCV has no CUDA device for the flow backend opencv-cuda",
            "use auto, or an OpenCV that was built with CUDA",
        )
    if name == "cuda" and (reason := cuda.why_not()):
        raise SettingsError(f"the flow backend cuda cannot work here: {reason}", "use auto or cpu")
    if name == "auto" and not cuda.why_not():
        return "cuda"
    if name in ("auto", "cpu"):
        if not (reason := cpu.why_not()):
            return "cpu"
        _log.warning("flow is computed by OpenCV, which is slower: %s", reason)
        return "opencv"
    return name  # type: ignore[return-value]


def equivalent_backend(name: Backend) -> Backend:
    """A backend of this machine that computes what another one computed on another machine.

    Raises:
        SettingsError: only that one does.
    """
    try:
        return resolve(name)
    except SettingsError:
        if name not in EQUIVALENT:
            raise
        found = resolve("auto")
        _log.warning("flow is computed by %s instead of %s, which is not here", found, name)
        return found


class Stream:
    """Flow for a sequence that comes in frame by frame, in bounded memory.

    Args:
        height, width: of the frames.
        backend: see `resolve`.
        parameters: OpenCV's. What a backend does not cover goes to OpenCV, with a warning.

    Attributes:
        backend: what really computes.

    Example:
        >>> stream = Stream(48, 64, backend="opencv")
        >>> [stream.flow(np.zeros((48, 64), np.uint8)) is None for _ in range(3)]
        [True, False, False]
    """

    def __init__(
        self, height: int, width: int, *, backend: str = "auto", parameters: Parameters = DEFAULT
    ) -> None:
        self.backend: Backend = _covering(resolve(backend), height, width, parameters)
        self._engine: Any = opencv.Engine(parameters)
        if self.backend == "opencv-cuda":
            self._engine = opencv_cuda.Engine(parameters)
        elif self.backend == "cuda":
            from pipeline.farneback.cuda.engine import Engine as CudaEngine

            self._engine = CudaEngine(height, width, parameters)
        elif self.backend == "cpu":
            from pipeline.farneback.cpu.engine import Engine as CpuEngine

            self._engine = CpuEngine(height, width, parameters)

    def flow(self, frame: Frames) -> Floats | None:
        """Take the next frame.

        Args:
            frame: (H, W) uint8, grey.

        Returns:
            (H, W, 2) float32: displacement along x and y, in pixels, from the frame before to this
            one; None for the first frame.
        """
        return self._engine.flow(frame)  # type: ignore[no-any-return]

    def flows(self, frames: Frames) -> Floats:
        """Take the next frames, (n, H, W) uint8; a device computes their flow in one batch.

        Returns:
            (n, H, W, 2) float32 as of `flow`, or one fewer at the beginning.
        """
        if self.backend == "cuda":
            return self._engine.flows(frames)  # type: ignore[no-any-return]
        found = [field for frame in frames if (field := self.flow(frame)) is not None]
        return np.array(found, np.float32).reshape(len(found), *frames.shape[1:], 2)

    def magnitude_map(self, frame: Frames) -> tuple[Frames, tuple[float, float]] | None:
        """Take the next frame; no field of flow is stored.

        Returns:
            the magnitude of the flow to this frame, (H, W) uint8, min-max scaled to the range of
            an image, and the magnitudes in pixels that 0 and 255 stand for; None for the first
            frame. A map without any contrast is 0 throughout.
        """
        magnitude = self._engine.magnitude(frame)
        return None if magnitude is None else scaled(magnitude)

    def magnitude_maps(self, frames: Frames) -> tuple[Frames, Floats]:
        """Take the next frames, (n, H, W) uint8; a device computes their flow in one batch.

        Returns:
            the maps, (n, H, W) uint8 or one fewer at the beginning, and what 0 and 255 stand for
            in each, (n, 2) float32.
        """
        if self.backend == "cuda":
            return self._engine.magnitude_maps(frames)  # type: ignore[no-any-return]
        found = [made for frame in frames if (made := self.magnitude_map(frame)) is not None]
        maps = np.array([picture for picture, _ in found], np.uint8)
        ranges = np.array([range_ for _, range_ in found], np.float32)
        return maps.reshape(len(found), *frames.shape[1:]), ranges.reshape(len(found), 2)


def flow(
    frames: Frames,
    *,
    backend: str = "auto",
    parameters: Parameters = DEFAULT,
    initial: Floats | None = None,
    threads: int = 1,
) -> Floats:
    """Optical flow between each frame and the next.

    Args:
        frames: (T, H, W) uint8, grey.
        backend: see `resolve`.
        parameters: OpenCV's.
        initial: (T-1, H, W, 2) float32, a flow to begin with, as OpenCV takes it; by OpenCV alone.
        threads: that share the sequence on a CPU; the result does not depend on them.

    Returns:
        (T-1, H, W, 2) float32: displacement along x and y in pixels per frame.

    Raises:
        ValueError: the frames are something else.
        SettingsError: the backend is not on this machine.

    Example:
        >>> y, x = np.mgrid[:64, :64]
        >>> frame = (128 + 60 * np.sin(x / 4) + 60 * np.sin(y / 5)).astype(np.uint8)
        >>> moved = np.roll(frame, 2, axis=1)  # by two pixels to the right
        >>> np.median(flow(np.stack([frame, moved])), axis=(1, 2)).round().astype(int).tolist()
        [[2, 0]]
    """
    pairs, height, width = _checked(frames)
    if initial is not None:
        if backend not in ("auto", "opencv"):
            _log.warning("an initial flow goes to OpenCV, not to %s", backend)
        engine = opencv.Engine(parameters)
        engine.flow(frames[0])
        found = [engine.flow(f, start) for f, start in zip(frames[1:], initial, strict=True)]
        return np.array(found, np.float32).reshape(pairs, height, width, 2)
    backend = _covering(resolve(backend), height, width, parameters)
    if backend == "cuda":
        from pipeline.farneback.cuda import engine as on_device

        return on_device.flow(frames, parameters)
    out = np.empty((pairs, height, width, 2), np.float32)

    def compute(part: range) -> None:
        stream = Stream(height, width, backend=backend, parameters=parameters)
        stream.flow(frames[part.start])
        for n in part:
            out[n] = stream.flow(frames[n + 1])

    _share_out(compute, pairs, threads)
    return out


def magnitude_maps(
    frames: Frames,
    *,
    backend: str = "auto",
    parameters: Parameters = DEFAULT,
    threads: int = 1,
) -> tuple[Frames, Floats]:
    """Magnitude maps of the flow between each frame and the next; arguments as of `flow`.

    Returns:
        the maps, (T-1, H, W) uint8, each min-max scaled to the range of an image, and the
        magnitudes that 0 and 255 stand for, (T-1, 2) float32 in pixels per frame.
    """
    pairs, height, width = _checked(frames)
    backend = _covering(resolve(backend), height, width, parameters)
    if backend == "cuda":
        from pipeline.farneback.cuda import engine as on_device

        return on_device.magnitude_maps(frames, parameters)
    maps = np.empty((pairs, height, width), np.uint8)
    ranges = np.empty((pairs, 2), np.float32)

    def compute(part: range) -> None:
        stream = Stream(height, width, backend=backend, parameters=parameters)
        stream.magnitude_map(frames[part.start])
        for n in part:
            maps[n], ranges[n] = stream.magnitude_map(frames[n + 1])  # type: ignore[misc]

    _share_out(compute, pairs, threads)
    return maps, ranges


def scaled(magnitude: Floats) -> tuple[Frames, tuple[float, float]]:
    """A magnitude (H, W) float32 as a picture, uint8, and what 0 and 255 stand for."""
    low, high, _, _ = cv2.minMaxLoc(magnitude)
    picture: Any = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)  # type: ignore[call-overload]
    return picture, (low, high)


def _checked(frames: Frames) -> tuple[int, int, int]:
    """How many pairs there are, height and width."""
    if frames.ndim != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are (T, H, W) uint8, got {frames.shape} {frames.dtype}")
    return max(len(frames) - 1, 0), *frames.shape[1:]


def _covering(backend: Backend, height: int, width: int, parameters: Parameters) -> Backend:
    """The backend itself, or OpenCV for what our own do not cover."""
    covered = (
        min(height, width) >= SMALLEST
        and (parameters.pyr_scale, parameters.winsize, parameters.poly_n) == (0.5, 15, 5)
        and parameters.flags == 0
        and parameters.iterations >= 1
        and parameters.levels >= 0
    )
    if backend in ("cpu", "cuda") and not covered:
        _log.warning(
            "flow of %dx%d pixels with %s is computed by OpenCV: %s does not cover it",
            width,
            height,
            parameters,
            backend,
        )
        return "opencv"
    return backend


def _share_out(compute: Any, pairs: int, threads: int) -> None:
    """Call a function on runs of pairs, in so many threads."""
    parts = list(_parts(pairs, threads))
    if len(parts) <= 1:
        for part in parts:
            compute(part)
        return
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(compute, parts))


def _parts(n: int, of: int) -> Iterator[range]:
    ends = np.linspace(0, n, min(of, n) + 1).astype(int).tolist() if n else []
    for start, end in pairwise(ends):
        yield range(start, end)
