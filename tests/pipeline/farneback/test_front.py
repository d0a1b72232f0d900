"""The front: one function for flow, one for maps, a stream; and which backend computes."""

import builtins
import logging

import cv2
import numpy as np
import pytest

from pipeline import farneback
from pipeline.common.errors import SettingsError
from pipeline.farneback import Parameters, cpu, cuda, opencv_cuda
from tests.pipeline.farneback import gate


@pytest.fixture(scope="module")
def grey():
    return gate.texture(72, 96, 5)


def test_opencv_is_opencv(grey):
    flow = farneback.flow(grey, backend="opencv")
    assert (flow.shape, flow.dtype) == ((4, 72, 96, 2), np.float32)
    np.testing.assert_array_equal(flow, gate.reference(grey))


def test_flow_is_in_pixels_per_frame_x_first():
    still = gate.texture(96, 128, 1)[0]
    moved = np.roll(still, (1, 3), axis=(0, 1))  # 3 to the right, 1 down
    inner = farneback.flow(np.stack([still, moved]))[0, 24:-24, 24:-24]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), [3, 1], atol=0.1)


@pytest.mark.parametrize("backend", ["cpu", "opencv"])
@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_frames_have_no_flow(grey, n, backend):
    assert farneback.flow(grey[:n], backend=backend).shape == (0, 72, 96, 2)
    maps, ranges = farneback.magnitude_maps(grey[:n], backend=backend)
    assert (maps.shape, ranges.shape) == ((0, 72, 96), (0, 2))


@pytest.mark.parametrize("backend", ["cpu", "opencv"])
def test_a_map_is_the_magnitude_scaled_to_the_range_that_goes_with_it(backend):
    frames = gate.noise_over_a_still_picture(71, 97, 6)
    maps, ranges = farneback.magnitude_maps(frames, backend=backend)
    assert (maps.dtype, ranges.dtype) == (np.uint8, np.float32)
    flow = farneback.flow(frames, backend=backend)
    for picture, (low, high), field in zip(maps, ranges, flow, strict=True):
        magnitude = np.sqrt((field * field).sum(-1))
        np.testing.assert_allclose((low, high), (magnitude.min(), magnitude.max()), rtol=1e-6)
        assert (picture.min(), picture.max()) == (0, 255)
        restored = low + picture / 255 * (high - low)
        assert np.abs(restored - magnitude).max() <= (high - low) / 255 * 0.51  # half a grey level


@pytest.mark.parametrize("backend", ["cpu", "opencv"])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_still_flat_pair_has_a_map_of_zeros_and_the_range_0_0(level, backend):
    maps, ranges = farneback.magnitude_maps(np.full((2, 64, 64), level, np.uint8), backend=backend)
    assert not maps.any()
    assert not ranges.any()


@pytest.mark.parametrize("backend", ["cpu", "opencv"])
@pytest.mark.parametrize("size", [1, 3])
def test_a_stream_gives_what_the_whole_sequence_gives(grey, backend, size):
    stream = farneback.Stream(72, 96, backend=backend)
    assert stream.backend == backend
    flow = [stream.flow(frame) for frame in grey]
    assert flow[0] is None
    np.testing.assert_array_equal(np.stack(flow[1:]), farneback.flow(grey, backend=backend))
    maps, ranges = farneback.magnitude_maps(grey, backend=backend)
    stream = farneback.Stream(72, 96, backend=backend)
    pieces = [stream.magnitude_maps(grey[k : k + size]) for k in range(0, len(grey), size)]
    np.testing.assert_array_equal(np.concatenate([m for m, _ in pieces]), maps)
    np.testing.assert_array_equal(np.concatenate([r for _, r in pieces]), ranges)


# ------------------------------------------------------------------------- what goes to OpenCV


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(winsize=21),
        Parameters(poly_n=7, poly_sigma=1.5),
        Parameters(pyr_scale=0.8),
        Parameters(flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN),
    ],
)
def test_what_the_engine_does_not_cover_is_opencvs_and_said(grey, parameters, caplog):
    with caplog.at_level(logging.WARNING):
        flow = farneback.flow(grey, backend="cpu", parameters=parameters)
    assert "is computed by OpenCV: cpu does not cover it" in caplog.text
    p = parameters
    arguments = (p.pyr_scale, p.levels, p.winsize, p.iterations, p.poly_n, p.poly_sigma, p.flags)
    expected = cv2.calcOpticalFlowFarneback(grey[0], grey[1], None, *arguments)
    np.testing.assert_array_equal(flow[0], expected)
    assert farneback.Stream(72, 96, backend="cpu", parameters=parameters).backend == "opencv"


def test_small_pictures_are_opencvs(caplog):
    frames = gate.texture(31, 200)
    with caplog.at_level(logging.WARNING):
        flow = farneback.flow(frames, backend="cpu")
    assert "200x31" in caplog.text
    np.testing.assert_array_equal(flow, gate.reference(frames))


def test_an_initial_flow_is_taken_as_opencv_takes_it(grey):
    start = np.full((4, 72, 96, 2), 1.5, np.float32)
    flow = farneback.flow(grey, initial=start)
    arguments = (0.5, 3, 15, 3, 5, 1.2, cv2.OPTFLOW_USE_INITIAL_FLOW)
    expected = cv2.calcOpticalFlowFarneback(grey[1], grey[2], start[1].copy(), *arguments)
    np.testing.assert_array_equal(flow[1], expected)
    assert (start == 1.5).all()


@pytest.mark.parametrize(
    "parameters",
    [Parameters(levels=0), Parameters(levels=1), Parameters(iterations=1), Parameters(iterations=5),
     Parameters(poly_sigma=1.5)],
)  # fmt: skip
def test_other_levels_iterations_and_sigmas_are_covered(parameters, caplog):
    frames = gate.texture(100, 130)
    ours = farneback.flow(frames, backend="cpu", parameters=parameters)
    theirs = farneback.flow(frames, backend="opencv", parameters=parameters)
    assert not caplog.text
    assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize(
    "frames", [np.zeros((64, 64), np.uint8), np.zeros((2, 64, 64), np.float32)]
)
def test_other_arrays_are_refused(frames):
    with pytest.raises(ValueError, match=r"\(T, H, W\) uint8"):
        farneback.flow(frames)


# -------------------------------------------------------------------------------- which backend


def test_auto_is_the_fastest_that_is_here():
    expected = "cpu" if cuda.why_not() else "cuda"
    assert farneback.resolve("auto") == expected
    assert farneback.resolve("opencv") == "opencv"


def test_a_device_that_is_not_there_is_refused():
    for name, missing in (
        ("opencv-cuda", not opencv_cuda.available()),
        ("cuda", cuda.why_not()),
    ):
        if missing:
            with pytest.raises(SettingsError, match=name) as error:
                farneback.resolve(name)
            assert "auto" in error.value.hint


def test_an_unknown_backend_is_refused_with_those_there_are(grey):
    with pytest.raises(SettingsError, match="'tvl1'") as error:
        farneback.flow(grey, backend="tvl1")
    assert all(name in error.value.hint for name in farneback.BACKENDS)


def test_without_numba_opencv_computes_and_it_is_said(grey, monkeypatch, caplog):
    real = builtins.__import__

    def no_numba(name, *args, **kwargs):
        if name.split(".")[0] in ("numba", "llvmlite") or "farneback.cpu.engine" in name:
            raise ImportError("No module named 'numba'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_numba)
    monkeypatch.setattr(cuda, "why_not", lambda: "none")
    cpu.why_not.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert farneback.resolve("auto") == "opencv"
        assert farneback.resolve("cpu") == "opencv"
    cpu.why_not.cache_clear()
    assert "flow is computed by OpenCV, which is slower: ImportError" in caplog.text


def test_another_machines_backend_is_stood_in_for_by_an_equivalent_one(caplog):
    if not cuda.why_not():
        pytest.skip("this machine has a CUDA device")
    assert farneback.equivalent_backend("cpu") == "cpu"
    with caplog.at_level(logging.WARNING):
        assert farneback.equivalent_backend("cuda") == "cpu"
    assert "computed by cpu instead of cuda" in caplog.text
    if not opencv_cuda.available():
        with pytest.raises(SettingsError):
            farneback.equivalent_backend("opencv-cuda")


def test_the_cuda_flow_of_opencv_is_near_that_of_the_cpu(grey):
    if not opencv_cuda.available():
        pytest.skip("needs an OpenCV built with CUDA, and a device")
    both = (farneback.flow(grey, backend=name) for name in ("opencv", "opencv-cuda"))
    assert np.median(np.abs(np.subtract(*both))) < 0.1  # other resizing in the pyramid
