"""Dense optical flow by Farnebäck's method (2003), with several backends."""

import logging
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.common.errors import SettingsError
from pipeline.farneback import cpu, cuda, opencv, opencv_cuda
from pipeline.farneback.parameters import MIN_SIDE, Parameters

__all__ = [
    "BACKENDS",
    "Backend",
    "Parameters",
    "Stream",
    "equivalent_backend",
    "flow",
    "magnitude_maps",
    "resolve",
    "scaled",
]

Backend = Literal["cpu", "cuda", "opencv", "opencv-cuda"]
BACKENDS: tuple[str, ...] = ("auto", *get_args(Backend))
# The same function up to rounding; `opencv-cuda` computes another one.
EQUIVALENT_BACKENDS = ("cpu", "cuda", "opencv")

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
DEFAULT = Parameters()
_log = logging.getLogger(__name__)


def resolve(name: str) -> Backend:
    """Return the backend that a name stands for on this machine, and compile its kernels.

    ``auto`` is ``cuda`` where PyTorch sees a CUDA device, else ``cpu``; ``opencv`` replaces ``cpu``
    where kernels cannot be compiled, with a warning.

    Raises:
        SettingsError: there is no such backend, or it does not work here.
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
    """Return a backend of this machine that computes the same as another machine's."""
    try:
        return resolve(name)
    except SettingsError:
        if name not in EQUIVALENT_BACKENDS:
            raise
        backend = resolve("auto")
        _log.warning("flow is computed by %s instead of %s, which is not here", backend, name)
        return backend


class Stream:
    """Flow of a sequence that comes in pieces, in bounded memory.

    OpenCV computes what a backend does not cover, with a warning; ``backend`` says which computes.

    Example:
        >>> stream = Stream(48, 64, backend="opencv")
        >>> [stream.flow(np.zeros((48, 64), np.uint8)) is None for _ in range(3)]
        [True, False, False]
    """

    def __init__(
        self, height: int, width: int, *, backend: str = "auto", parameters: Parameters = DEFAULT
    ) -> None:
        self.backend: Backend = _covering(resolve(backend), height, width, parameters)
        self._engine: Any
        if self.backend == "cuda":
            from pipeline.farneback.cuda.engine import Engine as CudaEngine

            self._engine = CudaEngine(height, width, parameters)
        elif self.backend == "cpu":
            from pipeline.farneback.cpu.engine import Engine as CpuEngine

            self._engine = CpuEngine(height, width, parameters)
        else:
            module = opencv if self.backend == "opencv" else opencv_cuda
            self._engine = module.Engine(parameters)

    def flow(self, frame: Frames) -> Floats | None:
        """Take the next frame, (H, W) uint8 grey, and return the flow to it; None for the first.

        Returns:
            (H, W, 2) float32: displacement along x and y in pixels.
        """
        fields = self.flows(frame[None])
        return fields[0] if len(fields) else None

    def flows(self, frames: Frames) -> Floats:
        """Do the same for the next frames, (n, H, W): (n, H, W, 2), one fewer at the beginning."""
        if self.backend == "cuda":
            return self._engine.flows(frames)  # type: ignore[no-any-return]
        fields, n = np.empty((*frames.shape, 2), np.float32), 0
        for frame in frames:
            field = self._engine.flow(frame)
            if field is not None:
                fields[n] = field
                n += 1
        return fields[:n]

    def magnitude_maps(self, frames: Frames) -> tuple[Frames, Floats]:
        """Take the next frames, (n, H, W) uint8, and return magnitude maps of the flow to each.

        Returns:
            Maps, (n, H, W) uint8, each min-max scaled to 0..255 (without contrast, to 0), and the
            magnitudes at 0 and 255, (n, 2) float32 in pixels; one fewer at the beginning.
        """
        if self.backend == "cuda":
            return self._engine.magnitude_maps(frames)  # type: ignore[no-any-return]
        maps, n = np.empty(frames.shape, np.uint8), 0
        ranges = np.empty((len(frames), 2), np.float32)
        for frame in frames:
            magnitude = self._engine.magnitude(frame)
            if magnitude is not None:
                maps[n], ranges[n] = scaled(magnitude)
                n += 1
        return maps[:n], ranges[:n]


def flow(
    frames: Frames,
    *,
    backend: str = "auto",
    parameters: Parameters = DEFAULT,
    initial: Floats | None = None,
) -> Floats:
    """Return the optical flow between each frame and the next.

    Args:
        frames: (T, H, W) uint8, grey.
        backend: see `resolve`.
        initial: (T-1, H, W, 2) float32, initial flow, which only OpenCV uses.

    Returns:
        (T-1, H, W, 2) float32: displacement along x and y in pixels per frame.

    Raises:
        ValueError: the frames have another shape or dtype.

    Example:
        >>> y, x = np.mgrid[:64, :64]
        >>> frame = (128 + 60 * np.sin(x / 4) + 60 * np.sin(y / 5)).astype(np.uint8)
        >>> moved = np.roll(frame, 2, axis=1)  # by two pixels to the right
        >>> np.median(flow(np.stack([frame, moved])), axis=(1, 2)).round().astype(int).tolist()
        [[2, 0]]
    """
    height, width = _size(frames)
    if initial is None:
        return Stream(height, width, backend=backend, parameters=parameters).flows(frames)
    if backend not in ("auto", "opencv"):
        _log.warning("an initial flow goes to OpenCV, not to %s", backend)
    engine = opencv.Engine(parameters)
    engine.flow(frames[0])
    fields = [engine.flow(f, start) for f, start in zip(frames[1:], initial, strict=True)]
    return np.array(fields, np.float32).reshape(len(fields), height, width, 2)


def magnitude_maps(
    frames: Frames, *, backend: str = "auto", parameters: Parameters = DEFAULT
) -> tuple[Frames, Floats]:
    """Return magnitude maps of `flow`, (T-1, H, W) uint8, and ranges as `Stream.magnitude_maps`."""
    height, width = _size(frames)
    return Stream(height, width, backend=backend, parameters=parameters).magnitude_maps(frames)


def scaled(magnitude: Floats) -> tuple[Frames, tuple[float, float]]:
    """Return a magnitude, (H, W) float32, as a uint8 map and what 0 and 255 in it stand for."""
    low, high, _, _ = cv2.minMaxLoc(magnitude)
    scaled_map: Any = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)  # type: ignore[call-overload]
    return scaled_map, (low, high)


def _size(frames: Frames) -> tuple[int, int]:
    if frames.ndim != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are (T, H, W) uint8, got {frames.shape} {frames.dtype}")
    return frames.shape[1], frames.shape[2]


def _covering(backend: Backend, height: int, width: int, parameters: Parameters) -> Backend:
    """Return the backend, or ``opencv`` if it does not cover the size or parameters."""
    covered = (
        min(height, width) >= MIN_SIDE
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
