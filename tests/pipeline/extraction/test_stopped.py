"""An extraction that is stopped, however rudely, is resumed and ends with the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pipeline import farneback
from pipeline.cache.in_progress import WORK, CacheInProgress
from pipeline.common.errors import SettingsError
from pipeline.corpus.reading import read_corpus
from pipeline.extract import main
from pipeline.extraction import extract_corpus
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings

SMALL = Settings(width=64, height=48)


def begin(corpus, folder, *more):
    """Start the extract command with one worker, in a process group of its own."""
    command = [sys.executable, "-m", "pipeline.extract", *map(str, corpus.options)]
    return subprocess.Popen(
        [*command, "-o", str(folder), "--jobs", "1", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended too early: {process.stderr.read()}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.001)


def shards(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("shards/?????.h5")}


def lines(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def group_is_gone(process, seconds=5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def end_group(process):
    if not group_is_gone(process, seconds=0.1):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


# ---------------------------------------------------------------------------------------- killed


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes_and_redoes_nothing(
    corpus, cache, tmp_path, contents, call, without_workers
):
    folder = tmp_path / "cache"
    notes = folder / WORK / "notes.jsonl"
    moments = [
        lambda: lines(notes) >= 5,  # while probing
        lambda: len(shards(folder)) >= 2,
        lambda: (folder / "names.csv").exists(),  # while finishing
    ]
    done = {}
    for moment in moments:
        process = begin(corpus, folder)
        wait_until(moment, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert done.items() <= shards(folder).items()  # not one was written a second time
        done = shards(folder)
    code, said, errors = call(main, *corpus.options, "-o", folder)
    assert code == 0, errors
    assert done.items() <= shards(folder).items()
    assert contents(folder) == contents(cache.folder)
    assert said.replace(str(folder), "X") == cache.stdout.replace(str(cache.folder), "X")


@pytest.mark.slow
def test_if_only_the_command_dies_its_worker_follows_and_it_can_be_resumed(
    corpus, cache, tmp_path, contents, call, without_workers
):
    folder = tmp_path / "cache"
    process = begin(corpus, folder)
    wait_until(lambda: len(shards(folder)) >= 2, process)
    process.kill()
    process.wait()
    assert group_is_gone(process)
    code, _, errors = call(main, *corpus.options, "-o", folder)
    assert code == 0, errors
    assert contents(folder) == contents(cache.folder)


def test_half_written_files_of_a_killed_run_are_cleared_away(
    corpus, cache, tmp_path, contents, in_process
):
    """As `write_whole` leaves them when the process is killed between opening and renaming."""
    folder = tmp_path / "cache"
    settings = Settings(width=96, height=72, flow_backend=farneback.resolve("auto"))
    videos = read_corpus(corpus.options[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract_corpus, "write_index", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(videos, folder, settings, in_process)
    for name in ("shards/.00003.h5.a1b2c3d4", ".index.h5.a1b2c3d4", ".names.csv.x_y_z_12"):
        (folder / name).write_bytes(b"half")
    extract(videos, folder, settings, in_process)
    assert contents(folder) == contents(cache.folder)


def _interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_killed_while_tidying_up_it_ends_with_the_same_bytes(
    corpus, cache, tmp_path, contents, in_process
):
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    (folder / WORK).mkdir()
    (folder / WORK / "notes.jsonl").write_text("{}\n")
    extract(
        read_corpus(corpus.options[:2]),
        folder,
        Settings(width=96, height=72, flow_backend=farneback.resolve("auto")),
        in_process,
    )
    assert contents(folder) == contents(cache.folder)


def test_a_note_cut_short_is_forgotten_and_the_others_kept(tmp_path):
    with CacheInProgress(tmp_path / "cache", {"a": 1}) as work:
        work.remember("x", [1])
        work.remember("y", "two")
    with (tmp_path / "cache" / WORK / "notes.jsonl").open("a") as file:
        file.write('{"z": [1, ')
    for _ in range(2):
        with CacheInProgress(tmp_path / "cache", {"a": 1}) as work:
            assert [work.note(key) for key in "xyz"] == [[1], "two", None]
    with CacheInProgress(tmp_path / "cache", {"a": 1}) as work:
        work.remember("z", 3)
    with CacheInProgress(tmp_path / "cache", {"a": 1}) as work:
        assert [work.note(key) for key in "xyz"] == [[1], "two", 3]


# ----------------------------------------------------------------------------------- interrupted


@pytest.mark.parametrize(
    "number,moment",
    [
        (signal.SIGINT, 0.3),  # seconds after it began: workers are starting
        (signal.SIGTERM, "extracting"),
    ],
)
def test_interrupted_it_ends_at_once_says_how_to_go_on_and_leaves_nobody(
    corpus, tmp_path, number, moment
):
    folder = tmp_path / "cache"
    process = begin(corpus, folder)
    try:
        if moment == "extracting":
            wait_until(lambda: len(shards(folder)) >= 1, process)
        else:
            wait_until(lambda: (folder / WORK / "settings.json").exists(), process)
            time.sleep(moment)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as Ctrl-C does
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert errors.splitlines()[-2:] == [
            "error: interrupted",
            "hint: the same command resumes, or starts again where there is nothing to resume",
        ]
        assert group_is_gone(process)
        assert not (folder / "index.h5").exists()
    finally:
        end_group(process)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_same_command_finishes_it_later(
    corpus, cache, tmp_path, contents, call, without_workers
):
    """The disk is full in the sense that no file may grow beyond 60 KiB."""
    folder = tmp_path / "cache"
    arguments = ["pipeline.extract", *map(str, corpus.options), "-o", str(folder)]
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 60; exec "$@"', "bash", sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert limited.returncode == 2
    assert "Traceback" not in limited.stderr
    assert "error:" in limited.stderr and "hint:" in limited.stderr
    assert not (folder / "index.h5").exists()
    assert call(main, *arguments[1:])[0] == 0
    assert contents(folder) == contents(cache.folder)


# ----------------------------------------------------------------------------------------- alone


def test_a_folder_with_something_else_in_it_is_left_alone(corpus, tmp_path, in_process):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match=r"not a cache: thesis\.tex"):
        extract(read_corpus(corpus.options[:2]), tmp_path, SMALL, in_process)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(corpus, tmp_path, in_process):
    (tmp_path / "cache").write_text("x")
    with pytest.raises(SettingsError, match="is a file"):
        extract(read_corpus(corpus.options[:2]), tmp_path / "cache", SMALL, in_process)


def test_the_cache_may_not_be_among_the_videos(tmp_path, make_corpus, in_process):
    make_corpus(tmp_path, (20,), (20,))
    with pytest.raises(SettingsError):
        extract(read_corpus([tmp_path]), tmp_path, SMALL, in_process)


def test_two_do_not_write_one_cache(corpus, tmp_path, run_command):
    with CacheInProgress(tmp_path / "cache", {}):
        done = run_command("pipeline.extract", *corpus.options, "-o", tmp_path / "cache")
    assert done.returncode == 2
    assert f"another process is writing {tmp_path / 'cache'}: process {os.getpid()}" in done.stderr


def test_a_refusal_gives_up_the_lock(tmp_path):
    with CacheInProgress(tmp_path / "cache", {"a": 1}):
        pass
    with (
        pytest.raises(SettingsError, match="a was 1, now 2"),
        CacheInProgress(tmp_path / "cache", {"a": 2}),
    ):
        pass
    with CacheInProgress(tmp_path / "cache", {"a": 1}):
        pass
