"""Trajectories: lengths and angles of steps between maps made by hand, and of real pictures."""

import numpy as np
import pytest
import torch

from features.backbones import load_backbone
from features.embedding import embed_clip
from features.settings import Options
from features.trajectory import COLUMNS, Trajectory, face_cells

FPS = 25
CENTRE = (0.25, 0.25, 0.5, 0.5)


def described(maps, times=None, face=None, sizes=None):
    """Column → values of maps (T, h, w, C), given in parts of the sizes or at once."""
    times = np.arange(len(maps)) / FPS if times is None else times
    trajectory = Trajectory(times, face)
    for part in torch.as_tensor(maps, dtype=torch.float32).split(sizes or len(maps)):
        trajectory.add([part])
    return dict(zip(COLUMNS, trajectory.table().T, strict=True))


def along(path):
    """Maps of 4x4 cells that all move alike: (T, C) to (T, 4, 4, C)."""
    return torch.as_tensor(np.asarray(path), dtype=torch.float32)[:, None, None].expand(
        -1, 4, 4, -1
    )


def walk(n=400, channels=512, seed=0):
    steps = torch.randn(n, 4, 4, channels, generator=torch.Generator().manual_seed(seed))
    return 50 + steps.cumsum(0)


def test_a_straight_path_turns_by_nothing():
    rng = np.random.default_rng(0)
    start, step = rng.normal(size=(2, 64))
    found = described(along(start + np.arange(20)[:, None] * step))
    for column in ("turn", "cell_turn_mean", "cell_turn_max"):
        assert np.nanmax(found[column]) < 0.2, "degrees, of which rounding leaves a tenth"


def test_a_random_walk_turns_by_right_angles():
    found = described(walk())
    assert np.nanmean(found["turn"]) == pytest.approx(90, abs=1)
    assert np.nanmean(found["cell_turn_mean"]) == pytest.approx(90, abs=1)


def test_a_path_there_and_back_turns_by_half_a_turn():
    found = described(along([[1, 2], [3, 1]] * 5))
    np.testing.assert_allclose(found["turn"][2:], 180, atol=0.1)
    np.testing.assert_allclose(found["change"][2:], 0, atol=1e-4)


def test_lengths_by_hand():
    found = described(along([[3, 4], [3, 5], [3, 5], [0, 5]]))
    size = np.sqrt([25, 34, 34, 25])
    steps = np.array([1, 0, 3]) / ((size[1:] + size[:-1]) / 2) * FPS
    np.testing.assert_allclose(found["length"][1:], steps, rtol=1e-5)
    np.testing.assert_allclose(found["cell_length_mean"][1:], steps, rtol=1e-5)
    np.testing.assert_allclose(found["change"][2:], np.abs(np.diff(steps)), rtol=1e-5)
    np.testing.assert_allclose(found["cell_length_std"][1:], 0, atol=1e-5)


def test_what_is_undefined_is_not_a_number():
    found = described(along([[1, 2], [1, 2], [1, 3], [1, 4]]))
    assert np.isnan(found["length"]).tolist() == [True, False, False, False]
    assert np.isnan(found["change"]).tolist() == [True, True, False, False]
    assert np.isnan(found["turn"]).tolist() == [True, True, True, False], "one step is nothing"
    assert found["length"][1] == 0
    for n in (1, 2):
        assert np.isnan(described(along([[1, 2]] * n))["turn"]).all()


@pytest.mark.parametrize("value", [0, 1])
def test_a_still_clip_has_no_step_be_it_black_or_not(value):
    found = described(np.full((5, 4, 4, 3), value))
    assert (found["length"][1:] == 0).all() and (found["cell_length_max"][1:] == 0).all()
    assert np.isnan(found["turn"]).all() and np.isnan(found["cell_turn_max"]).all()
    assert (found["face_length"][1:] == 0).all()


def test_parts_of_any_size_give_the_same():
    maps = walk(50)
    whole = described(maps)
    for sizes in (1, 2, 7, 16):
        for column, values in described(maps, sizes=sizes).items():
            np.testing.assert_array_equal(values, whole[column])


def test_a_face_that_jitters_alone_stands_out_from_its_surroundings():
    maps = torch.ones(20, 8, 8, 16) + torch.arange(20)[:, None, None, None] * 0.01
    noise = torch.randn(20, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    maps[:, 2:6, 2:6] += noise
    found = described(maps, face=CENTRE)
    assert np.nanmin(found["face_turn"]) > 60, "degrees"
    assert np.nanmin(found["face_length"]) > 1
    assert np.nanmax(described(maps, face=(0, 0, 0.25, 0.25))["face_turn"]) < 0


def test_where_the_face_is_unknown_or_everywhere_the_middle_counts():
    middle = face_cells(CENTRE, 8, 8)
    assert middle.reshape(8, 8)[2:6, 2:6].all() and middle.sum() == 16
    for face in (None, (0, 0, 1, 1), (0.9, 0.9, 0.01, 0.01)):
        assert torch.equal(face_cells(face, 8, 8), middle)


def test_lengths_are_per_second_whatever_the_frame_rate_and_what_was_dropped():
    """Every second frame of a slowly turning path: what is left of it is within 2%."""
    phase = np.arange(100) / 30
    path = along(np.stack([5 + np.cos(phase), 5 + np.sin(phase), np.ones(100)], 1))
    times = np.arange(100) / FPS
    dropped = np.sort(np.random.default_rng(0).permutation(100)[:50])
    for kept in (np.arange(0, 100, 2), dropped):
        whole, part = described(path, times), described(path[kept], times[kept])
        for column in ("length", "cell_length_mean", "cell_length_max"):
            assert np.nanmean(part[column]) == pytest.approx(np.nanmean(whole[column]), rel=0.02)


def test_maps_without_time_between_them_have_no_length():
    found = described(along([[1, 2], [2, 1], [4, 1]]), times=np.array([0, 0, 0.1]))
    assert np.isnan(found["length"]).tolist() == [True, True, False]


@pytest.fixture(scope="module")
def network(mobilenet_weights):
    return load_backbone("mobilenet_v2", str(mobilenet_weights), "cpu", depths=(3, 4))


def clip_of(frames, **more):
    n = len(frames)
    flow = np.zeros((n - 1, *frames.shape[1:3]), np.uint8)
    unmoved = np.zeros((n - 1, 2), np.float32)
    return {
        "frames": frames,
        "flow": flow,
        "flow_range": unmoved,
        "timestamps": np.arange(n) / FPS,
        "camera": np.zeros((n - 1, 6), np.float32),
    } | more


def trajectory_of(frames, network, column, depth=3, **more):
    arrays = clip_of(frames, **more)
    table = embed_clip(arrays, network, Options(streams=("frames",)))["trajectory"]
    assert table.shape == (len(frames) - 1, 2 * len(COLUMNS)) and table.dtype == np.float32
    return table[:, (depth - 3) * len(COLUMNS) + COLUMNS.index(column)]


def scene(offsets, size=96):
    """Frames that look at a smooth random scene from these offsets, (T, 2), pixels."""
    import cv2

    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (300, 300, 3)).astype(np.float32), (0, 0), 3)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    moves = [np.float32([[1, 0, -50 - x], [0, 1, -50 - y]]) for x, y in offsets]
    return np.stack([cv2.warpAffine(wide, move, (size, size)) for move in moves]).astype(np.uint8)


def test_a_still_clip_of_pictures_has_no_step(network):
    frames = np.repeat(scene([(0, 0)]), 20, axis=0)
    assert (trajectory_of(frames, network, "length")[1:] == 0).all()
    assert np.isnan(trajectory_of(frames, network, "turn")).all()


def test_an_even_pan_turns_less_than_the_same_pan_with_jitter(network):
    even = np.stack([np.arange(20) * 1.0, np.zeros(20)], 1)
    jitter = np.random.default_rng(0).normal(0, 1.5, (20, 2))
    for column in ("turn", "cell_turn_mean"):
        steady, shaken = (trajectory_of(scene(at), network, column) for at in (even, even + jitter))
        assert np.nanmean(shaken) > np.nanmean(steady) + 5, "degrees"


def test_the_face_of_a_clip_is_where_the_cache_says(network):
    """A patch that flickers is compared with all else if the face is there."""
    frames = scene(np.stack([np.arange(12) * 1.0, np.zeros(12)], 1))
    frames[:, 8:40, 8:40] = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3))
    crop = np.array([100, 200, 48, 48])  # pixels of the video, half the size of the frames
    row = [0, 104, 204, 16, 16, 0.9, 1]
    faces = np.array([row, [0.5, 0, 0, 0, 0, 0, 0]], np.float32)
    there = trajectory_of(frames, network, "face_length", faces=faces, crop=crop)
    elsewhere = trajectory_of(frames, network, "face_length")
    assert np.nanmean(there) > np.nanmean(elsewhere) + 0.1


def test_mirrored_copies_have_no_trajectory_and_change_none(network):
    arrays = clip_of(scene(np.random.default_rng(1).normal(0, 2, (6, 2))))
    plain, augmented = (
        embed_clip(arrays, network, Options(augment=copies)) for copies in ((), ("flip",))
    )
    np.testing.assert_array_equal(plain["trajectory"], augmented["trajectory"])
    assert plain["trajectory"].shape[1] == 2 * 2 * len(COLUMNS)


def test_reduced_precision_of_embeddings_leaves_trajectories(mobilenet_weights, network):
    half = load_backbone("mobilenet_v2", str(mobilenet_weights), "cpu", "bfloat16", depths=(3, 4))
    frames = scene(np.random.default_rng(1).normal(0, 2, (6, 2)))
    exact, coarse = (
        embed_clip(clip_of(frames), backbone, Options(streams=("frames",)))
        for backbone in (network, half)
    )
    np.testing.assert_allclose(coarse["trajectory"], exact["trajectory"], rtol=1e-3, atol=1e-3)
    assert not np.array_equal(coarse["frames"], exact["frames"]), "those are in bfloat16"


def test_a_video_network_steps_from_window_to_window(video_network):
    rng = np.random.default_rng(0)
    arrays = clip_of(rng.integers(0, 255, (41, 32, 32, 3), np.uint8))
    embedded = embed_clip(arrays, video_network, Options(streams=("frames",)))
    table = embedded["trajectory"]
    assert len(table) == len(embedded["rows"]) == 4  # windows of 16, 8 apart
    length = table[:, COLUMNS.index("length")]
    assert np.isnan(length[0]) and (length[1:] > 0).all()
    assert np.nanmax(length) < 2 / (8 / FPS) + 1e-3, "per second: no more than twice its size"
