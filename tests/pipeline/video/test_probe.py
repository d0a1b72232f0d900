"""Each file that cannot be used is told apart, with a reason; of the rest all facts are right."""

import hashlib
import os

import av
import numpy as np
import pytest

from pipeline.common.errors import Rejected
from pipeline.settings import Settings
from pipeline.video.probe import probe, sound_samples

FAST = {"movflags": "faststart"}  # the index in front: what is left of a cut file can be read


def reason(path, *options):
    with pytest.raises(Rejected) as error:
        probe(path, *options)
    return error.value.reason


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for n in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, n * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# ----------------------------------------------------------------------------------------- facts


def test_the_facts_of_a_video_are_right(tmp_path, write_video, moving_texture):
    path = write_video(tmp_path / "v.mp4", moving_texture(30, 96, 72), 25)
    found = probe(path)
    content = path.read_bytes()
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.n_bytes == len(content)
    assert (found.width, found.height) == (96, 72)
    assert found.fps == pytest.approx(25)
    assert found.duration == pytest.approx(30 / 25)
    assert found.bit_rate == pytest.approx(8 * len(content) / 1.2)
    assert (found.n_packets, found.n_promised, found.n_samples) == (30, 30, 30)
    assert not found.short_of_promise


def test_a_title_that_is_no_utf8_is_no_reason_to_reject(tmp_path, write_video, moving_texture):
    path = write_video(tmp_path / "v.mkv", moving_texture(20, 64, 48), 25)
    content = path.read_bytes()
    assert b"Lavf" in content  # of the tag that names the encoder
    path.write_bytes(content.replace(b"Lavf", b"\xff\xfe\x80v"))
    assert probe(path).n_samples == 20


@pytest.mark.parametrize(
    "fps,stride,expected", [(None, 2, 15), (15, 1, 15), (15, 3, 5), (30, 1, 30)]
)
def test_samples_are_counted_at_the_rate_asked_for(
    tmp_path, write_video, moving_texture, fps, stride, expected
):
    path = write_video(tmp_path / "v.mp4", moving_texture(30), 30)
    settings = Settings(fps=fps, stride=stride)
    assert probe(path, settings.rate).n_samples == expected
    rate = settings.rate(30)
    assert sound_samples(path, rate) == expected


@pytest.mark.parametrize(
    "codec,ending,pix_fmt",
    [("gif", "gif", "rgb8"), ("mpeg4", "avi", "yuv420p"), ("libvpx-vp9", "webm", "yuv420p")],
)
def test_other_containers_are_videos_too(
    tmp_path, write_video, moving_texture, codec, ending, pix_fmt
):
    pictures = moving_texture(20)
    path = write_video(tmp_path / f"v.{ending}", pictures, 10, codec=codec, pix_fmt=pix_fmt)
    found = probe(path)
    assert found.fps == pytest.approx(10, rel=1e-3)
    assert found.n_samples == sound_samples(path, found.fps) == 20
    assert not found.short_of_promise


def test_a_video_on_its_side_has_the_size_of_the_upright_picture(sample_videos):
    found = probe(sample_videos / "odd" / "video_90.mov")
    assert (found.width, found.height) == (320, 568)


def test_a_colon_in_a_name_is_no_protocol(tmp_path, write_video, moving_texture, monkeypatch):
    write_video(tmp_path / "v.mp4", moving_texture(20)).rename(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    assert probe(type(tmp_path)("12:30.mp4")).n_samples == 20


def test_a_name_that_is_not_unicode_is_read(tmp_path, write_video, moving_texture):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    os.rename(write_video(tmp_path / "v.mp4", moving_texture(20)), odd)  # noqa: PTH104
    assert probe(type(tmp_path)(odd)).n_samples == 20


# --------------------------------------------------------------------------------------- reasons


def test_random_bytes_are_not_a_video(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    assert reason(path) == "not a video"


@pytest.mark.parametrize("text", ["", "not really a film\n" * 100], ids=["empty", "text"])
def test_a_renamed_text_is_not_a_video(tmp_path, text):
    path = tmp_path / "v.mp4"
    path.write_text(text)
    assert reason(path) == "not a video"


def test_a_playlist_is_not_a_video_it_would_smuggle_in_another_file(
    tmp_path, write_video, moving_texture
):
    write_video(tmp_path / "other.mp4", moving_texture(20))
    path = tmp_path / "v.mp4"
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    assert reason(path) == "not a video"


def test_sound_alone_has_no_video_stream(tmp_path):
    assert reason(write_sound(tmp_path / "v.mp4")) == "no video stream"


def test_a_file_that_is_not_there_is_unreadable(tmp_path):
    assert reason(tmp_path / "gone.mp4") == "unreadable"


def test_a_link_to_nowhere_is_unreadable(tmp_path):
    (tmp_path / "v.mp4").symlink_to(tmp_path / "gone.mp4")
    assert reason(tmp_path / "v.mp4") == "unreadable"


def test_a_folder_is_unreadable(tmp_path):
    (tmp_path / "v.mp4").mkdir()
    assert reason(tmp_path / "v.mp4") == "unreadable"


def test_a_pipe_is_unreadable_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "v.mp4")
    assert reason(tmp_path / "v.mp4") == "unreadable"


def test_a_name_too_long_for_the_file_system_is_unreadable(tmp_path):
    assert reason(tmp_path / ("v" * 300 + ".mp4")) == "unreadable"


def test_a_file_one_may_not_read_is_unreadable(tmp_path, write_video, moving_texture):
    path = write_video(tmp_path / "v.mp4", moving_texture(20))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert reason(path) == "unreadable"


def test_one_frame_is_too_short(tmp_path, write_video, moving_texture):
    assert reason(write_video(tmp_path / "v.mp4", moving_texture(1))) == "too short"


def test_a_video_slower_than_the_rate_asked_for_is_rejected(tmp_path, write_video, moving_texture):
    path = write_video(tmp_path / "v.mp4", moving_texture(20), 24)
    assert reason(path, Settings(fps=30).rate) == "frame rate too low"
    assert probe(path, Settings(fps=24).rate).n_samples == 20


def test_ntsc_rates_pass_for_the_round_ones():
    assert Settings(fps=30).rate(30000 / 1001) == 30
    assert Settings(fps=24, stride=2).rate(24000 / 1001) == 12


def test_a_codec_that_nothing_decodes_is_rejected(tmp_path, write_video, moving_texture):
    path = write_video(tmp_path / "v.avi", moving_texture(20), codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZZZ"))
    assert reason(path) in ("no frame decodes", "not a video", "truncated")


# ------------------------------------------------------------------------------------- truncated


def test_a_cut_file_is_short_of_its_promise(tmp_path, write_video, moving_texture, cut):
    path = write_video(tmp_path / "v.mp4", moving_texture(40), container_options=FAST)
    found = probe(cut(path, 0.6))
    assert found.n_promised == 40
    assert found.n_packets < 35
    assert found.short_of_promise


@pytest.mark.parametrize("codec,ending", [("libx264", "mkv"), ("libvpx-vp9", "webm")])
def test_a_cut_matroska_file_is_short_of_its_promise(
    tmp_path, write_video, moving_texture, cut, codec, ending
):
    path = write_video(tmp_path / f"v.{ending}", moving_texture(40), codec=codec)
    assert not probe(path).short_of_promise
    assert probe(cut(path, 0.6)).short_of_promise


def test_a_cut_file_without_its_index_is_not_a_video(tmp_path, write_video, moving_texture, cut):
    path = write_video(tmp_path / "v.mp4", moving_texture(40))  # the index is at the end
    assert reason(cut(path, 0.6)) == "not a video"


def test_damage_inside_is_found_by_decoding_with_the_frame_it_begins_at(
    tmp_path, write_video, moving_texture
):
    path = write_video(tmp_path / "v.mp4", moving_texture(40), container_options=FAST)
    content = bytearray(path.read_bytes())
    middle = len(content) * 6 // 10
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    with pytest.raises(Rejected, match="at frame") as error:
        sound_samples(path, 25)
    assert error.value.reason == "truncated"
    frame = int(error.value.detail.split()[2].rstrip(":"))
    assert 15 <= frame <= 35


def test_a_real_corrupted_file_promises_50_frames_and_has_28(sample_videos):
    path = sample_videos / "odd" / "corrupted.mp4"
    assert probe(path).n_promised == 50
    with pytest.raises(Rejected, match="at frame 28"):
        sound_samples(path, 10)


def test_real_music_is_not_a_video(sample_videos):
    music = sample_videos / "odd" / "nasa_13013.mp4.audio.mp3"
    assert reason(music) in ("not a video", "no video stream")


def test_real_gifs_are_videos(sample_videos):
    found = probe(sample_videos / "people" / "head-pose-face-detection-female.gif")
    assert (found.width, found.height, found.n_samples) == (480, 270, 23)


def test_a_duration_that_is_no_duration_costs_nothing(write_video, moving_texture, tmp_path):
    path = write_video(tmp_path / "v.mkv", moving_texture(20))
    whole = path.read_bytes()
    at = whole.index(b"00:00:00.", whole.index(b"DURATION"))
    path.write_bytes(whole[:at] + b"unknown--" + whole[at + 9 :])
    assert probe(path).n_samples == 20
