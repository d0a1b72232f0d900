"""Motion descriptors: what each number is, and what must not change it."""

import numpy as np
import pytest

from features.motion import NAMES, motion_descriptors


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    flow = rng.integers(0, 256, (5, 32, 48), dtype=np.uint8)
    low = rng.uniform(0, 1, 5)
    ranges = np.stack([low, low + rng.uniform(0.5, 9, 5)], axis=1).astype(np.float32)
    times = np.cumsum(rng.uniform(0.02, 0.05, 6))
    camera = rng.normal(0, 2, (5, 6)).astype(np.float32)
    return flow, ranges, times, camera


def test_each_descriptor_is_what_its_name_says(maps):
    flow, ranges, times, camera = maps
    expected = []
    for n, (scaled, (low, high)) in enumerate(zip(flow, ranges, strict=True)):
        pixels = low + scaled.astype(np.float64) / 255 * (high - low)  # pixels per frame
        inside = np.zeros(pixels.shape, bool)
        inside[8:24, 12:36] = True
        per_frame = {
            "mean": pixels.mean(),
            "std": pixels.std(),
            "median": np.median(pixels),
            "p90": np.quantile(pixels, 0.9),
            "p99": np.quantile(pixels, 0.99),
            "max": pixels.max(),
            "centre_mean": pixels[inside].mean(),
            "border_mean": pixels[~inside].mean(),
            "camera": np.hypot(*camera[n, :2]),
        }
        seconds = times[n + 1] - times[n]
        expected.append([np.log(1 + per_frame[name] / seconds) for name in NAMES])
    found = motion_descriptors(flow, ranges, times, camera)
    assert found.dtype == np.float32
    assert found.shape == (5, len(NAMES))
    # Sums over a map are in float32: seven digits.
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_same_motion_per_second_looks_the_same_at_24_and_at_30_frames_per_second(maps):
    flow, ranges, _, camera = maps
    at_24 = motion_descriptors(flow, ranges / 24, np.arange(6) / 24, camera / 24)
    at_30 = motion_descriptors(flow, ranges / 30, np.arange(6) / 30, camera / 30)
    np.testing.assert_allclose(at_24, at_30, rtol=1e-5)  # float32


def test_a_dropped_frame_does_not_look_like_motion(maps):
    flow, ranges, _, camera = maps
    steady = motion_descriptors(flow, ranges, np.arange(6) / 25, camera)
    doubled = ranges.copy()
    doubled[2], camera = 2 * ranges[2], camera.copy()  # twice the way in twice the time
    camera[2] *= 2
    times = np.array([0, 1, 2, 4, 5, 6]) / 25
    np.testing.assert_allclose(motion_descriptors(flow, doubled, times, camera), steady, rtol=1e-5)


def test_faster_motion_gives_larger_descriptors(maps):
    flow, ranges, times, camera = maps
    slow, fast = (motion_descriptors(flow, ranges * k, times, camera * k) for k in (1, 3))
    assert (fast > slow).all()


def test_a_flat_map_has_one_speed_everywhere_and_no_spread():
    flow = np.zeros((1, 32, 32), np.uint8)  # minimum and maximum are the same: all pixels are 0
    found = motion_descriptors(
        flow, np.float32([[2, 2]]), np.array([0, 0.5]), np.float32([[0, 2, 0, 0, 0, 0]])
    )
    named = dict(zip(NAMES, found[0], strict=True))
    assert named.pop("std") == 0
    np.testing.assert_allclose(list(named.values()), np.log(1 + 4), rtol=1e-6)


def test_no_motion_at_all_is_zero():
    still = motion_descriptors(
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((3, 2), np.float32),
        np.arange(4) / 25,
        np.zeros((3, 6), np.float32),
    )
    assert (still == 0).all()


def test_the_centre_is_told_from_the_border():
    flow = np.zeros((1, 32, 32), np.uint8)
    flow[:, 8:24, 8:24] = 255
    found = motion_descriptors(
        flow, np.float32([[0, 10]]), np.array([0, 1.0]), np.zeros((1, 6), np.float32)
    )
    named = dict(zip(NAMES, found[0], strict=True))
    assert named["centre_mean"] == pytest.approx(np.log(11), rel=1e-6)
    assert named["border_mean"] == 0


def test_a_camera_that_is_not_known_counts_as_still():
    flow, unknown = np.full((1, 32, 32), 9, np.uint8), np.full((1, 6), np.nan, np.float32)
    found = motion_descriptors(flow, np.float32([[0, 10]]), np.array([0, 1.0]), unknown)
    assert dict(zip(NAMES, found[0], strict=True))["camera"] == 0
    assert np.isfinite(found).all()
