"""The CPU engine: it takes frames one after the other and returns flow."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.farneback.cpu.expansion import expand
from pipeline.farneback.cpu.iteration import RING, improve
from pipeline.farneback.cpu.pyramid import blur, shrink
from pipeline.farneback.cpu.upsampling import enlarge
from pipeline.farneback.cpu.vectors import LANES
from pipeline.farneback.parameters import (
    Floats,
    Ints,
    Parameters,
    bilinear_taps,
    border_weights,
    expansion,
    level_sizes,
    smoothing_taps,
)

SLACK = 4 * LANES  # floats before and after each plane
NO_MAGNITUDE = np.zeros(0, np.float32)


@dataclass(frozen=True)
class _Level:
    """Buffers and tables of a level of the pyramid."""

    height: int
    width: int
    stride: int
    rows: tuple[Ints, Floats]  # smoothing taps along y
    columns: tuple[Ints, Floats]  # smoothing taps along x
    border_x: Floats
    border_y: Floats
    coefficients: tuple[Floats, Floats]  # of the last two frames, in turn
    guess: tuple[Floats, Floats]  # initial flow along x and y
    flow: tuple[Floats, Floats]


class Engine:
    """Flow of a sequence, in about 100 bytes per pixel; frames are expanded once for both pairs."""

    def __init__(self, height: int, width: int, parameters: Parameters) -> None:
        self._shape = height, width
        self._parameters = parameters
        sizes = level_sizes(height, width, parameters)
        self._levels = [self._level(n, *size) for n, size in enumerate(sizes)]
        self._up = [
            (bilinear_taps(small.height, large.height), bilinear_taps(small.width, large.width))
            for large, small in pairwise(self._levels)
        ]
        tables = expansion(parameters.poly_n, parameters.poly_sigma)
        self._weights = np.stack([tables.g, tables.xg, tables.xxg])
        self._inverse = np.array([tables.ig11, tables.ig03, tables.ig33, tables.ig55], np.float32)
        stride = self._levels[0].stride
        self._pitch = stride + SLACK
        self._bytes = np.zeros(height * stride + SLACK, np.uint8)
        self._picture = _plane(height, stride)
        self._magnitude = _plane(height, stride)
        self._rows = np.zeros(3 * self._pitch, np.float32)
        self._rings = np.zeros((parameters.iterations, RING * 5 * self._pitch), np.float32)
        self._sums = np.zeros((parameters.iterations, 5 * self._pitch), np.float32)
        self._row = np.zeros((2, self._pitch), np.float32)
        self._lanes = np.zeros(9 * LANES, np.float32)
        self._n = 0

    def _level(self, number: int, height: int, width: int) -> _Level:
        stride = -(-width // LANES) * LANES + LANES

        def planes(n: int) -> tuple[Floats, Floats]:
            return _plane(n * height, stride), _plane(n * height, stride)

        border_x = np.ones(width + LANES, np.float32)
        border_x[:width] = border_weights(width)
        return _Level(
            height,
            width,
            stride,
            smoothing_taps(self._shape[0], height, number),
            smoothing_taps(self._shape[1], width, number),
            border_x,
            border_weights(height),
            coefficients=planes(5),
            guess=planes(1),
            flow=planes(1),
        )

    def flow(self, frame: npt.NDArray[np.uint8]) -> Floats | None:
        """Take the next frame; see `pipeline.farneback.Stream.flow`."""
        if not self._advance(frame, magnitude=False):
            return None
        lowest, (height, width) = self._levels[0], self._shape
        x, y = (_rows(plane, height, lowest.stride)[:, :width] for plane in lowest.flow)
        return np.stack([x, y], axis=-1)

    def magnitude(self, frame: npt.NDArray[np.uint8]) -> Floats | None:
        """Take the next frame; return the flow's magnitude in a view that the next call reuses."""
        if not self._advance(frame, magnitude=True):
            return None
        height, width = self._shape
        return _rows(self._magnitude, height, self._levels[0].stride)[:, :width]

    def _advance(self, frame: npt.NDArray[np.uint8], *, magnitude: bool) -> bool:
        newest = self._n % 2
        self._expand(frame, newest)
        self._n += 1
        if self._n == 1:
            return False
        for number in range(len(self._levels) - 1, -1, -1):
            level = self._levels[number]
            if number == len(self._levels) - 1:
                for plane in level.guess:
                    plane[:] = 0
            else:
                self._enlarge(number)
            improve(
                level.coefficients[1 - newest],
                level.coefficients[newest],
                SLACK,
                level.stride,
                level.height,
                level.width,
                self._parameters.iterations,
                *level.guess,
                *level.flow,
                self._magnitude if magnitude and number == 0 else NO_MAGNITUDE,
                self._rings,
                self._pitch,
                self._sums,
                *self._row,
                level.border_x,
                level.border_y,
                self._lanes,
            )
        return True

    def _expand(self, frame: npt.NDArray[np.uint8], slot: int) -> None:
        height, width = self._shape
        pitch = self._levels[0].stride
        self._bytes[: height * pitch].reshape(height, pitch)[:, :width] = frame
        for number, level in enumerate(self._levels):
            where = (self._picture, SLACK, level.stride)
            if number == 0:
                blur(self._bytes, height, width, pitch, *where, self._rows)
            else:
                taps = (*level.rows, *level.columns)
                shrink(self._bytes, width, pitch, *taps, *where, self._rows)
            expand(
                *where,
                level.height,
                level.width,
                self._weights,
                self._inverse,
                level.coefficients[slot],
                SLACK,
                self._rows,
                self._pitch,
            )

    def _enlarge(self, number: int) -> None:
        large, small = self._levels[number], self._levels[number + 1]
        rows, columns = self._up[number]
        size = small.stride, small.height, small.width
        for into, out_of in zip(large.guess, small.flow, strict=True):
            enlarge(out_of, *size, *rows, *columns, into, large.stride, self._rows)


def compile_kernels() -> None:
    """Compile all kernels in half a minute, or load them from numba's cache in 0.3 s."""
    engine = Engine(64, 64, Parameters())
    for frame in np.zeros((2, 64, 64), np.uint8):
        engine.magnitude(frame)


def has_cached_kernels() -> bool:
    """Return whether numba's cache has kernels of an earlier process."""
    folder = improve.stats.cache_path  # None where numba cannot write a cache
    return folder is not None and any(Path(folder).glob("iteration.improve-*.nbi"))


def _plane(height: int, stride: int) -> Floats:
    return np.zeros(height * stride + 2 * SLACK, np.float32)


def _rows(plane: Floats, height: int, stride: int) -> Floats:
    return plane[: height * stride].reshape(height, stride)
