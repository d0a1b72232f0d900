"""H.264 is the same bytes whatever the processor can."""

import platform
from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.video.encode import write_h264

OLD = "asm=sse4.2"  # what any x86 processor has had for fifteen years


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors differ otherwise")
@pytest.mark.parametrize("preset", ["superfast", "veryfast"])
def test_a_new_processor_writes_the_bytes_of_an_old_one(tmp_path, moving_texture, preset):
    frames = moving_texture(40, 400, 304)
    contents = []
    for params in [(), (OLD,)] * 2:
        video = tmp_path / "a.mp4"
        write_h264(video, enumerate(frames), 25, preset=preset, crf=10, x264=params)
        contents.append(video.read_bytes())
    assert len(set(contents)) == 1


def test_frames_keep_their_times_and_odd_sides_get_a_line_of_pixels(tmp_path, moving_texture):
    frames = np.repeat(moving_texture(4, 97, 71)[..., :1], 3, axis=-1)  # grey: 4:2:0 blurs colour
    times = [0, 40, 120, 130]
    path = tmp_path / "a.mp4"
    write_h264(
        path,
        zip(times, frames, strict=True),
        25,
        time_base=Fraction(1, 1000),
        crf=4,
        pixel_aspect=Fraction(4, 3),
    )
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio == Fraction(4, 3)
        decoded = list(container.decode(video=0))
    assert [round(1000 * frame.time) for frame in decoded] == times
    pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    assert pictures.shape == (4, 72, 98, 3)
    assert np.abs(pictures[:, :71, :97].astype(int) - frames).mean() < 2


def test_a_film_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write_h264(tmp_path / "a.mp4", iter([]), 25)
