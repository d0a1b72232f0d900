"""An extraction that is stopped, however rudely, is resumed and ends with the same bytes."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pipeline import extraction, farneback, remaking, sharding
from pipeline.cache import Cache, set_aside_damaged
from pipeline.corpus import read_corpus
from pipeline.errors import IntegrityError, NothingUsable, SettingsError
from pipeline.extraction import extract
from pipeline.files import sha256_of
from pipeline.resume import WORK, CacheInProgress
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
    corpus, cache, tmp_path, contents, run_command
):
    folder = tmp_path / "cache"
    notes = folder / WORK / "notes.jsonl"
    moments = [
        lambda: lines(notes) >= 5,  # while probing
        lambda: len(shards(folder)) >= 1,
        lambda: len(shards(folder)) >= 4,
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
    last = run_command("pipeline.extract", *corpus.options, "-o", folder, "--jobs", "2")
    assert last.returncode == 0, last.stderr
    assert done.items() <= shards(folder).items()
    assert contents(folder) == contents(cache.folder)
    assert last.stdout.replace(str(folder), "X") == cache.stdout.replace(str(cache.folder), "X")


@pytest.mark.slow
def test_if_only_the_command_dies_its_worker_follows_and_it_can_be_resumed(
    corpus, cache, tmp_path, contents, run_command
):
    folder = tmp_path / "cache"
    process = begin(corpus, folder)
    wait_until(lambda: len(shards(folder)) >= 2, process)
    process.kill()
    process.wait()
    assert group_is_gone(process)
    last = run_command("pipeline.extract", *corpus.options, "-o", folder)
    assert last.returncode == 0, last.stderr
    assert contents(folder) == contents(cache.folder)


def test_half_written_files_of_a_killed_run_are_cleared_away(
    corpus, cache, tmp_path, contents, in_process
):
    """As `write_whole` leaves them when the process is killed between opening and renaming."""
    folder = tmp_path / "cache"
    settings = Settings(width=96, height=72, flow_backend=farneback.resolve("auto"))
    videos = read_corpus(corpus.options[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "write_index", _interrupt)
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
        (signal.SIGINT, 0.6),
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
    corpus, cache, tmp_path, contents, run_command
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
    assert run_command(*arguments).returncode == 0
    assert contents(folder) == contents(cache.folder)


# ---------------------------------------------------------------------------------------- again


def test_a_finished_cache_is_not_made_again(corpus, cache, tmp_path, run_command):
    before = {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*")}
    again = run_command("pipeline.extract", *corpus.options, "-o", cache.folder)
    assert again.returncode == 0
    assert "was finished before" in again.stdout
    assert again.stdout.endswith(cache.stdout)
    assert {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*")} == before


def test_a_cache_made_whole_again_is_not_said_to_have_been_finished(
    corpus, cache, tmp_path, run_command
):
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    (folder / "shards/00001.h5").unlink()
    again = run_command("pipeline.extract", *corpus.options, "-o", folder)
    assert again.returncode == 0, again.stderr
    assert "was finished before" not in again.stdout
    assert sha256_of(folder / "shards/00001.h5") == sha256_of(cache.folder / "shards/00001.h5")


def test_other_settings_are_refused_by_name(corpus, cache, run_command):
    done = run_command("pipeline.extract", *corpus.options, "-o", cache.folder, "--stride", "2")
    assert done.returncode == 2
    assert "stride was 1, now 2" in done.stderr
    assert "width" not in done.stderr


def test_another_corpus_is_refused(corpus, cache):
    videos = read_corpus(corpus.options[:2])[:-1]
    with pytest.raises(SettingsError, match=r"corpus was '13 files.*now '12 files"):
        extract(
            videos,
            cache.folder,
            Settings(width=96, height=72, flow_backend=farneback.resolve("auto")),
        )


@pytest.fixture
def begun(tmp_path, make_corpus, in_process, monkeypatch):
    """A small corpus, and a function that extracts it up to the index and is interrupted there."""
    files = make_corpus(tmp_path / "videos", (20, 21, 22), (20, 21, 22))
    folder = tmp_path / "cache"

    def run(out=folder, *, interrupt=False, settings=SMALL):
        with pytest.MonkeyPatch.context() as patch:
            if interrupt:
                patch.setattr(extraction, "write_index", _interrupt)
            return extract(read_corpus([tmp_path / "videos"]), out, settings, in_process)

    with pytest.raises(KeyboardInterrupt):
        run(interrupt=True)
    assert len(shards(folder)) == 6
    return files, folder, run


def test_an_unfinished_cache_is_not_gone_on_with_under_other_settings(begun):
    _, folder, run = begun
    before = shards(folder)
    with pytest.raises(SettingsError, match="seed was 0, now 1"):
        run(settings=Settings(width=64, height=48, seed=1))
    assert run().attrs["frames"] == 20  # the refusal has changed nothing
    assert shards(folder) == before


def test_a_video_that_was_replaced_meanwhile_is_done_again(
    begun, tmp_path, write_video, moving_texture, contents
):
    files, folder, run = begun
    write_video(files["real1"], moving_texture(25, 64, 48, seed=77))
    run()
    run(tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")


def test_a_shorter_video_put_in_meanwhile_shortens_all(
    begun, tmp_path, write_video, moving_texture, contents
):
    files, folder, run = begun
    write_video(files["real1"], moving_texture(17, 64, 48, seed=77))
    assert run().attrs["frames"] == 17
    run(tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("shard_size", [1, 2])
def test_what_an_earlier_version_began_is_gone_on_with_though_it_noted_no_times(
    tmp_path, make_corpus, in_process, monkeypatch, contents, shard_size
):
    make_corpus(tmp_path / "videos", (20, 21, 22), (20, 21, 22))
    settings = dataclasses.replace(SMALL, shard_size=shard_size)

    def run(out, stop=False):
        with monkeypatch.context() as patch:
            if stop:  # all shards and parts are there, but no index
                patch.setattr("pipeline.sharding._Making._pack", _stop)
                patch.setattr("pipeline.extraction._finish", _stop)
            return extract(read_corpus([tmp_path / "videos"]), out, settings, in_process)

    def _stop(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cache", stop=True)
    notes = tmp_path / "cache" / WORK / "notes.jsonl"
    text = notes.read_text()
    older = re.sub(r', "seconds": (\{[^}]*\}|[\d.]+)', "", text)
    assert older != text and '"seconds"' not in older
    notes.write_text(older)
    run(tmp_path / "cache")
    run(tmp_path / "fresh")
    assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")
    assert len(Cache(tmp_path / "cache").timing()) < 6 == len(Cache(tmp_path / "fresh").timing())


def test_a_video_repaired_meanwhile_is_taken_in(tmp_path, make_corpus, in_process, cut, contents):
    files = make_corpus(tmp_path / "videos", (20, 21, 22), (20, 21))
    whole = {name: path.read_bytes() for name, path in files.items()}
    cut(files["fake0"], 0.5)
    cut(files["fake1"], 0.5)
    with pytest.raises(NothingUsable):
        extract(read_corpus([tmp_path / "videos"]), tmp_path / "cache", SMALL, in_process)
    for name in ("fake0", "fake1"):
        files[name].write_bytes(whole[name])
    for out in ("cache", "fresh"):
        extract(read_corpus([tmp_path / "videos"]), tmp_path / out, SMALL, in_process)
    assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")


def test_what_is_lost_of_a_finished_cache_is_made_again(begun, contents):
    _, folder, run = begun
    run()
    whole = contents(folder)
    others = shards(folder)
    (folder / "shards/00002.h5").unlink()
    run()
    assert contents(folder) == whole
    del others["00002.h5"]
    assert others.items() <= shards(folder).items()


def test_a_damaged_index_is_made_again(begun, contents):
    _, folder, run = begun
    run()
    whole = contents(folder)
    (folder / "index.h5").write_bytes(b"damaged")
    run()
    assert contents(folder) == whole


def test_a_shard_damaged_before_the_end_is_made_again(begun, cut, contents, tmp_path):
    _, folder, run = begun
    cut(folder / "shards/00002.h5", 0.7)
    run()
    run(tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")


def test_a_shard_of_another_video_is_not_taken_for_this_one(begun, contents, tmp_path):
    _, folder, run = begun
    shutil.copy(folder / "shards/00001.h5", folder / "shards/00000.h5")
    run()
    run(tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("n_parts", [1, 2, 4])
def test_of_a_shard_of_several_videos_none_is_extracted_twice(
    tmp_path, make_corpus, in_process, monkeypatch, contents, n_parts
):
    make_corpus(tmp_path / "videos", (20, 21, 22), (20, 21, 22))
    settings = Settings(width=64, height=48, shard_size=3)
    videos = read_corpus([tmp_path / "videos"])
    extract(videos, tmp_path / "whole", settings, in_process)
    extracted = []

    def count(task, n_clips, extract_video=sharding.extract_video):
        if len(extracted) == n_parts and monkeypatched:
            raise KeyboardInterrupt
        extracted.append(task.path)
        return extract_video(task, n_clips)

    monkeypatch.setattr(sharding, "extract_video", count)
    monkeypatched = True
    with pytest.raises(KeyboardInterrupt):
        extract(videos, tmp_path / "cache", settings, in_process)
    monkeypatched = False
    extract(videos, tmp_path / "cache", settings, in_process)
    assert sorted(extracted) == sorted(str(video.path) for video in videos)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


# ---------------------------------------------------------------------------------------- repair


@pytest.fixture
def finished(begun, contents):
    """A finished cache with its bytes, and what is done to repair and remake it."""
    _, folder, run = begun
    run()

    def mend(damaged):
        assert set(set_aside_damaged(folder)) == damaged
        made = shards(folder)
        run()
        assert made.items() <= shards(folder).items()  # sound ones were left as they are
        left = {f"{name}.damaged" for name in damaged}
        assert left <= set(contents(folder))
        return {name: sha for name, sha in contents(folder).items() if name not in left}

    return folder, contents(folder), mend


def test_a_damaged_shard_alone_is_made_again_and_no_other_video_is_read(finished, monkeypatch):
    folder, whole, mend = finished
    content = bytearray((folder / "shards/00003.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "shards/00003.h5").write_bytes(content)
    read = []

    def look(path, probe=remaking.probe, **how):
        read.append(path)
        return probe(path, **how)

    monkeypatch.setattr(remaking, "probe", look)
    monkeypatch.setattr("pipeline.planning.probe", None)
    assert mend({"shards/00003.h5"}) == whole
    assert len(read) == 1


@pytest.mark.parametrize("name", ["names.csv", "rejected.csv", "datacard.md", "SHA256SUMS"])
def test_a_damaged_file_beside_the_index_is_made_again_with_it(finished, name):
    folder, whole, mend = finished
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 2
    (folder / name).write_bytes(content)
    assert mend({name, "index.h5"}) == whole


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.99])
def test_a_damaged_index_is_found_wherever_it_is_damaged(finished, at):
    folder, whole, mend = finished
    content = bytearray((folder / "index.h5").read_bytes())
    content[int(at * len(content))] ^= 8
    (folder / "index.h5").write_bytes(content)
    assert mend({"index.h5"}) == whole


def test_a_shard_whose_video_has_changed_is_not_made_from_the_new_one(
    begun, write_video, moving_texture
):
    files, folder, run = begun
    cache = run()
    changed = str(files["real0"])
    video = next(id for id, path in cache.names().items() if path == changed)
    (folder / next(clip.shard for clip in cache.clips if clip.video == video)).unlink()
    files["real0"].unlink()
    write_video(files["real0"], moving_texture(20, 64, 48, seed=99))
    with pytest.raises(IntegrityError, match=r"real0.* is no longer what it was"):
        run()


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
