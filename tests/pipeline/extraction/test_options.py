"""One length for all, which the shortest sound video sets, and what the options change."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.common.errors import SettingsError
from pipeline.settings import Settings
from tests.pipeline.conftest import by_file, reasons, small


@pytest.fixture
def root(tmp_path):
    return tmp_path / "videos"


# ----------------------------------------------------------------------------------- one length


def test_the_shortest_sound_video_sets_the_length(root, make_corpus, extract_from):
    make_corpus(root, (30, 26), (23, 40))
    assert extract_from(root).attrs["frames"] == 23


def test_an_accident_of_5_frames_is_rejected_and_does_not_trim_the_others(
    root, make_corpus, extract_from
):
    make_corpus(root, (24, 5), (22, 26))
    cache = extract_from(root)
    assert cache.attrs["frames"] == 22
    assert reasons(cache) == {"real1.mp4": "too short"}


def test_what_counts_as_an_accident_can_be_set(root, make_corpus, extract_from):
    make_corpus(root, (24, 5), (22, 26))
    assert extract_from(root, min_frames=5).attrs["frames"] == 5


def truncated(root, make_corpus, write_video, moving_texture, cut, ending="mp4"):
    """Sound videos of 30 and 34 frames, and one of 60 that breaks off."""
    make_corpus(root, (30, 34), (30, 34))
    fast = {"movflags": "faststart"} if ending == "mp4" else {}
    path = root / "REAL" / f"broken.{ending}"
    write_video(path, moving_texture(60, 64, 48), container_options=fast)
    return cut(path, 0.4)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_truncated_video_does_not_set_the_length_and_is_rejected_if_it_is_too_short(
    root, make_corpus, write_video, moving_texture, cut, extract_from, ending
):
    truncated(root, make_corpus, write_video, moving_texture, cut, ending)
    cache = extract_from(root)
    assert cache.attrs["frames"] == 30
    assert reasons(cache) == {f"broken.{ending}": "truncated"}
    (row,) = cache.rejected()
    assert re.search(r"at frame \d+", row["detail"])


def test_a_truncated_video_with_enough_sound_frames_is_used(
    root, make_corpus, write_video, moving_texture, cut, extract_from
):
    broken = truncated(root, make_corpus, write_video, moving_texture, cut)
    cache = extract_from(root, frames=18)
    assert broken.name in by_file(cache)
    assert not cache.rejected()


def test_a_video_that_breaks_inside_does_not_set_the_length(
    root, make_corpus, write_video, moving_texture, extract_from
):
    make_corpus(root, (30, 34), (30, 34))
    fast = {"movflags": "faststart"}
    path = write_video(root / "REAL" / "hole.mp4", moving_texture(28), container_options=fast)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)
    cache = extract_from(root)
    assert cache.attrs["frames"] == 30
    assert "hole.mp4" in reasons(cache)


# --------------------------------------------------------------------------------------- options


def test_frames_sets_the_length_and_rejects_what_is_shorter(root, make_corpus, extract_from):
    make_corpus(root, (20, 30), (24, 30))
    cache = extract_from(root, frames=24)
    assert {clip.n_frames for clip in cache.clips} == {24}
    assert set(by_file(cache)) == {"real1.mp4", "fake0.mp4", "fake1.mp4"}
    assert reasons(cache) == {"real0.mp4": "too short"}


def test_stride_keeps_every_second_frame_and_flow_spans_two(root, make_corpus, extract_from):
    make_corpus(root, (32,), (32,))
    whole, half = extract_from(root), extract_from(root, "half", stride=2)
    assert half.attrs["frames"] == 16
    for clip in half.clips:
        frames = whole.read(whole.clip(clip.id), "frames")
        np.testing.assert_array_equal(half.read(clip, "frames"), frames[::2])
    ranges = [c.read(c.clips[0], "flow_range")[:, 1].mean() for c in (whole, half)]
    assert ranges[1] > ranges[0]


def test_fps_samples_all_videos_at_one_rate_and_rejects_slower_ones(
    root, write_video, moving_texture, make_corpus, extract_from
):
    make_corpus(root, (32,), (32,), fps=30)
    write_video(root / "REAL" / "slow.mp4", moving_texture(32), 12)
    write_video(root / "REAL" / "fast.mp4", moving_texture(64, seed=9), 60)
    cache = extract_from(root, fps=15)
    assert reasons(cache) == {"slow.mp4": "frame rate too low"}
    for clip in cache.clips:
        np.testing.assert_allclose(np.diff(cache.read(clip, "timestamps")), 1 / 15, atol=1e-4)


def test_two_clips_are_cut_from_a_video_that_is_long_enough(root, make_corpus, extract_from):
    make_corpus(root, (20, 45), (20, 39))
    cache = extract_from(root, clips=2, frames=20)
    counts = Counter(clip.video for clip in cache.clips)
    names = {Path(path).name: counts[video] for video, path in cache.names().items()}
    assert names == {"real0.mp4": 1, "real1.mp4": 2, "fake0.mp4": 1, "fake1.mp4": 1}
    first, second = (clip for clip in cache.clips if counts[clip.video] == 2)
    assert (first.id, second.id) == (first.video, f"{first.video}-1")
    assert (first.start, second.start) == (0, pytest.approx(20 / 25))
    assert first.split == second.split
    times = np.concatenate([cache.read(clip, "timestamps") for clip in (first, second)])
    np.testing.assert_allclose(times, np.arange(40) / 25, atol=1e-6)


def test_without_frames_the_flow_is_the_same(root, make_corpus, extract_from):
    make_corpus(root, (20,), (20,))
    whole, lean = extract_from(root), extract_from(root, "lean", keep_frames=False)
    for clip in lean.clips:
        assert set(lean.datasets(clip)) == set(whole.datasets(clip)) - {"frames"}
        for key in lean.datasets(clip):
            np.testing.assert_array_equal(
                lean.read(clip, key), whole.read(whole.clip(clip.id), key)
            )


def test_shards_hold_as_many_videos_as_asked_for(root, make_corpus, extract_from):
    make_corpus(root, (20, 24, 41), (20, 24))
    one = extract_from(root, clips=2)
    many = extract_from(root, "many", clips=2, shard_size=2)
    assert [shard.name for shard in many.shards] == [f"shards/{n:05}.h5" for n in range(3)]
    assert [clip.id for clip in one.clips] == [clip.id for clip in many.clips]
    assert len(one.clips) == 6
    for clip, same in zip(one.clips, many.clips, strict=True):
        for key in one.datasets(clip):
            assert np.array_equal(one.read(clip, key), many.read(same, key)), key
    assert all(fault == "" for _, fault in many.verify())


def test_a_shard_holds_what_is_left_of_its_videos(root, make_corpus, extract_from, cut):
    files = make_corpus(root, (20, 24, 24, 24), (20, 24, 24))
    content = bytearray(files["real1"].read_bytes())
    content[2000:3000] = bytes(1000)
    files["real1"].write_bytes(content)
    cache = extract_from(root, shard_size=4, frames=20)
    assert reasons(cache) == {"real1.mp4": "truncated"}
    assert len(cache.clips) == 6
    assert len(cache.shards) == 2


@pytest.mark.parametrize(
    "n_videos,size", [(1, 1), (32, 1), (1999, 1), (2000, 2), (50_000, 50), (10**6, 64)]
)
def test_the_larger_the_corpus_the_more_videos_a_shard_holds(n_videos, size):
    assert Settings().videos_per_shard(n_videos) == size


def test_compression_changes_the_size_alone(root, make_corpus, extract_from):
    make_corpus(root, (20,), (20,))
    usual = extract_from(root)
    other = extract_from(root, "other", compression="none")
    assert other.shards[0].n_bytes > usual.shards[0].n_bytes
    for clip in other.clips:
        np.testing.assert_array_equal(other.read(clip, "flow"), usual.read(clip, "flow"))


def test_the_size_need_not_be_square_and_the_crop_is_of_the_source(
    root, make_corpus, extract_from, moving_texture
):
    make_corpus(root, (20,), (20,), size=(160, 120))
    cache = extract_from(root, width=48, height=40, crop=(100, 60, 48, 40))
    clip = by_file(cache)["real0.mp4"]
    frames = cache.read(clip, "frames")
    assert frames.shape == (20, 40, 48, 3)
    assert cache.read(clip, "flow").shape == (19, 40, 48)
    source = moving_texture(20, 160, 120, seed=1)[:, 60:100, 100:148]
    assert np.abs(frames.astype(int) - source).mean() < 6  # a lossy codec


def test_a_picture_smaller_than_the_crop_is_rejected_and_the_others_are_not(
    root, make_corpus, write_video, moving_texture, extract_from
):
    make_corpus(root, (20, 20), (20, 20), size=(160, 120))
    write_video(root / "REAL" / "small.mp4", moving_texture(20, 96, 72))
    cache = extract_from(root, crop=(60, 60, 64, 48))
    assert reasons(cache) == {"small.mp4": "crop outside the picture"}
    assert len(cache.clips) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"width": 31}, {"height": 0}, {"frames": 1}, {"crop": (0, 0, 0, 10)}, {"crop": (-1, 0, 9, 9)}],
)
def test_settings_that_cannot_work_are_refused_at_once(wrong):
    with pytest.raises(SettingsError) as error:
        small(**wrong)
    assert error.value.hint


def test_settings_survive_the_cache(root, make_corpus, extract_from):
    make_corpus(root, (20,), (20,), size=(160, 120))
    cache = extract_from(root, crop=(60, 60, 64, 48), fps=25.0, seed=3)
    expected = small(crop=(60, 60, 64, 48), fps=25.0, seed=3)
    assert Settings.from_json(cache.settings) == expected
