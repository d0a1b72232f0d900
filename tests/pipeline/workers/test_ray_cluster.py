"""A Ray cluster of three nodes on this machine: the same results, whatever happens to a node."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.common.errors import Rejected, SettingsError
from pipeline.extract import main
from pipeline.workers import ray_cluster
from pipeline.workers.local import DEFAULT_LIMITS
from pipeline.workers.ray_cluster import RayPool
from tests.conftest import ROOT, contents, make_corpus, run_command

# What holds for processes of this machine holds on a cluster; `pool_of` is another one here.
from tests.pipeline.workers.test_local import (  # noqa: F401
    task,
    test_a_fault_of_the_program_ends_the_run_and_is_raised_here,
    test_a_fault_says_where_in_the_worker_it_was,
    test_a_full_disk_says_which,
    test_items_may_have_limits_of_their_own,
    test_more_may_be_asked_for_while_results_come,
    test_what_goes_wrong_with_an_item_costs_that_item_only,
    test_what_needs_too_much_memory_is_ended_before_it_takes_it_from_others,
    test_whoever_stops_listening_stops_the_work,
)

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

TIMEOUT = 120
NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster(task):  # noqa: F811
    """A head and two more nodes, with one core each, which find the module of the task."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(sys.modules[task.__module__].__file__).parent))
        patch.setenv("RAY_worker_niceness", "0")
        started = Cluster()
        try:
            for _ in range(3):
                started.add_node(num_cpus=1, wait=False, **NODE)
            started.wait_for_nodes()
            yield started
        finally:
            started.shutdown()


@pytest.fixture
def pool_of(cluster):
    """Makes a pool of the cluster's nodes."""
    with contextlib.ExitStack() as stack:
        yield lambda jobs, limits=DEFAULT_LIMITS: stack.enter_context(
            RayPool(cluster.address, limits, jobs=jobs)
        )


@contextlib.contextmanager
def another_node(cluster, n_cpus, **environment):
    """A node with so many cores, more than any other: by them a request can ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        node = cluster.add_node(num_cpus=n_cpus, **NODE)
    try:
        yield
    finally:
        cluster.remove_node(node)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    make_corpus(folder, range(70, 79), range(70, 79), size=(128, 96))
    (folder / "REAL" / "noise.mp4").write_bytes(b"not a film" * 1000)
    return folder


def extraction(videos, out, *how, size="128x96"):
    return ["pipeline.extract", videos, "-o", out, "--size", size, *map(str, how)]


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory):
    """What a run on this machine makes of them, with so many videos in a shard."""

    @functools.cache
    def made(shard_size):
        out = tmp_path_factory.mktemp("whole") / "cache"
        how = ("--jobs", 2, "--shard-size", shard_size)
        done = run_command(*extraction(videos, out, *how))
        assert done.returncode == 0, done.stderr
        return contents(out)

    return made


def half_way(arguments, out):
    """The command in progress, with some shards made and others not."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    deadline = time.monotonic() + TIMEOUT
    while len(list(out.glob("shards/?????.h5"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (out / "index.h5").exists()
    return process


def end_of(process, code):
    said, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code, said + errors
    return errors


@pytest.mark.parametrize("shard_size", [1, 3])
def test_a_node_that_is_lost_half_way_costs_nothing(cluster, videos, whole, tmp_path, shard_size):
    out = tmp_path / "cache"
    how = ("--ray", cluster.address, "--shard-size", shard_size)
    process = half_way(extraction(videos, out, *how), out)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    try:
        assert len(list(out.glob("shards/?????.h5"))) < 18 / shard_size
        end_of(process, 0)
    finally:
        cluster.add_node(num_cpus=1, **NODE)
    assert contents(out) == whole(shard_size)


@pytest.mark.parametrize(("first", "shard_size"), [("cluster", 3), ("local", 1)])
def test_ctrl_c_stops_all_nodes_and_the_work_goes_on_here_or_there(
    cluster, videos, whole, tmp_path, first, shard_size
):
    out = tmp_path / "cache"
    places = {"cluster": ("--ray", cluster.address), "local": ("--jobs", 2)}
    how = ("--shard-size", shard_size)
    process = half_way(extraction(videos, out, *places.pop(first), *how), out)
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    error, _ = end_of(process, 130).split("\n")[-3:-1]
    assert error == "error: interrupted"
    assert time.monotonic() - begin < 15
    left = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    time.sleep(1)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == left
    (then,) = places.values()
    done = run_command(*extraction(videos, out, *then, *how))
    assert done.returncode == 0, done.stderr
    assert contents(out) == whole(shard_size)


@pytest.mark.parametrize("victim", ["parent", "itself"])
def test_whoever_kills_a_process_costs_nothing_and_leaves_none(
    pool_of,
    task,  # noqa: F811
    tmp_path,
    victim,
):
    """Also where it is the Ray worker, which is the parent of the process that does the work."""
    accident = (victim, str(tmp_path / "pid"))
    results = dict(pool_of(1).run(task, [accident, "good"]))
    assert {item: value[0] for item, value in results.items()} == {
        "good": "good",
        accident: accident,
    }
    status = Path("/proc", (tmp_path / "pid").read_text(), "status")
    assert not status.exists() or "(zombie)" in status.read_text()


def test_an_item_for_which_ray_finds_no_memory_is_rejected(cluster, task):  # noqa: F811
    with another_node(cluster, 2, RAY_memory_usage_threshold="0.001"):
        request = ray_cluster.Request(cpu=2)
        with RayPool(cluster.address, request=request) as pool:
            [(_, rejected)] = pool.run(task, ["hang"])
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.detail[-9:]) == ("out of memory", ", 4 times")


def test_nodes_that_join_are_used(cluster, pool_of, task):  # noqa: F811
    pool = pool_of(None)
    assert pool.slots == 3
    results = pool.run(task, map(str, range(100)))
    next(results)
    with another_node(cluster, 4), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "RECOUNT_INTERVAL", 0)
        for _ in range(50):  # nodes are counted when items are handed out, not with each result
            next(results)
            if pool.slots == 3 + 4:
                break
        assert pool.slots == 3 + 4
        results.close()


def test_after_a_run_that_was_stopped_there_may_be_another(pool_of, task):  # noqa: F811
    pool = pool_of(2)
    results = pool.run(task, ["good", "hang"])
    next(results)
    results.close()
    assert [item for item, _ in pool.run(task, ["fine"])] == ["fine"]


# --------------------------------------------------------------------------------- what is wrong


@pytest.fixture
def failure_of(capsys):
    """Runs a command that fails; what it says."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        error, hint = capsys.readouterr().err.splitlines()
        assert (end.value.code, hint[:6]) == (2, "hint: ")
        return error

    return run


def test_no_cluster_is_an_error_soon(failure_of, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "CONNECT_TIMEOUT", 1)
    arguments = extraction(videos, tmp_path / "cache")[1:]
    assert "no Ray cluster answers at 127.0.0.1:1" in failure_of(*arguments, "--ray", "127.0.0.1:1")
    assert "neither auto nor HOST:PORT" in failure_of(*arguments, "--ray", "ray://somewhere:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "Ray, which is not installed" in failure_of(*arguments, "--ray", "auto")


@pytest.mark.parametrize("request_", ["cpu=0", "gpu=2", "memory=x", "disk=1", "cpu", "memory=inf"])
def test_a_request_that_makes_no_sense_is_an_error(failure_of, videos, request_):
    said = failure_of(videos, "--dry-run", "--ray", "auto", "--ray-request", request_)
    assert f"'{request_}' is not some of cpu=CORES,memory=MB,gpu=SHARE" in said


def test_a_request_that_no_node_can_fulfil_is_an_error(cluster, failure_of, videos):
    where = ("--dry-run", "--ray", cluster.address)
    said = failure_of(videos, *where, "--ray-request", "cpu=1,gpu=0.5")
    assert "has cpu=1,gpu=0.5: they have cpu=" in said


def test_another_version_on_a_node_is_an_error(cluster, failure_of, videos, tmp_path):
    (tmp_path / "deflate-0.0.1.dist-info").mkdir()
    (tmp_path / "deflate-0.0.1.dist-info" / "METADATA").write_text("Name: deflate\nVersion: 0.0.1")
    arguments = extraction(videos, tmp_path / "cache", "--ray", cluster.address)[1:]
    with another_node(cluster, 5, PYTHONPATH=str(tmp_path)):
        said = failure_of(*arguments, "--ray-request", "cpu=5")
    assert said.startswith(f"error: node {os.uname().nodename} (")
    assert "deflate is 0.0.1 there, and " in said


def test_a_folder_that_a_node_does_not_see_is_an_error(cluster, failure_of, videos, tmp_path):
    script = f"""
        mount -t tmpfs tmpfs {tmp_path} || exit 77
        exec {sys.executable} -m ray.scripts.scripts start --address={cluster.address} --block \
            --num-cpus=6 --object-store-memory={NODE["object_store_memory"]}
    """
    node = subprocess.Popen(
        ["unshare", "-Urm", "bash", "-c", script],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not any(n["Resources"].get("CPU") == 6 for n in alive(cluster)):
            if node.poll() == 77:
                pytest.skip("this system does not let us mount another file system")
            assert node.poll() is None
            time.sleep(0.2)
        arguments = extraction(videos, tmp_path / "cache", "--ray", cluster.address)[1:]
        said = failure_of(*arguments, "--ray-request", "cpu=6")
    finally:
        node.terminate()
        node.wait(30)
    assert f"it does not see {tmp_path / 'cache'}, as the machine does" in said


def alive(cluster):
    return [node for node in cluster.global_state.node_table() if node["Alive"]]


def test_a_cluster_without_nodes_ends_the_run(cluster, monkeypatch, task):  # noqa: F811
    monkeypatch.setattr(ray_cluster, "RECOUNT_INTERVAL", 0)
    monkeypatch.setattr(ray_cluster, "NO_NODES_TIMEOUT", 1)
    with contextlib.ExitStack() as stack:
        with another_node(cluster, 7):
            request = ray_cluster.Request(cpu=7)
            pool = stack.enter_context(RayPool(cluster.address, request=request))
            results = pool.run(task, ["good", "hang"])
            next(results)
        with pytest.raises(SettingsError, match="no node of the Ray cluster"):
            next(results)
