"""A Ray cluster of three nodes on this machine: the same results, whatever happens to a node."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest

from pipeline import farneback
from pipeline.common.errors import Rejected, SettingsError
from pipeline.corpus.reading import read_corpus
from pipeline.extract import main
from pipeline.extraction import extract
from pipeline.extraction.shard_tasks import PackTask
from pipeline.settings import Settings
from pipeline.workers import ray_cluster
from pipeline.workers.local import Limits
from pipeline.workers.ray_cluster import RayPool
from tests.conftest import ROOT, InProcess, contents, make_corpus

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

TIMEOUT = 120
NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster(task):
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


def extraction(videos, out, *how):
    size = ("--size", "128x96", "--shard-size", 3)
    return [*map(str, [videos, "-o", out, *size, *how])]


def extract_here(videos, out, pool):
    settings = Settings(128, 96, flow_backend=farneback.resolve("auto"), shard_size=3)
    extract(read_corpus([videos]), out, settings, pool)


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory, in_process):
    """The bytes of what this process makes of them."""
    out = tmp_path_factory.mktemp("whole") / "cache"
    extract_here(videos, out, in_process)
    return contents(out)


def shards(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("shards/?????.h5")}


def half_way(arguments, out):
    """The command in progress, which has made a shard and not all of them."""
    before = shards(out)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.extract", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    deadline = time.monotonic() + TIMEOUT
    while shards(out) == before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (out / "index.h5").exists()
    return process


def test_a_node_that_is_lost_half_way_costs_nothing(
    cluster, videos, whole, tmp_path, call, monkeypatch
):
    out = tmp_path / "cache"
    n_made = []

    class LosesANode(RayPool):
        def run(self, *arguments):
            for item, result in super().run(*arguments):
                yield item, result
                if isinstance(item, PackTask) and not n_made:
                    n_made.append(len(shards(out)))
                    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)

    monkeypatch.setattr("pipeline.extract.RayPool", LosesANode)
    try:
        code, _, errors = call(main, *extraction(videos, out, "--ray", cluster.address))
    finally:
        cluster.add_node(num_cpus=1, **NODE)
    assert code == 0, errors
    assert 1 <= n_made[0] < len(shards(out)) == 6
    assert contents(out) == whole


class InterruptedHere(InProcess):
    """Stops once a shard is made."""

    def run(self, task, items, seconds=None):
        for item, result in super().run(task, items):
            yield item, result
            if isinstance(item, PackTask):
                raise KeyboardInterrupt


def test_ctrl_c_stops_all_nodes_and_the_work_goes_on_here_or_there(
    cluster, videos, whole, tmp_path, in_process
):
    out = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        extract_here(videos, out, InterruptedHere())
    made_here = shards(out)
    process = half_way(extraction(videos, out, "--ray", cluster.address), out)
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-2] == "error: interrupted"
    assert time.monotonic() - begin < 15
    left = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    time.sleep(1)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == left
    made_there = shards(out)
    extract_here(videos, out, in_process)
    assert made_here.items() <= made_there.items() <= shards(out).items()
    assert contents(out) == whole


@pytest.fixture(scope="class")
def pool(cluster):
    """Two places on the nodes, where an item may need 500 MB."""
    with RayPool(cluster.address, Limits(n_bytes=500 * 10**6), jobs=2) as pool:
        yield pool


class TestConnectedOnce:
    """What holds for processes of this machine holds on a cluster."""

    def test_what_goes_wrong_with_an_item_costs_that_item_only(self, pool, task):
        good = [f"good {n}" for n in range(6)]
        bad = ["abort", "killed", "hang", "exit", "reject", "memory", "greedy"]
        items = [*good[:3], *bad, *good[3:]]
        results = dict(pool.run(task, items, lambda item: 4 if item == "hang" else 60))
        assert set(results) == set(items)
        assert [results[item][0] for item in good] == good
        assert all(isinstance(results[item], Rejected) for item in bad)
        said = {item: (results[item].reason, results[item].detail) for item in bad}
        assert said["abort"] == ("crashed the decoder", "SIGABRT")
        assert said["killed"] == ("crashed the decoder", "SIGKILL")
        assert said["exit"] == ("crashed the decoder", "exit code 3")
        assert said["hang"] == ("timed out", "after 4 s")
        assert said["reject"] == ("too short", "5 frames")
        assert said["memory"][0] == said["greedy"][0] == "out of memory"
        assert re.fullmatch(r"it used (5|6|7)\d\d\.\d MB", said["greedy"][1])

    @pytest.mark.parametrize("victim", ["parent", "itself"])
    def test_whoever_kills_a_process_costs_nothing_and_leaves_none(
        self, pool, task, tmp_path, victim
    ):
        """Also where it is the Ray worker, the parent of the process that does the work."""
        accident = (victim, str(tmp_path / "pid"))
        results = dict(pool.run(task, [accident, "good"]))
        assert {item: value[0] for item, value in results.items()} == {
            "good": "good",
            accident: accident,
        }
        status = Path("/proc", (tmp_path / "pid").read_text(), "status")
        assert not status.exists() or "(zombie)" in status.read_text()

    def test_whoever_stops_listening_stops_the_work_and_may_run_more(self, pool, task):
        results = pool.run(task, ["good", "slow"])
        assert next(results)[0] == "good"
        begin = time.monotonic()
        results.close()
        assert time.monotonic() - begin < 5
        assert [item for item, _ in pool.run(task, ["fine"])] == ["fine"]


def test_a_fault_ends_the_run_and_is_raised_here_with_its_place(cluster, task):
    """It comes as an item that was asked for after the first result."""
    items = deque(["hang"])
    with RayPool(cluster.address, Limits(2), jobs=1) as pool:
        results = pool.run(task, items)
        assert next(results)[1].detail == "after 2 s"
        items.append("full")
        with pytest.raises(OSError, match="No space left") as error:
            next(results)
    assert (error.value.errno, error.value.filename) == (28, "/a/disk")
    assert "misbehaving_tasks.py" in str(error.value.__cause__)


def test_an_item_for_which_ray_finds_no_memory_is_rejected(cluster, task):
    with another_node(cluster, 2, RAY_memory_usage_threshold="0.001"):
        request = ray_cluster.Request(cpu=2)
        with RayPool(cluster.address, request=request) as pool:
            [(_, rejected)] = pool.run(task, ["hang"])
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.detail[-9:]) == ("out of memory", ", 4 times")


def test_nodes_that_join_are_used_and_where_all_leave_the_run_ends(cluster, task, monkeypatch):
    monkeypatch.setattr(ray_cluster, "RECOUNT_INTERVAL", 0)
    monkeypatch.setattr(ray_cluster, "NO_NODES_TIMEOUT", 1)
    with contextlib.ExitStack() as joined:
        with RayPool(cluster.address) as pool:
            assert pool.slots == 3
            results = pool.run(task, map(str, range(100)))
            next(results)
            joined.enter_context(another_node(cluster, 4))
            for _ in range(50):  # nodes are counted when items are handed out
                next(results)
                if pool.slots == 3 + 4:
                    break
            assert pool.slots == 3 + 4
            results.close()
        with RayPool(cluster.address, request=ray_cluster.Request(cpu=4)) as pool:
            results = pool.run(task, ["good", "hang"])
            next(results)
            joined.close()
            with pytest.raises(SettingsError, match="no node of the Ray cluster"):
                next(results)


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
    arguments = extraction(videos, tmp_path / "cache")
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


def test_another_version_on_a_node_is_an_error(videos, tmp_path):
    """As a process with another library finds, which need not be on a cluster."""
    (tmp_path / "deflate-0.0.1.dist-info").mkdir()
    (tmp_path / "deflate-0.0.1.dist-info" / "METADATA").write_text("Name: deflate\nVersion: 0.0.1")
    check = pickle.dumps(ray_cluster.node_check([videos], None, "opencv"))
    done = subprocess.run(
        [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)()"],
        input=check,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
    )
    assert b"SettingsError: deflate is 0.0.1 there, and " in done.stderr


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
        arguments = extraction(videos, tmp_path / "cache", "--ray", cluster.address)
        said = failure_of(*arguments, "--ray-request", "cpu=6")
    finally:
        node.terminate()
        node.wait(30)
    assert said.startswith(f"error: node {os.uname().nodename} (")
    assert f"it does not see {tmp_path / 'cache'}, as the machine does" in said


def alive(cluster):
    return [node for node in cluster.global_state.node_table() if node["Alive"]]
