"""Motion descriptors: what each number is, and what must not change it."""

import numpy as np
import pytest

from features.motion import NAMES, SPEEDS, motion_descriptors


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
    expected, speeds = [], []
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
        gradient = np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()
        rows, columns = (side // 4 for side in pixels.shape)
        blocks = pixels.reshape(rows, 4, columns, 4).mean((1, 3)) / seconds
        speeds.append((times[n : n + 2].mean(), blocks))
        jerk = 0.0
        if n >= 2:
            (t0, a), (t1, b), (t2, c) = speeds[-3:]
            change = (c - b) / (t2 - t1) - (b - a) / (t1 - t0)
            jerk = np.abs(change).mean() / ((t2 - t0) / 2)
        shares = np.histogram(scaled, bins=32, range=(0, 256))[0] / scaled.size
        shares = shares[shares > 0]
        inside, outside = (per_frame[f"{part}_mean"] / seconds for part in ("centre", "border"))
        expected.append(
            [np.log(1 + per_frame[name] / seconds) for name in SPEEDS]
            + [
                np.log(1 + gradient / seconds),
                np.log(1 + jerk),
                -(shares * np.log2(shares)).sum(),
                np.log((1 + inside) / (1 + outside)),
            ]
        )
    found = motion_descriptors(flow, ranges, times, camera)
    assert found.dtype == np.float32
    assert found.shape == (5, len(NAMES))
    # Sums over a map are in float32, seven digits; the blocks of jerk are in whole greys.
    jerk = NAMES.index("jerk")
    np.testing.assert_allclose(found[:, jerk], np.array(expected)[:, jerk], rtol=0.02)
    others = np.arange(len(NAMES)) != jerk
    np.testing.assert_allclose(found[:, others], np.array(expected)[:, others], rtol=1e-5)


def test_the_same_motion_per_second_looks_the_same_at_24_and_at_30_frames_per_second(maps):
    flow, ranges, _, camera = maps
    at_24 = motion_descriptors(flow, ranges / 24, np.arange(6) / 24, camera / 24)
    at_30 = motion_descriptors(flow, ranges / 30, np.arange(6) / 30, camera / 30)
    same = [n for n, name in enumerate(NAMES) if name != "jerk"]  # the time between maps differs
    np.testing.assert_allclose(at_24[:, same], at_30[:, same], rtol=1e-5)  # float32


def test_a_dropped_frame_does_not_look_like_motion(maps):
    flow, ranges, _, camera = maps
    steady = motion_descriptors(flow, ranges, np.arange(6) / 25, camera)
    doubled = ranges.copy()
    doubled[2], camera = 2 * ranges[2], camera.copy()  # twice the way in twice the time
    camera[2] *= 2
    times = np.array([0, 1, 2, 4, 5, 6]) / 25
    found = motion_descriptors(flow, doubled, times, camera)
    same = [n for n, name in enumerate(NAMES) if name != "jerk"]
    np.testing.assert_allclose(found[:, same], steady[:, same], rtol=1e-5)


def test_faster_motion_gives_larger_descriptors(maps):
    flow, ranges, times, camera = maps
    slow, fast = (motion_descriptors(flow, ranges * k, times, camera * k) for k in (1, 3))
    speeds = slice(0, NAMES.index("gradient") + 1)
    assert (fast[:, speeds] > slow[:, speeds]).all()
    assert (fast[2:, NAMES.index("jerk")] > slow[2:, NAMES.index("jerk")]).all()
    entropy = NAMES.index("entropy")
    np.testing.assert_array_equal(fast[:, entropy], slow[:, entropy])


def test_a_flat_map_has_one_speed_everywhere_and_no_spread():
    flow = np.zeros((1, 32, 32), np.uint8)  # minimum and maximum are the same: all pixels are 0
    found = motion_descriptors(
        flow, np.float32([[2, 2]]), np.array([0, 0.5]), np.float32([[0, 2, 0, 0, 0, 0]])
    )
    named = dict(zip(NAMES, found[0], strict=True))
    for name in ("std", "gradient", "jerk", "entropy", "centre_ratio"):
        assert named.pop(name) == 0
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
    assert named["centre_ratio"] == pytest.approx(np.log(11), rel=1e-6)
    assert named["entropy"] == pytest.approx(0.811, abs=1e-3)  # a quarter moves


def test_a_camera_that_is_not_known_counts_as_still():
    flow, unknown = np.full((1, 32, 32), 9, np.uint8), np.full((1, 6), np.nan, np.float32)
    found = motion_descriptors(flow, np.float32([[0, 10]]), np.array([0, 1.0]), unknown)
    assert dict(zip(NAMES, found[0], strict=True))["camera"] == 0
    assert np.isfinite(found).all()


def test_steady_and_even_acceleration_have_no_jerk_and_shaking_has():
    flow = np.full((6, 32, 32), 255, np.uint8)
    times = np.arange(7) / 25
    still = np.zeros((6, 6), np.float32)
    jerk = NAMES.index("jerk")

    def of(speeds):
        ranges = np.stack([np.zeros(6), speeds], axis=1).astype(np.float32)
        return motion_descriptors(flow, ranges, times, still)[:, jerk]

    np.testing.assert_allclose(of(np.full(6, 2.0)), 0, atol=0.02)
    np.testing.assert_allclose(of(np.arange(1.0, 7.0)), 0, atol=0.2)
    shaking = of(np.array([1.0, 3.0, 1.0, 3.0, 1.0, 3.0]))
    np.testing.assert_allclose(shaking[2:], np.log1p(4 * 25**3), rtol=1e-4)
    assert (shaking[:2] == 0).all()
