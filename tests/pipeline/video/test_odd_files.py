"""Odd but valid videos: what `docs/videos.md` says is done with each is what is done."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition

from pipeline.common.errors import Rejected
from pipeline.video.probe import probe
from pipeline.video.resize import Geometry
from tests.pipeline.video.conftest import decode

SIZE = (96, 72)
WHOLE = Geometry(*SIZE)


def grey(values):
    """Pictures of one grey each: (T, 72, 96, 3)."""
    return np.stack([np.full((72, 96, 3), value, np.uint8) for value in values])


def striped(colours, shares):
    """One picture of vertical stripes, so many pixels wide."""
    columns = np.repeat(np.array(colours, np.uint8), shares, axis=0)
    return np.broadcast_to(columns, (72, *columns.shape))


def greys(path, rate=25):
    """The grey in the middle of each decoded frame."""
    return [int(frame[30:40, 40:50].mean().round()) for _, frame, _ in decode(path, WHOLE, rate)]


def steps(n):
    return [20 + 7 * k for k in range(n)]


def close(found, expected):
    return len(found) == len(expected) and np.abs(np.subtract(found, expected)).max() <= 3


# ------------------------------------------------------------------------------------ the picture


def test_of_interlaced_frames_one_field_is_used(tmp_path, write_video):
    comb = np.zeros((4, 72, 96, 3), np.uint8)
    comb[:, ::2] = 255  # the moment of the first field is white, that of the second black
    half = Geometry(48, 36)
    flags = {"flags": "+ildct+ilme", "b": "20M"}
    interlaced = write_video(tmp_path / "i.mpg", comb, codec="mpeg2video", options=flags)
    progressive = write_video(tmp_path / "p.mpg", comb, codec="mpeg2video", options={"b": "20M"})
    _, one_moment, _ = next(decode(interlaced, half, 25))
    _, both, _ = next(decode(progressive, half, 25))
    assert one_moment.mean() > 245
    assert 100 < both.mean() < 155


def test_a_crop_is_of_the_whole_picture_also_where_one_field_is_used(tmp_path, write_video):
    picture = grey([0] * 3)
    picture[:, 40:60, 48:80] = 255
    flags = {"flags": "+ildct+ilme", "b": "20M"}
    path = write_video(tmp_path / "i.mpg", picture, codec="mpeg2video", options=flags)
    _, frame, _ = next(decode(path, Geometry(32, 20, (48, 40, 32, 20)), 25))
    assert frame[2:-2, 2:-2].min() > 200


def test_what_is_shown_wide_is_cut_as_it_is_shown(tmp_path):
    """Pixels twice as wide as high: a square in the middle is 36 of them wide and 72 high."""
    red, green = (255, 0, 0), (0, 255, 0)
    picture = striped([red, green, red], [30, 36, 30])
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv444p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    _, frame, _ = next(decode(tmp_path / "wide.mp4", Geometry(64, 64), 25))
    assert (np.abs(frame[:, 2:-2].astype(int) - green) < 30).all()


def test_wide_pixels_are_narrow_on_a_picture_on_its_side():
    assert Geometry(64, 64).box(96, 72, Fraction(2)) == (30, 0, 36, 72)
    assert Geometry(64, 64).box(72, 96, Fraction(1, 2)) == (0, 30, 72, 36)


@pytest.mark.parametrize(
    ("codec", "ending", "pix_fmt"),
    [("qtrle", "mov", "argb"), ("prores_ks", "mov", "yuva444p10le"), ("png", "mov", "rgba")],
)
def test_alpha_is_dropped_and_the_colour_kept(tmp_path, codec, ending, pix_fmt):
    path = tmp_path / f"v.{ending}"
    picture = np.zeros((72, 96, 4), np.uint8)
    picture[:, :] = (200, 40, 40, 0)  # red, and not to be seen at all
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        container.mux(stream.encode())
    _, frame, _ = next(decode(path, WHOLE, 25))
    assert (np.abs(frame.astype(int) - (200, 40, 40)) < 8).all()


@pytest.mark.parametrize(
    ("codec", "ending", "pix_fmt"),
    [
        ("libx264", "mp4", "yuv422p"),
        ("libx264", "mp4", "yuv444p"),
        ("libx264", "mp4", "yuv420p10le"),
        ("ffv1", "mkv", "yuv422p10le"),
        ("ffv1", "mkv", "yuv420p16le"),
        ("libx264", "mp4", "yuvj420p"),
    ],
)
def test_ten_bits_and_every_subsampling_give_the_same_colours(
    tmp_path, write_video, codec, ending, pix_fmt
):
    picture = np.stack([striped([(200, 60, 60), (60, 60, 200)], [48, 48])] * 3)
    path = write_video(tmp_path / f"v.{ending}", picture, codec=codec, pix_fmt=pix_fmt)
    _, frame, _ = next(decode(path, WHOLE, 25))
    assert (np.abs(frame[:, 4:40].astype(int) - (200, 60, 60)) < 8).all()
    assert (np.abs(frame[:, 56:92].astype(int) - (60, 60, 200)) < 8).all()


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
def test_grey_videos_have_three_equal_channels(tmp_path, write_video, pix_fmt):
    path = write_video(tmp_path / "v.mkv", grey([30, 130]), codec="ffv1", pix_fmt=pix_fmt)
    for (_, frame, _), value in zip(decode(path, WHOLE, 25), (30, 130), strict=True):
        assert (np.ptp(frame, axis=2) == 0).all()
        assert abs(frame.mean() - value) < 2


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p"], ids=["limited range", "full range"])
def test_white_is_white_and_black_is_black_in_every_range(tmp_path, write_video, pix_fmt):
    path = write_video(tmp_path / "v.mp4", grey([0, 255, 128]), pix_fmt=pix_fmt)
    assert close(greys(path), [0, 255, 128])


# --------------------------------------------------------------------------------------- streams


def with_streams(path, *pictures, codec="mjpeg", art=()):
    """A file with a video stream of each grey; those in ``art`` are cover pictures."""
    with av.open(str(path), "w") as container:
        streams = []
        for n, _ in enumerate(pictures):
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p"
            if n in art:
                stream.disposition = Disposition.attached_pic
            streams.append(stream)
        for n, (stream, values) in enumerate(zip(streams, pictures, strict=True)):
            for picture in grey(values)[: 1 if n in art else None]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return path


def test_of_several_video_streams_the_first_is_used(tmp_path):
    path = with_streams(tmp_path / "v.mkv", [40] * 5, [200] * 5)
    assert close(greys(path), [40] * 5)


def test_a_cover_picture_is_not_the_video(tmp_path):
    path = with_streams(tmp_path / "v.mp4", [250], steps(6), art={0})
    with av.open(str(path)) as container:
        assert any(s.disposition & Disposition.attached_pic for s in container.streams.video)
    assert close(greys(path), steps(6))
    assert probe(path).n_packets == 6


def test_music_with_a_cover_picture_has_no_video_stream(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        art = container.add_stream("mjpeg", rate=25)
        art.width, art.height, art.pix_fmt = *SIZE, "yuvj420p"
        art.disposition = Disposition.attached_pic
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        samples.rate = 8000
        container.mux(sound.encode(samples))
        container.mux(art.encode(av.VideoFrame.from_ndarray(grey([9])[0], format="rgb24")))
        container.mux(sound.encode())
        container.mux(art.encode())
    with pytest.raises(Rejected, match="no video stream"):
        probe(tmp_path / "song.mp4")


# ------------------------------------------------------------------------------------------ time


def test_frames_that_are_stored_out_of_order_come_in_order(tmp_path, write_video):
    options = {"bf": "3", "b-adapt": "0", "preset": "fast"}
    path = write_video(tmp_path / "v.mp4", grey(steps(20)), options=options)
    with av.open(str(path)) as container:
        stored = [p.pts for p in container.demux(video=0) if p.pts is not None]
    assert stored != sorted(stored)
    assert close(greys(path), steps(20))


def test_a_stream_without_timestamps_is_timed_by_its_rate(tmp_path, write_video):
    path = write_video(tmp_path / "v.h264", grey(steps(12)), 25, options={"bf": "0"})
    moments, _, _ = zip(*decode(path, WHOLE, 25), strict=True)
    assert np.allclose(np.diff(moments), 1 / 25)
    assert close(greys(path), steps(12))
    assert probe(path).n_samples == 12


def retimed(path, milliseconds):
    """Give the blocks of a Matroska file, of one cluster, other times."""
    content = bytearray(path.read_bytes())
    at, n = 0, 0
    while (at := content.find(b"\xa3", at, len(content) - 12)) >= 0:
        length = 9 - int(content[at + 1]).bit_length()  # of the size field
        head = at + 1 + length
        if 1 <= length <= 8 and content[head : head + 1] == b"\x81" and content[head + 3] == 0x80:
            content[head + 1 : head + 3] = struct.pack(">h", milliseconds[n])
            n += 1
            at = head
        at += 1
    assert n == len(milliseconds)
    path.write_bytes(content)
    return path


def test_frames_that_repeat_or_go_back_in_time_are_left_out(tmp_path, write_video):
    path = write_video(tmp_path / "v.mkv", grey(steps(6)), 25, codec="mjpeg", pix_fmt="yuvj420p")
    retimed(path, [0, 40, 40, 80, 20, 120])
    assert close(greys(path), [steps(6)[n] for n in (0, 1, 3, 5)])


def test_a_video_in_which_no_time_passes_is_too_short(tmp_path, write_video):
    path = write_video(tmp_path / "v.mkv", grey(steps(6)), 25, codec="mjpeg", pix_fmt="yuvj420p")
    with pytest.raises(Rejected, match="too short"):
        probe(retimed(path, [0] * 6))


def test_frames_that_an_edit_list_hides_are_not_used(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", grey(steps(12)), 25, codec="mjpeg", pix_fmt="yuvj420p")
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 4 + 8
    with av.open(str(path)) as container:
        per_frame = Fraction(1, 25) / container.streams.video[0].time_base
    content[at + 4 : at + 8] = struct.pack(">i", int(5 * per_frame))  # where the edit begins
    path.write_bytes(content)
    assert close(greys(path), steps(12)[5:])
    assert probe(path).n_samples == 7


def test_a_stream_that_starts_late_is_sampled_from_its_first_frame(tmp_path, write_video):
    late = [3000 + 40 * n for n in range(12)]
    path = write_video(tmp_path / "v.mkv", grey(steps(12)), 25, milliseconds=late)
    first, _, _ = next(decode(path, WHOLE, 25))
    assert first > 1
    assert close(greys(path), steps(12))


# ----------------------------------------------------------------------------------------- bombs


def test_a_picture_larger_than_any_camera_makes_is_not_decoded(tmp_path):
    """A GIF of a few bytes that claims 12,000 x 12,000 pixels."""
    head = b"GIF89a" + struct.pack("<HHBBB", 12_000, 12_000, 0x80, 0, 0) + bytes(6)
    image = b"," + struct.pack("<HHHHB", 0, 0, 12_000, 12_000, 0) + b"\x02\x02\x4c\x01\x00"
    (tmp_path / "bomb.gif").write_bytes(head + image * 3 + b";")
    with pytest.raises(Rejected, match=r"too large.*12000x12000"):
        probe(tmp_path / "bomb.gif")


def test_a_video_of_more_frames_than_anybody_films_is_too_long(tmp_path, write_video, monkeypatch):
    monkeypatch.setattr("pipeline.video.probe.MAX_FRAMES", 9)
    monkeypatch.setattr("pipeline.video.decode.MAX_FRAMES", 9)
    path = write_video(tmp_path / "v.mp4", grey(steps(10)), 1000)
    with pytest.raises(Rejected, match="too long"):
        probe(path)
    with pytest.raises(Rejected, match="too long"):
        list(decode(path, WHOLE, 1000))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("sizes", [((96, 72), (48, 36)), ((48, 36), (96, 72))])
def test_a_video_that_changes_its_size_is_used_up_to_there(tmp_path, write_video, codec, sizes):
    """Two streams, one after the other, as a broken recorder joins them."""
    parts = []
    for n, (width, height) in enumerate(sizes):
        frames = np.full((12, height, width, 3), 60 + 90 * n, np.uint8)
        options = {"preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {}
        suffix = "h264" if codec == "libx264" else "m2v"
        part = tmp_path / f"{n}.{suffix}"
        parts.append(write_video(part, frames, 25, codec=codec, options=options))
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = []
    with pytest.raises(Rejected) as rejected:
        for frame in decode(joined, WHOLE, 25):
            found.append(frame.rgb.copy())
    (w, h), (other_w, other_h) = sizes
    assert rejected.value.reason == "truncated"
    assert f"from {w}x{h} yuv420p to {other_w}x{other_h} yuv420p" in rejected.value.detail
    assert 10 <= len(found) <= 12
    assert all(abs(float(frame.mean()) - 60) < 4 for frame in found)
