"""Progress: JSON for programs, a bar for people, and nothing where nobody looks."""

import contextlib
import fcntl
import json
import logging
import os
import pty
import struct
import sys
import termios

import pytest

from pipeline.common.progress import log_json
from pipeline.pack import main as pack_command


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_corpus):
    folder = tmp_path_factory.mktemp("videos")
    make_corpus(folder, (20,), (20, 24))
    (folder / "REAL" / "noise.mp4").write_bytes(b"not a film" * 100)
    return folder


@pytest.fixture
def restored_log():
    loggers = logging.getLogger(), logging.getLogger(log_json.__module__)
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


def test_log_json_is_an_object_a_line_for_every_video(videos, extract_from, capsys, restored_log):
    log_json()
    extract_from(videos)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    events = [(line["stage"], line["event"]) for line in lines]
    assert events == [
        ("probe", "begun"),
        *[("probe", "item")] * 4,
        ("probe", "ended"),
        ("extract", "begun"),
        *[("extract", "item")] * 3,
        ("extract", "ended"),
    ]
    (rejected,) = [line for line in lines if "rejected" in line]
    assert rejected["item"].endswith("noise.mp4")
    assert rejected["rejected"] == "not a video"
    last = lines[-1]
    assert (last["done"], last["total"], last["n_rejected"]) == (3, 3, 0)
    assert last["frames_per_second"] > 0
    assert last["seconds_left"] == 0


def test_a_command_logs_json_if_asked(call, cache, tmp_path, restored_log):
    code, _, err = call(pack_command, cache.folder, "-o", tmp_path / "one.h5", "--log-json")
    assert code == 0
    events = [(line["stage"], line["event"]) for line in map(json.loads, err.splitlines())]
    assert (events[0], events[-1]) == (("pack", "begun"), ("pack", "ended"))


def test_where_nobody_looks_nothing_is_shown(videos, extract_from, capfd):
    extract_from(videos)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_videos_frames_a_second_and_rejects(videos, extract_from, monkeypatch):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as context:
        context.setattr(sys, "stderr", terminal)
        extract_from(videos)
    shown = b""
    with contextlib.suppress(OSError):  # at the end of what the terminal got
        while part := os.read(ours, 100_000):
            shown += part
    os.close(ours)
    shown = shown.decode()
    assert "probe: 100%" in shown
    assert "4/4" in shown
    assert "rejected=1" in shown
    assert "frames/s=" in shown
