"""The CPU engine: every kernel alone, the whole against OpenCV, on weaker processors too."""

import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline import farneback
from pipeline.farneback import parameters as tables
from pipeline.farneback.cpu.engine import SLACK
from pipeline.farneback.cpu.expansion import expand
from pipeline.farneback.cpu.iteration import RING, solve_row, update_row
from pipeline.farneback.cpu.pyramid import blur, shrink
from pipeline.farneback.cpu.upsampling import enlarge
from tests.pipeline.farneback import gate

STRIDE = 160
rng = np.random.default_rng(0)


def plane(picture):
    """A picture as the kernels want it: flat, rows 160 apart, slack before and after."""
    height, width = picture.shape
    flat = np.zeros(height * STRIDE + 2 * SLACK, picture.dtype)
    flat[SLACK : SLACK + height * STRIDE].reshape(height, STRIDE)[:, :width] = picture
    return flat


def picture_of(flat, height, width, start=SLACK):
    return flat[start : start + height * STRIDE].reshape(height, STRIDE)[:, :width]


def scratch(n=4):
    return np.zeros(n * (STRIDE + SLACK), np.float32)


# ------------------------------------------------------------------------------------ each kernel


@pytest.mark.parametrize(("height", "width"), [(33, 47), (64, 128), (40, 97)])
def test_the_lowest_level_is_opencvs_blur(height, width):
    frame = rng.integers(0, 256, (height, width)).astype(np.uint8)
    bytes_ = np.zeros(height * STRIDE + SLACK, np.uint8)
    bytes_[: height * STRIDE].reshape(height, STRIDE)[:, :width] = frame
    level = plane(np.zeros((height, width), np.float32))
    blur(bytes_, height, width, STRIDE, level, SLACK, STRIDE, scratch())
    expected = cv2.GaussianBlur(frame.astype(np.float32), (3, 3), 0)
    np.testing.assert_allclose(picture_of(level, height, width), expected, atol=2e-4)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(128, 128), (131, 133), (129, 96)])
def test_a_higher_level_is_opencvs_blur_and_resize(height, width, number):
    frame = rng.integers(0, 256, (height, width)).astype(np.uint8)
    h, w = round(height / 2**number), round(width / 2**number)
    bytes_ = np.zeros(height * STRIDE + SLACK, np.uint8)
    bytes_[: height * STRIDE].reshape(height, STRIDE)[:, :width] = frame
    level = plane(np.zeros((h, w), np.float32))
    taps = (*tables.smoothing_taps(height, h, number), *tables.smoothing_taps(width, w, number))
    shrink(bytes_, width, STRIDE, *taps, level, SLACK, STRIDE, scratch())
    sigma = (2**number - 1) / 2
    size = max(round(sigma * 5) | 1, 3)
    blurred = cv2.GaussianBlur(frame.astype(np.float32), (size, size), sigma, sigma)
    expected = cv2.resize(blurred, (w, h), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(picture_of(level, h, w), expected, atol=1e-3)


def test_the_expansion_is_a_weighted_least_squares_fit():
    """Against numpy's, in double precision, at pixels inside and at the border."""
    height, width, n = 40, 50, 5
    level = rng.normal(100, 40, (height, width)).astype(np.float32)
    e = tables.expansion(n, 1.2)
    weights = np.stack([e.g, e.xg, e.xxg])
    inverse = np.array([e.ig11, e.ig03, e.ig33, e.ig55], np.float32)
    out = np.zeros(5 * height * STRIDE + 2 * SLACK, np.float32)
    where = (SLACK, STRIDE, height, width)
    expand(plane(level), *where, weights, inverse, out, SLACK, scratch(), STRIDE + SLACK)
    found = out[SLACK : SLACK + 5 * height * STRIDE].reshape(height, 5, STRIDE)[:, :, :width]
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    design = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1).reshape(-1, 6)
    weight = np.sqrt(np.exp(-(x * x + y * y) / (2 * 1.2**2))).ravel()
    padded = np.pad(level.astype(float), n, mode="edge")
    for row, column in [(20, 25), (0, 0), (39, 49), (3, 30), (17, 48)]:
        window = padded[row : row + 2 * n + 1, column : column + 2 * n + 1].ravel()
        r = np.linalg.lstsq(design * weight[:, None], window * weight, rcond=None)[0]
        expected = [r[2], r[1], r[4], r[3], r[5]]
        np.testing.assert_allclose(found[row, :, column], expected, atol=2e-3)


def test_enlarging_is_opencvs_resize_times_two():
    for (h, w), (height, width) in [
        ((20, 24), (40, 48)),
        ((21, 33), (41, 67)),
        ((32, 32), (64, 63)),
    ]:
        small = rng.normal(0, 3, (h, w)).astype(np.float32)
        flat = np.zeros(h * STRIDE + SLACK, np.float32)
        flat[: h * STRIDE].reshape(h, STRIDE)[:, :w] = small
        large = np.zeros(height * STRIDE + SLACK, np.float32)
        taps = (*tables.bilinear_taps(h, height), *tables.bilinear_taps(w, width))
        enlarge(flat, STRIDE, h, w, *taps, large, STRIDE, scratch())
        expected = 2 * cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(picture_of(large, height, width, 0), expected, atol=2e-6 * 20)


@pytest.mark.parametrize("spread", [0.0, 0.4, 3.0, 40.0], ids=["still", "close", "apart", "wild"])
def test_update_matrices_are_those_of_the_formula(spread):
    """Also where the 16 pixels of a vector go to different places, and out of the picture."""
    height, width = 40, 60
    one, two = (rng.normal(0, 5, (height, 5, STRIDE)).astype(np.float32) for _ in range(2))
    flat = [np.pad(r.ravel(), SLACK).astype(np.float32) for r in (one, two)]
    border = tables.border_weights(width), tables.border_weights(height)
    border_x = np.pad(border[0], (0, 16), constant_values=1).astype(np.float32)
    for y in (0, 3, 20, 39):
        fx, fy = (rng.normal(0.3, spread, width + 32).astype(np.float32) for _ in range(2))
        ring = np.zeros(RING * 5 * (STRIDE + SLACK), np.float32)
        update_row(
            *(*flat, SLACK, STRIDE, height, width, y, fx, fy, 0, ring, STRIDE + SLACK),
            *(border_x, border[1], np.zeros(144, np.float32)),
        )
        rows = ring.reshape(RING, 5, STRIDE + SLACK)[y % RING, :, :width]
        for x in range(width):
            expected = update(one, two, x, y, float(fx[x]), float(fy[x]), width, height)
            weight = border[0][x] * border[1][y]
            np.testing.assert_allclose(
                rows[:, x], np.array(expected) * weight**2, rtol=2e-3, atol=2e-2
            )


def update(one, two, x, y, dx, dy, width, height):
    """G11, G12, G22, h1, h2 of one pixel in double precision, coefficient by coefficient."""
    at_x, at_y = np.float32(x) + np.float32(dx), np.float32(y) + np.float32(dy)
    left, top = int(np.floor(at_x)), int(np.floor(at_y))
    here = one[y, :, x].astype(float)
    if 0 <= left < width - 1 and 0 <= top < height - 1:
        u, v = at_x - left, at_y - top
        corners = two[top : top + 2, :, left : left + 2].astype(float)
        there = (1 - v) * ((1 - u) * corners[0, :, 0] + u * corners[0, :, 1]) + v * (
            (1 - u) * corners[1, :, 0] + u * corners[1, :, 1]
        )
    else:
        there = np.array([0, 0, *here[2:]])
    a11, a22, a12 = (here[2:] + there[2:]) / (2, 2, 4)
    b1 = (here[0] - there[0]) / 2 + a11 * dy + a12 * dx
    b2 = (here[1] - there[1]) / 2 + a12 * dy + a22 * dx
    return (
        a11 * a11 + a12 * a12,
        (a11 + a22) * a12,
        a22 * a22 + a12 * a12,
        a11 * b1 + a12 * b2,
        a12 * b1 + a22 * b2,
    )


def test_a_row_is_solved_from_means_over_the_window():
    height, width, pitch = 40, 60, STRIDE + SLACK
    a = rng.normal(0, 2, (height, 2, 2, width))
    g = np.einsum("yabx,ycbx->yacx", a, a)
    numbers = np.stack(
        [g[:, 0, 0], g[:, 0, 1], g[:, 1, 1], *rng.normal(0, 2, (2, height, width))], 1
    ).astype(np.float32)  # (height, 5, width)

    def mean(values):
        return cv2.boxFilter(values, -1, (15, 15), borderType=cv2.BORDER_REPLICATE)

    g11, g12, g22, h1, h2 = (mean(numbers[:, c].astype(float)) for c in range(5))
    determinant = g11 * g22 - g12 * g12 + 1e-3
    expected = (g11 * h2 - g12 * h1) / determinant, (g22 * h1 - g12 * h2) / determinant
    ring = np.zeros((RING, 5, pitch), np.float32)
    sums = np.zeros(5 * pitch, np.float32)
    fx, fy = np.zeros(pitch, np.float32), np.zeros(pitch, np.float32)
    filled = 0
    for y in range(height):
        while filled < min(y + 8, height):
            ring[filled % RING, :, :width] = numbers[filled]
            filled += 1
        solve_row(ring.ravel(), pitch, height, width, y, sums, fx, fy, 0)
        np.testing.assert_allclose(fx[:width], expected[0][y], atol=1e-4)
        np.testing.assert_allclose(fy[:width], expected[1][y], atol=1e-4)


# ---------------------------------------------------------------------------------- the whole


@pytest.mark.parametrize("case", gate.CASES)
def test_the_engine_passes_the_gate(case):
    frames = gate.CASES[case]()
    maps, _ = farneback.magnitude_maps(frames, backend="cpu")
    found = gate.compare(frames, farneback.flow(frames, backend="cpu"), maps)
    assert found.pass_gate(), found


@pytest.mark.parametrize("size", [(224, 224), None], ids=["224x224", "own size"])
def test_the_engine_passes_the_gate_on_real_clips(sample_videos, size):
    people = sorted((sample_videos / "people").glob("asl_*"))[::5]
    for path in [*people, *sample_videos.glob("long/*")]:
        frames = grey_frames(path, 4, size)
        maps, _ = farneback.magnitude_maps(frames, backend="cpu")
        found = gate.compare(frames, farneback.flow(frames, backend="cpu"), maps)
        assert found.pass_gate(), (path.name, found)


def grey_frames(path, n, size):
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            grey = frame.to_ndarray(format="gray")
            frames.append(
                grey if size is None else cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
            )
            if len(frames) == n:
                break
    return np.stack(frames)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "features"),
    [("x86-64", "+sse4.2"), ("haswell", "+avx2,+fma")],
    ids=["SSE4.2", "AVX2"],
)
def test_weaker_processors_pass_the_gate_and_compile_once(name, features, tmp_path):
    code = """
import sys
from pipeline import farneback
from pipeline.farneback.cpu.iteration import improve
from tests.pipeline.farneback import gate
for case in sys.argv[1:]:
    frames = gate.CASES[case]()
    flow = farneback.flow(frames, backend="cpu")
    found = gate.compare(frames, flow, farneback.magnitude_maps(frames, backend="cpu")[0])
    assert found.pass_gate(), (case, found)
print("passed by", farneback.resolve("cpu"), sum(improve.stats.cache_hits.values()))
"""
    restricted = {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    cases = ["texture 127x129", "noise, odd size", "a head on a wall", "white noise"]
    for from_disk, these in enumerate([cases, []]):
        done = subprocess.run(
            [sys.executable, "-c", code, *these],
            env=os.environ | restricted,
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == f"passed by cpu {from_disk}\n", done.stderr
