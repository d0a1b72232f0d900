"""Each kind of own fakes: what it changes, where, and that it does so again."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.own_fakes.changes import Change, Renderer
from pipeline.own_fakes.clip import whole_clip
from pipeline.own_fakes.kinds import (
    KINDS,
    MAX_SLIP,
    ON_A_FACE,
    _noise,
    draw_mixture,
    lag,
    swap,
    whole,
)
from pipeline.own_fakes.masks import FACE_SHAPES, draw_mask
from pipeline.own_fakes.swapping import matched_colours, matching_frames


@pytest.fixture
def fake(clip, donor):
    """Returns the frames (T, H, W, 3) and masks (T, H, W) of a fake of one kind."""

    def make(kind, seed=0, strength=1.0, clip=clip):
        rng = np.random.default_rng(seed)
        if kind == "whole":
            clip = whole_clip(clip.frames, clip.rate)
            change = whole(Change(), clip, rng, strength)
        elif kind == "swap":
            change = swap(Change(), clip, rng, strength, donor)
        else:
            change = ON_A_FACE[kind](Change(), clip, rng, strength)
        mask = draw_mask(change.region, clip.template, rng)
        frames, masks = zip(*Renderer(clip, change, mask).frames(), strict=True)
        return np.stack(frames), np.stack(masks)

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_at_no_strength_a_fake_is_its_original(fake, clip, kind):
    for seed in range(3):
        frames, _ = fake(kind, seed, strength=0.0)
        np.testing.assert_array_equal(frames, clip.frames)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_outside_the_mask_changes_and_something_inside_does(fake, clip, kind):
    for seed in range(3):
        frames, masks = fake(kind, seed)
        changed = (frames != np.stack(clip.frames)).any(axis=3)
        assert not changed[masks == 0].any()
        assert changed[masks > masks.max() / 2].mean() > 0.2
        assert changed.any()
        assert (masks == 0).any() == (kind != "whole")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_depends_on_the_seed_alone(fake, kind):
    once, again, other = fake(kind, 1), fake(kind, 1), fake(kind, 2)
    np.testing.assert_array_equal(once[0], again[0])
    np.testing.assert_array_equal(once[1], again[1])
    assert (once[0] != other[0]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_twice_the_strength_changes_more(fake, clip, kind):
    def change(strength):
        frames, _ = fake(kind, 3, strength)
        return np.abs(frames.astype(float) - np.stack(clip.frames)).mean()

    assert change(0.3) < change(1.0)


def test_the_original_frames_are_not_written_to(fake, clip):
    before = np.stack(clip.frames)
    for kind in KINDS:
        fake(kind)
    np.testing.assert_array_equal(before, clip.frames)


def test_frames_without_a_face_stay_as_they_are(fake, clip):
    presence = np.ones(len(clip))
    presence[8:12] = 0
    hidden = replace(clip, presence=presence)
    for kind in ON_A_FACE:
        frames, masks = fake(kind, clip=hidden)
        np.testing.assert_array_equal(frames[8:12], clip.frames[8:12])
        assert not masks[8:12].any() and masks[:8].any()


def test_a_cut_is_not_looked_across(fake, clip):
    """Frames after a cut do not depend on what was before it."""
    other = [np.full_like(frame, 255) for frame in clip.frames[:10]]
    shots = np.repeat([0, 1], [10, len(clip) - 10])
    one = replace(clip, shots=shots)
    two = replace(clip, shots=shots, frames=[*other, *clip.frames[10:]])
    for kind in ("lag", "smooth", "mouth"):
        for seed in range(4):
            a, b = fake(kind, seed, clip=one)[0], fake(kind, seed, clip=two)[0]
            np.testing.assert_array_equal(a[10:], b[10:])


def test_a_late_face_is_drawn_where_the_head_was_but_never_far_off(clip):
    poses = clip.poses.copy()
    unit = np.linalg.norm(poses[0, :2, 0])
    poses[:] = poses[0]
    poses[:, 0, 2] += 0.02 * unit * np.arange(len(poses))  # to the right
    moving = replace(clip, poses=poses)
    for seed in range(5):
        motion = lag(Change(), moving, np.random.default_rng(seed), 1.0).motion
        # The content of a place is taken from further right: it is drawn to the left, late.
        assert (motion[5:, 0, 2] > 0.004).all()
        assert np.abs(motion[:, 0, 2]).max() <= MAX_SLIP[1]


@pytest.mark.parametrize("tau", [0.3, 1.0, 4.0])
def test_noise_has_unit_variance_and_the_correlation_time_that_was_asked_for(tau):
    noise = _noise(4000, 4, tau, np.random.default_rng(0))
    assert noise.std() == pytest.approx(1, abs=0.1)
    next_one = (noise[:, 1:] * noise[:, :-1]).mean()
    # A Gaussian filter of sigma tau correlates neighbours by exp(-1 / (4 tau²)).
    assert next_one == pytest.approx(np.exp(-1 / (4 * tau**2)), abs=0.07)


def test_the_mouth_kind_leaves_the_eyes_alone(fake, clip):
    _, masks = fake("mouth")
    for mask, pose in zip(masks, clip.poses, strict=True):
        x, y = np.rint(pose[:2] @ np.column_stack([clip.template, np.ones(5)]).T).astype(int)
        assert not mask[y[:2], x[:2]].any()
        assert mask[y[3:], x[3:]].min() > 0


def test_masks_vary_in_shape_and_softness_and_end_within_their_canvas(clip):
    masks = [draw_mask("face", clip.template, np.random.default_rng(n)) for n in range(30)]
    areas = [(mask > 0.5).mean() for mask in masks]
    softness = [((mask > 0.1) & (mask < 0.9)).mean() for mask in masks]
    assert max(areas) > 2 * min(areas) and max(softness) > 2 * min(softness)
    for mask in masks:
        assert mask.max() > 0.9
        assert not (mask[[0, -1]].any() or mask[:, [0, -1]].any())
    assert len(FACE_SHAPES) > 4


def test_a_swap_takes_at_each_moment_the_pose_that_is_most_alike(clip):
    np.testing.assert_array_equal(matching_frames(clip, clip)[3:-3], np.arange(len(clip))[3:-3])


def test_a_swapped_face_gets_the_colours_of_the_clip(clip, donor):
    np.testing.assert_allclose(matched_colours(clip, clip)[0], np.eye(3), atol=1e-9)
    matrix, bias = matched_colours(clip, donor)
    assert (np.diag(matrix) > 0.5).all() and np.isfinite(bias).all()


def test_mixtures_keep_to_the_kinds_that_were_chosen():
    rng = np.random.default_rng(0)
    drawn = [draw_mixture("mouth", ("mouth", "drift"), rng) for _ in range(50)]
    assert set(drawn) == {("mouth",), ("drift", "mouth")}
    assert all(draw_mixture("whole", KINDS, rng) == ("whole",) for _ in range(20))
    assert max(len(draw_mixture("blend", KINDS, rng)) for _ in range(50)) == 3
