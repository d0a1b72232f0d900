"""Cost of a Ray cluster: ``python -m benchmarks.cluster [N]``, on two cores or more.

Extracts N (24) generated videos with two local processes, on a Ray cluster of three one-core nodes
on this machine, and on that cluster with one node killed after half of the shards. The three
alternate; ratios are medians over neighbouring runs; caches are compared byte by byte. Then the
cost of an empty task, in a local process and on the cluster.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from pipeline.workers.local import LocalPool
from pipeline.workers.ray_cluster import RayPool
from tests.conftest import contents, make_corpus

ROUNDS = 3
FRAMES, SIZE = 120, (640, 480)
EMPTY_TASKS = 500
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = [FRAMES] * (n // 2)
        make_corpus(folder / "videos", frames, frames, size=SIZE)
        cluster = Cluster()
        try:
            for _ in range(3):
                cluster.add_node(**NODE)
            compare(cluster, folder, n)
            overhead(cluster)
        finally:
            cluster.shutdown()


def compare(cluster, folder, n):
    on_cluster = ("--ray", cluster.address)
    seconds = {"local": [], "cluster": [], "node killed": []}
    for _ in range(ROUNDS):
        seconds["local"].append(run(folder, "--jobs", "2"))
        expected = contents(folder / "cache")
        seconds["cluster"].append(run(folder, *on_cluster))
        assert contents(folder / "cache") == expected
        seconds["node killed"].append(run(folder, *on_cluster, half_way=(cluster, n // 2)))
        assert contents(folder / "cache") == expected
        cluster.add_node(**NODE)
    print(f"{n} videos of {FRAMES} frames at {SIZE[0]}x{SIZE[1]}; all caches have the same bytes:")
    for name, spent in seconds.items():
        pairs = list(zip(spent, seconds["local"], strict=True))
        ratio = statistics.median(here / local for here, local in pairs)
        more = statistics.median(here - local for here, local in pairs) / n
        print(
            f"  {name:12} {statistics.median(spent):6.1f} s, {ratio:.2f} times local, "
            f"{more * 1e3:+.0f} ms a video"
        )


def run(folder, *how, half_way=None):
    """Return the seconds of one extraction; a cluster in ``half_way`` loses a node meanwhile."""
    out = folder / "cache"
    shutil.rmtree(out, ignore_errors=True)
    command = ["-m", "pipeline.extract", folder / "videos", "-o", out, *how]
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL)
    if half_way:
        cluster, n_shards = half_way
        while len(list(out.glob("shards/?????.h5"))) < n_shards and process.poll() is None:
            time.sleep(0.02)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    assert process.wait() == 0
    return time.monotonic() - begin


def overhead(cluster):
    print(f"{EMPTY_TASKS} empty tasks, ms each, once all processes run:")
    with LocalPool(1) as local, RayPool(cluster.address, jobs=1) as remote:
        for name, pool in (("one process", local), ("cluster, one at a time", remote)):
            list(pool.run(abs, range(10)))
            begin = time.monotonic()
            list(pool.run(abs, range(EMPTY_TASKS)))
            print(f"  {name:24} {(time.monotonic() - begin) / EMPTY_TASKS * 1e3:.2f}")


if __name__ == "__main__":
    main()
