"""Progress: JSON for programs, a bar for people, and nothing where nobody looks."""

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_corpus):
    folder = tmp_path_factory.mktemp("videos")
    make_corpus(folder, (20, 21), (20, 24))
    (folder / "REAL" / "noise.mp4").write_bytes(b"not a film" * 100)
    return folder


def extract(videos, out, *options, **kwargs):
    command = [sys.executable, "-m", "pipeline.extract", str(videos), "-o", str(out)]
    command += ["--jobs", "1", *options]
    return subprocess.run(command, text=True, timeout=60, cwd=ROOT, check=True, **kwargs)


def test_log_json_is_an_object_a_line_for_every_video(videos, tmp_path):
    done = extract(videos, tmp_path / "cache", "--log-json", capture_output=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    events = [(line["stage"], line["event"]) for line in lines]
    assert events == [
        ("probe", "begun"),
        *[("probe", "item")] * 5,
        ("probe", "ended"),
        ("extract", "begun"),
        *[("extract", "item")] * 4,
        ("extract", "ended"),
    ]
    (rejected,) = [line for line in lines if "rejected" in line]
    assert rejected["item"].endswith("noise.mp4")
    assert rejected["rejected"] == "not a video"
    last = lines[-1]
    assert (last["done"], last["total"], last["n_rejected"]) == (4, 4, 0)
    assert last["frames_per_second"] > 0
    assert last["seconds_left"] == 0


def test_where_nobody_looks_nothing_is_shown(videos, tmp_path):
    assert extract(videos, tmp_path / "cache", capture_output=True).stderr == ""


def test_a_terminal_shows_videos_frames_a_second_and_rejects(videos, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    extract(videos, tmp_path / "cache", stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # at the end of what the terminal got
        while part := os.read(ours, 100_000):
            shown += part
    os.close(ours)
    shown = shown.decode()
    assert "probe: 100%" in shown
    assert "5/5" in shown
    assert "rejected=1" in shown
    assert "frames/s=" in shown
