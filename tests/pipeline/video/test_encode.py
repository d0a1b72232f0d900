"""H.264 is the same bytes whatever the processor can."""

import platform

import pytest

from pipeline.video.encode import x264_params

OLD = "asm=sse4.2"  # what any x86 processor has had for fifteen years


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors differ otherwise")
@pytest.mark.parametrize("preset", ["superfast", "veryfast"])
def test_a_new_processor_writes_the_bytes_of_an_old_one(
    tmp_path, moving_texture, write_video, preset
):
    frames = moving_texture(40, 400, 304)
    contents = []
    for params in [x264_params("threads=1"), {"x264-params": f"threads=1:{OLD}"}] * 2:
        options = {"preset": preset, "crf": "10"} | params
        video = write_video(tmp_path / "a.mp4", frames, options=options)
        contents.append(video.read_bytes())
    assert len(set(contents)) == 1
