"""Frames come at equal intervals of time, upright, unsqueezed and in the right colours."""

import struct

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common.errors import Rejected
from pipeline.video.decode import at_equal_intervals, count_samples, frame_rate
from pipeline.video.resize import Geometry
from tests.pipeline.video.conftest import decode

WHOLE = Geometry(96, 72)
STEP = 8  # grey levels between two frames of a numbered video: well above any coding error
RED, GREEN, BLUE = (220, 20, 20), (20, 200, 20), (20, 20, 220)
COLOUR_ERROR = 12  # of 255: a lossy codec, and YUV in 8 bits
# Matrices of an MP4 track header, by the clockwise turn they ask a player for.
TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def numbered(n, width=96, height=72):
    """Frames that say by their grey level which they are."""
    return np.stack([np.full((height, width, 3), STEP * i, np.uint8) for i in range(n)])


def numbers(decoded):
    return [round(float(frame.mean()) / STEP) for _, frame, _ in decoded]


def times(decoded):
    return [item[0] for item in decoded]


def bars(*colours, size=(96, 72), across=True, n=4):
    """Bars of equal width side by side, or of equal height on top of each other."""
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    for part, colour in zip(
        np.array_split(picture, len(colours), axis=1 if across else 0), colours, strict=True
    ):
        part[:] = colour
    return np.stack([picture] * n)


def turn(video, degrees):
    """Let a video's track header ask for a turn, as a phone held upright does."""
    content = bytearray(video.read_bytes())
    at = content.index(b"tkhd") + 44
    for offset, value in zip((0, 4, 12, 16), TURNS[degrees], strict=True):
        struct.pack_into(">i", content, at + offset, value << 16)
    video.write_bytes(content)
    return video


def first(path, geometry=WHOLE):
    return next(iter(decode(path, geometry, 25)))[1]


def shows(part, colour):
    return np.abs(part.astype(int) - colour).max() <= COLOUR_ERROR


# ------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("fps", [24, 25, 30])
def test_at_its_own_rate_every_frame_of_a_video_is_kept_once(tmp_path, write_video, fps):
    path = write_video(tmp_path / "v.mp4", numbered(24), fps)
    decoded = list(decode(path, WHOLE, fps))
    assert numbers(decoded) == list(range(24))
    np.testing.assert_allclose(times(decoded), np.arange(24) / fps, atol=1e-6)


def test_at_half_the_rate_every_second_frame_is_kept(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", numbered(24), 30)
    assert numbers(decode(path, WHOLE, 15)) == list(range(0, 24, 2))


@pytest.mark.parametrize("rate", [15, np.nextafter(15, 16), np.nextafter(15, 14)])
def test_frames_half_way_between_two_ticks_fill_both_whatever_the_last_bits(rate):
    grid = np.cumsum([0, *[2, 1] * 200])  # of 30 a second: 0, 2, 3, 5, 6, 8, 9, ...
    taken = times(at_equal_intervals(((n / 30, n) for n in grid), rate))
    assert np.diff(taken).max() < 1.6 / 15
    assert len(taken) >= 300


@pytest.mark.parametrize("stride", range(2, 8))
def test_with_a_stride_the_last_interval_is_as_long_as_the_others(stride):
    for n in range(17, 24):
        video = [(i / 30, i) for i in range(n)]
        taken = [frame for _, frame in at_equal_intervals(video, 30 / stride)]
        assert taken == list(range(0, n, stride))
        assert count_samples(np.array([time for time, _ in video]), 30 / stride) == len(taken)


def test_30_frames_a_second_sampled_at_25_skip_one_in_six(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", numbered(30), 30)
    decoded = list(decode(path, WHOLE, 25))
    assert len(decoded) == 25
    ticks = np.array(times(decoded)) * 25
    assert np.abs(ticks - np.arange(25)).max() < 0.5


def test_the_last_frame_before_the_damage_counts():
    def frames():
        yield from ((n / 25, n) for n in range(5))
        raise Rejected("truncated", "at frame 5")

    given = []
    with pytest.raises(Rejected, match="at frame 5"):
        given.extend(at_equal_intervals(frames(), 25))
    assert [n for _, n in given] == [0, 1, 2, 3, 4]


def test_in_a_variable_frame_rate_intervals_are_equal_in_time(tmp_path, write_video):
    fast = [20 * n for n in range(11)]  # 50 frames/s up to 0.2 s, then 25
    slow = [200 + 40 * n for n in range(1, 11)]
    path = write_video(tmp_path / "v.mp4", numbered(21), milliseconds=fast + slow)
    decoded = list(decode(path, WHOLE, 25))
    assert numbers(decoded) == [*range(0, 11, 2), *range(11, 21)]
    np.testing.assert_allclose(np.diff(times(decoded)), 0.04, atol=1e-6)


def test_a_gap_stays_a_gap_and_no_picture_stands_still(tmp_path, write_video):
    moments = [40 * n + (1000 if n >= 10 else 0) for n in range(20)]
    path = write_video(tmp_path / "v.mp4", numbered(20), milliseconds=moments)
    decoded = list(decode(path, WHOLE, 25))
    assert numbers(decoded) == list(range(20))
    np.testing.assert_allclose(times(decoded), np.array(moments) / 1000, atol=1e-6)


def test_sampling_faster_than_the_video_repeats_nothing(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", numbered(12), 10)
    assert numbers(decode(path, WHOLE, 30)) == list(range(12))


moments = st.lists(st.integers(0, 20_000), min_size=1, max_size=80, unique=True).map(
    lambda ms: [m / 1000 for m in sorted(ms)]
)
rates = st.sampled_from([1.0, 5.0, 12.5, 24000 / 1001, 25.0, 29.97, 30.0, 59.94, 100.0])


@settings(max_examples=60, deadline=None)
@given(moments, rates)
def test_counting_samples_agrees_with_taking_them(moments, rate):
    taken = list(at_equal_intervals(((m, m) for m in moments), rate))
    assert count_samples(np.array(moments), rate) == len(taken)


@settings(max_examples=60, deadline=None)
@given(moments, rates)
def test_samples_are_frames_in_order_none_twice_and_for_each_tick_the_nearest(moments, rate):
    taken = times(at_equal_intervals(((m, m) for m in moments), rate))
    assert taken == sorted(set(taken) & set(moments))
    positions = (np.array(moments) - moments[0]) * rate
    sampled = (np.array(taken) - moments[0]) * rate
    assert np.diff(np.round(sampled + 1e-3)).min(initial=1) >= 0
    assert len(taken) <= len({*np.round(positions + 1e-3), *np.round(positions - 1e-3)})
    for tick in range(int(positions[-1] - 0.5) + 1):  # the last may lie beyond the end
        nearest = np.abs(positions - tick).min()
        if nearest < 0.499:  # what is half-way may go either way
            assert np.abs(sampled - tick).min() == pytest.approx(nearest, abs=1e-6)


def test_no_frames_make_no_samples():
    assert count_samples(np.array([]), 25) == 0
    assert list(at_equal_intervals([], 25)) == []


def test_the_frame_rate_of_a_video_with_dropped_frames_is_that_of_the_others():
    kept = np.delete(np.arange(100) / 30, [20, 21, 70])
    assert frame_rate(kept) == pytest.approx(30)


def test_the_frame_rate_of_a_variable_rate_seldom_meets_a_gap():
    gaps = np.tile([0.02, 0.05], 50)
    assert frame_rate(np.cumsum(gaps)) == pytest.approx(20)


def test_one_moment_has_no_frame_rate():
    with pytest.raises(Rejected, match="too short"):
        frame_rate(np.array([1.0, 1.0]))


# -------------------------------------------------------------------------------------- geometry


def test_a_wide_picture_is_cut_at_both_sides_not_squeezed(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", bars(RED, GREEN, GREEN, BLUE, size=(144, 72)))
    assert shows(first(path, Geometry(64, 64))[:, 4:-4], GREEN)


def test_a_tall_picture_is_cut_above_and_below(tmp_path, write_video):
    pictures = bars(RED, GREEN, GREEN, BLUE, size=(72, 144), across=False)
    path = write_video(tmp_path / "v.mp4", pictures)
    assert shows(first(path, Geometry(64, 64))[4:-4], GREEN)


def test_where_the_aspect_fits_nothing_is_cut(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", bars(RED, GREEN, BLUE, size=(144, 72)))
    frame = first(path, Geometry(96, 48))
    assert frame.shape == (48, 96, 3)
    for part, colour in zip(np.array_split(frame, 3, axis=1), (RED, GREEN, BLUE), strict=True):
        assert shows(part[:, 4:-4], colour)


def test_a_crop_keeps_its_box_alone(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", bars(RED, GREEN, BLUE, size=(144, 72)))
    assert shows(first(path, Geometry(32, 32, crop=(50, 10, 44, 44))), GREEN)


def test_a_crop_is_cut_about_its_own_centre_to_the_aspect_of_the_result():
    assert Geometry(64, 64, crop=(10, 20, 100, 40)).box(320, 240) == (40, 20, 40, 40)
    assert Geometry(64, 32, crop=(10, 20, 40, 100)).box(320, 240) == (10, 60, 40, 20)


@settings(max_examples=60, deadline=None)
@given(*[st.integers(1, 4000)] * 2, *[st.integers(32, 1024)] * 2)
def test_the_box_lies_in_the_picture_in_its_middle_and_has_the_aspect_of_the_result(
    width, height, w, h
):
    x, y, kept_w, kept_h = Geometry(w, h).box(width, height)
    assert kept_w >= 1 and kept_h >= 1
    assert abs((width - kept_w) - 2 * x) <= 1 and abs((height - kept_h) - 2 * y) <= 1
    assert kept_w == width or kept_h == height
    assert abs(kept_w * h - kept_h * w) < max(w, h)  # less than one pixel off


@pytest.mark.parametrize("crop", [(0, 0, 97, 72), (90, 0, 10, 10), (0, 70, 10, 10)])
def test_a_crop_outside_the_picture_is_rejected(tmp_path, write_video, crop):
    path = write_video(tmp_path / "v.mp4", numbered(3))
    with pytest.raises(Rejected, match="crop outside the picture"):
        first(path, Geometry(32, 32, crop=crop))


@pytest.mark.parametrize("codec,pix_fmt", [("ffv1", "yuv420p"), ("libx264", "yuv444p")])
def test_odd_sizes_are_decoded(tmp_path, write_video, moving_texture, codec, pix_fmt):
    pictures = moving_texture(5, 97, 51)
    path = write_video(tmp_path / "v.mkv", pictures, codec=codec, pix_fmt=pix_fmt)
    decoded = [frame for _, frame, _ in decode(path, Geometry(97, 51), 25)]
    assert np.shape(decoded) == (5, 51, 97, 3)
    assert np.abs(np.array(decoded, int) - pictures).mean() < COLOUR_ERROR


@pytest.mark.parametrize(
    "degrees,top_and_bottom", [(90, (RED, BLUE)), (270, (BLUE, RED))], ids=["90", "270"]
)
def test_a_picture_on_its_side_is_put_upright(tmp_path, write_video, degrees, top_and_bottom):
    path = turn(write_video(tmp_path / "v.mp4", bars(RED, BLUE, size=(96, 64))), degrees)
    frame = first(path, Geometry(64, 96))
    assert shows(frame[:40], top_and_bottom[0])
    assert shows(frame[-40:], top_and_bottom[1])


def test_a_picture_upside_down_is_put_upright(tmp_path, write_video):
    path = turn(write_video(tmp_path / "v.mp4", bars(RED, GREEN, BLUE)), 180)
    frame = first(path)
    assert shows(frame[:, :24], BLUE)
    assert shows(frame[:, -24:], RED)


def test_a_crop_is_taken_of_the_upright_picture(tmp_path, write_video):
    path = turn(write_video(tmp_path / "v.mp4", bars(RED, BLUE, size=(96, 64))), 90)
    assert shows(first(path, Geometry(32, 32, crop=(0, 56, 32, 32))), BLUE)


# --------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize(
    "codec,ending,pix_fmt",
    [
        ("libx264", "mp4", "yuv420p"),
        ("mpeg4", "avi", "yuv420p"),
        ("libvpx-vp9", "webm", "yuv420p"),
        ("ffv1", "mkv", "yuv444p"),
        ("gif", "gif", "rgb8"),
    ],
)
def test_channels_are_red_green_blue(tmp_path, write_video, codec, ending, pix_fmt):
    colours = (RED, GREEN, BLUE)
    path = write_video(tmp_path / f"v.{ending}", bars(*colours), codec=codec, pix_fmt=pix_fmt)
    frame = first(path)
    assert frame.dtype == np.uint8
    error = 36 if pix_fmt == "rgb8" else COLOUR_ERROR  # 3-3-2 bits, dithered
    for part, colour in zip(np.array_split(frame, 3, axis=1), colours, strict=True):
        assert np.abs(part[:, 4:-4].mean(axis=(0, 1)) - colour).max() <= error


# ---------------------------------------------------------------------------------------- damage


def test_frames_before_the_damage_are_given_then_it_is_named(
    tmp_path, write_video, moving_texture, cut
):
    fast = {"movflags": "faststart"}
    path = write_video(tmp_path / "v.mp4", moving_texture(30), container_options=fast)
    path.write_bytes(path.read_bytes()[:-6000] + bytes(6000))
    given = []
    with pytest.raises(Rejected) as error:
        given.extend(decode(path, WHOLE, 25))
    assert error.value.reason == "truncated"
    assert "at frame" in error.value.detail


# ------------------------------------------------------------------------------------ real clips


@pytest.mark.parametrize(
    "name", ["h264_10bits.mp4", "h265_10bits.mp4", "h265_video.mp4", "av1_video.mkv"]
)
def test_modern_codecs_and_ten_bits_decode(sample_videos, name):
    decoded = list(decode(sample_videos / "odd" / name, WHOLE, 10))
    assert len(decoded) >= 10
    assert all(frame.shape == (72, 96, 3) and frame.std() > 5 for _, frame, _ in decoded)


@pytest.mark.parametrize("name,turns", [("video_90", 3), ("video_180", 2), ("video_270", 1)])
def test_real_rotated_clips_come_upright(sample_videos, name, turns):
    """`turns` is in quarters counter-clockwise, as the file's display matrix asks."""
    path = sample_videos / "odd" / f"{name}.mov"
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
    assert round(stored.rotation) % 360 == 90 * turns
    upright = np.rot90(stored.to_ndarray(format="rgb24"), turns)
    height, width = upright.shape[:2]
    decoded = first(path, Geometry(width, height))
    assert np.abs(decoded.astype(int) - upright).mean() < 2  # another rounding of chroma


def test_a_real_variable_frame_rate_is_evened_out(sample_videos):
    path = sample_videos / "odd" / "var_fps_video.mp4"
    intervals = np.diff(times(decode(path, WHOLE, 15)))
    uneven = np.abs(intervals - 1 / 15) > 1 / 30 + 1e-6  # it has 30 frames a second at most
    assert uneven.sum() <= 1  # its one gap of half a second
