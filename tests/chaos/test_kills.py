"""Kill it anywhere: after a rerun every byte is as if nothing had happened.

``make chaos`` runs this with many kills, ``make test-all`` with a few. KILLS says how many, SEED
which.
"""

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, contents, cut, make_corpus

KILLS = int(os.environ.get("KILLS", "3"))
SEED = int(os.environ.get("SEED", time.time_ns() % 10**6))
SHARE_OF_EXTRACT = 0.7  # the other kills hit embed
# With few kills, shards of one video are left to tests/pipeline/extraction/test_stopped.py.
SHARD_SIZES = [1, 3] if KILLS > 3 else [3]
TIMEOUT = 120

pytestmark = pytest.mark.slow


def command(module, *arguments):
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(arguments):
    begin = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - begin


def children_of(pid):
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()] if tasks.exists() else []


def workers_of(pid):
    """Processes that a command started to work for it, not those that keep its books."""
    found = []
    for child in children_of(pid):
        line = Path(f"/proc/{child}/cmdline")
        if line.exists() and b"spawn_main" in line.read_bytes():
            found.append(child)
    return found


def kill_somewhere(arguments, seconds, rng):
    """Start a command and kill it, a worker of it, or all of it at a random moment.

    Returns what was killed, or None if it was done before.
    """
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=ROOT,
    )
    time.sleep(rng.uniform(0, seconds))
    victim = rng.choice(["all", "parent", "worker"])
    if process.poll() is not None:
        return None
    if victim == "worker" and (workers := workers_of(process.pid)):
        os.kill(rng.choice(workers), signal.SIGKILL)
        assert process.wait(TIMEOUT) == 0  # the others do not notice
    elif victim == "parent":
        process.kill()
        process.wait()
    else:
        victim = "all"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return victim


def chaos(name, arguments, out, whole, seconds, kills, rng):
    """Kill and rerun until so many kills have hit; the tally of what was hit."""
    tally = {"all": 0, "parent": 0, "worker": 0}
    while sum(tally.values()) < kills:
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(rng.choice([1, 1, 2, 3])):
            if victim := kill_somewhere(arguments, seconds, rng):
                tally[victim] += 1
        kept = {path: path.stat().st_mtime_ns for path in out.glob("shards/?????.h5")}
        run(arguments)
        assert contents(out) == whole, f"SEED={SEED}"
        assert all(path.stat().st_mtime_ns == when for path, when in kept.items()), "done twice"
    print(f"\n{name}: {tally}, SEED={SEED}")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    files = make_corpus(folder, (20, 41, 44, 50, 30), (21, 43, 45, 60, 25), size=(96, 72))
    cut(files["real4"], 0.6)
    (folder / "REAL" / "noise.mp4").write_bytes(b"not a film" * 1000)
    (folder / "FAKE" / "copy.mp4").write_bytes(files["fake1"].read_bytes())
    return folder


def extraction(videos, out, *more):
    size = ("--size", "96x72", "--clips", "2", "--jobs", "2")
    return command("pipeline.extract", videos, "-o", out, *size, *more)


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory):
    """The cache that nothing disturbed, with so many videos in a shard, and how long it took."""

    @functools.cache
    def made(shard_size):
        out = tmp_path_factory.mktemp("whole") / "cache"
        return out, run(extraction(videos, out, "--shard-size", shard_size))

    return made


@pytest.mark.parametrize("shard_size", SHARD_SIZES)
def test_extract_killed_anywhere_ends_with_the_same_bytes(videos, whole, tmp_path, shard_size):
    undisturbed, seconds = whole(shard_size)
    kills = max(1, round(KILLS * SHARE_OF_EXTRACT / 2))
    chaos(
        f"extract, {shard_size} videos a shard",
        extraction(videos, tmp_path / "cache", "--shard-size", shard_size),
        tmp_path / "cache",
        contents(undisturbed),
        seconds,
        kills,
        random.Random(SEED + shard_size),
    )


def test_embed_killed_anywhere_ends_with_the_same_bytes(whole, tmp_path):
    cache, _ = whole(3)

    def embedding(out):
        network = ("--backbone", "mobilenet_v2", "--weights", "random:0", "--device", "cpu")
        return command("features.embed", cache, "-o", out, *network)

    seconds = run(embedding(tmp_path / "whole"))
    chaos(
        "embed",
        embedding(tmp_path / "out"),
        tmp_path / "out",
        contents(tmp_path / "whole"),
        seconds,
        max(1, round(KILLS * (1 - SHARE_OF_EXTRACT))),
        random.Random(SEED),
    )


# ------------------------------------------------------------------------------------- full disk


def on_a_small_disk(folder, kilobytes, arguments, keep):
    """Run a command with a disk of this size mounted on a folder; ``keep`` has what is on it."""
    script = f"""
        mount -t tmpfs -o size={kilobytes}k tmpfs {folder} || exit 77
        cp -a {keep}/. {folder}/
        timeout {TIMEOUT} "$@"; code=$?
        find {keep} -mindepth 1 -delete; cp -a {folder}/. {keep}/
        exit $code
    """
    return subprocess.run(
        ["unshare", "-Urm", "bash", "-c", script, "bash", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.parametrize("shard_size", SHARD_SIZES)
def test_a_disk_that_fills_up_costs_nothing_once_there_is_space(
    videos, whole, tmp_path, shard_size
):
    undisturbed, _ = whole(shard_size)
    folder, keep = tmp_path / "disk", tmp_path / "keep"
    folder.mkdir()
    keep.mkdir()
    options = ("--shard-size", shard_size)
    needed = sum(p.stat().st_size for p in undisturbed.rglob("*")) // 1024
    arguments = extraction(videos, folder / "cache", *options)
    n = max(1, KILLS // 10)
    rng = random.Random(SEED)
    for share in sorted(rng.uniform(0.01, 0.95) for _ in range(n)):
        done = on_a_small_disk(folder, int(share * needed) + 24, arguments, keep)
        if done.returncode == 77:
            pytest.skip("this system does not let us mount a small disk")
        said = f"SEED={SEED} {share} {done.stderr}"
        assert done.returncode == 2, said
        assert "No space left on device" in done.stderr, said
        assert "Traceback" not in done.stderr, said
        assert not (keep / "cache" / "index.h5").exists(), said
    done = on_a_small_disk(folder, 3 * needed + 1000, arguments, keep)
    assert done.returncode == 0, done.stderr
    assert contents(keep / "cache") == contents(undisturbed)


def test_a_place_where_one_may_not_write_is_an_error_in_two_lines(videos, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    script = f'mount -t tmpfs -o ro tmpfs {folder} || exit 77; "$@"'
    done = subprocess.run(
        ["unshare", "-Urm", "bash", "-c", script, "bash", *extraction(videos, folder / "cache")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode == 77:
        pytest.skip("this system does not let us mount a read-only disk")
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert "Read-only file system" in error
    assert str(folder / "cache") in error
    assert hint.startswith("hint:")
