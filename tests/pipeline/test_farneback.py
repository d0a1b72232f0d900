"""Flow is OpenCV's, with the arguments the whole field uses, in pixels per frame."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from pipeline import farneback
from pipeline.errors import SettingsError
from pipeline.farneback import opencv_cuda


@pytest.fixture(scope="module")
def grey(moving_texture):
    frames = moving_texture(4, 96, 72, seed=3)
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def by_hand(previous, following):
    return cv2.calcOpticalFlowFarneback(previous, following, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def test_flow_is_what_opencv_gives(grey):
    flow = farneback.flow(grey, backend="opencv")
    assert flow.shape == (3, 72, 96, 2)
    assert flow.dtype == np.float32
    for n in range(3):
        np.testing.assert_array_equal(flow[n], by_hand(grey[n], grey[n + 1]))


def test_flow_is_in_pixels_per_frame_x_first():
    rng = np.random.default_rng(0)
    still = cv2.GaussianBlur(rng.integers(0, 256, (96, 128)).astype(np.uint8), (0, 0), 3)
    still = cv2.normalize(still, None, 0, 255, cv2.NORM_MINMAX)
    moved = np.roll(still, (1, 3), axis=(0, 1))  # 3 to the right, 1 down
    inner = farneback.flow(np.stack([still, moved]))[0, 24:-24, 24:-24]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), [3, 1], atol=0.1)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_frames_have_no_flow(grey, n):
    assert farneback.flow(grey[:n]).shape == (0, 72, 96, 2)


def test_a_map_is_the_magnitude_scaled_to_the_range_that_goes_with_it(moving_texture):
    """Exactly, and wherever in memory it lies: the last bits of cv2.magnitude, which Intel's IPP
    computes, depend on the alignment of its result; those of cv2.cartToPolar do not.
    """
    frames = moving_texture(20, 97, 71, seed=4)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    for previous, following in pairwise(grey):
        scaled, (low, high) = farneback.magnitude_map(previous, following, backend="opencv")
        magnitude, _ = cv2.cartToPolar(*cv2.split(by_hand(previous, following)))
        assert (low, high) == (magnitude.min(), magnitude.max())
        assert (scaled.dtype, scaled.min(), scaled.max()) == (np.uint8, 0, 255)
        restored = low + scaled / 255 * (high - low)
        assert np.abs(restored - magnitude).max() <= (high - low) / 255 * 0.51  # half a grey level


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_still_flat_pair_has_a_map_of_zeros_and_the_range_0_0(level):
    flat = np.full((64, 64), level, np.uint8)
    scaled, range_ = farneback.magnitude_map(flat, flat, backend="opencv")
    assert not scaled.any()
    assert range_ == (0, 0)


def test_auto_is_opencv_where_there_is_no_cuda_device():
    assert farneback.resolve("auto") == ("opencv-cuda" if opencv_cuda.available() else "opencv")
    assert farneback.resolve("opencv") == "opencv"


def test_cuda_is_refused_where_there_is_none():
    if opencv_cuda.available():
        pytest.skip("this OpenCV has a CUDA device")
    with pytest.raises(SettingsError, match="opencv-cuda") as error:
        farneback.resolve("opencv-cuda")
    assert "auto" in error.value.hint


def test_an_unknown_backend_is_refused_with_those_there_are(grey):
    with pytest.raises(SettingsError, match="'tvl1'") as error:
        farneback.flow(grey, backend="tvl1")
    assert all(name in error.value.hint for name in farneback.BACKENDS)


def test_the_cuda_flow_is_near_that_of_the_cpu(grey):
    if not opencv_cuda.available():
        pytest.skip("needs an OpenCV built with CUDA, and a device")
    cpu, cuda = (farneback.flow(grey, backend=name) for name in ("opencv", "opencv-cuda"))
    assert np.median(np.abs(cpu - cuda)) < 0.1  # other resizing in the pyramid
