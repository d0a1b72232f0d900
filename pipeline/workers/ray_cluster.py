"""Pool of the nodes of a Ray cluster."""

import contextlib
import json
import logging
import os
import pickle
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import farneback
from pipeline.cache.in_progress import LOCK, this_process
from pipeline.common.errors import Rejected, SettingsError
from pipeline.common.versions import versions
from pipeline.workers.local import (
    CRASHED,
    DEFAULT_LIMITS,
    DEFAULT_SECONDS,
    OUT_OF_MEMORY,
    Item,
    Limits,
    LocalPool,
    Result,
)

TASKS_PER_SLOT = 2  # one runs while the next is on its way
MAX_TRIES = 4  # of an item whose node or Ray worker is lost, which may be the node's fault
RECOUNT_INTERVAL = 5.0  # seconds
CONNECT_TIMEOUT = 15.0  # seconds
NO_NODES_TIMEOUT = 60.0  # seconds without any node after which a run ends
CHECK_TIMEOUT = 600.0  # seconds for a node to import everything and compile kernels
STOP_SECONDS = 1.0  # for Ray to end the processes of a disconnected driver
RESOURCES = ("CPU", "memory", "GPU")  # as Ray names them; memory in bytes


@dataclass(frozen=True)
class Request:
    """Resources that a task reserves on a node."""

    cpu: float = 1.0  # cores
    memory: float = 0.0  # MB
    gpu: float = 0.0  # share of one

    def __post_init__(self) -> None:
        if not (0.01 <= self.cpu < 1e4 and 0 <= self.memory < 1e9 and 0 <= self.gpu <= 1):
            raise SettingsError(
                f"a request of {self}", "give cpu from 0.01, memory in MB, and gpu from 0 to 1"
            )

    def __str__(self) -> str:
        values = {"cpu": self.cpu, "memory": self.memory, "gpu": self.gpu}
        return ",".join(f"{name}={value:g}" for name, value in values.items() if value)

    def room(self, resources: dict[str, float]) -> int:
        """Return the number of tasks that fit on a node with Ray's resources."""
        needed = zip(RESOURCES, (self.cpu, self.memory * 1e6, self.gpu), strict=True)
        return int(min(resources.get(name, 0) / n + 1e-6 for name, n in needed if n))


def node_check(
    videos: Sequence[Path], cache: Path | None, backend: farneback.Backend
) -> Callable[[], None]:
    """Return a picklable check of the nodes for `RayPool`.

    It raises `SettingsError` on a node that has other libraries, does not see the videos or the
    cache that this process writes, or lacks the flow backend.
    """
    return partial(
        _check_node,
        libraries=versions(),
        videos=[path.absolute() for path in videos],
        cache=None if cache is None else cache.absolute(),
        writer=this_process(),
        backend=backend,
    )


def _check_node(
    libraries: str,
    videos: Sequence[Path],
    cache: Path | None,
    writer: str,
    backend: farneback.Backend,
) -> None:
    """Check this node: it sees the cache if the lock names its writer."""
    installed = json.loads(versions())
    for package, version in json.loads(libraries).items():
        if installed.get(package) != version:
            raise SettingsError(
                f"{package} is {installed.get(package)} there, and {version} where the command "
                "runs",
                "install the same versions on all nodes",
            )
    unseen = [path for path in videos if not os.access(path, os.R_OK)]
    if cache is not None and _text_of(cache / LOCK) != writer:
        unseen.append(cache)
    if unseen:
        raise SettingsError(
            f"it does not see {unseen[0]}, as the machine does where the command runs",
            "mount the same storage at the same path on all nodes",
        )
    if (resolved := farneback.resolve(backend)) != backend:
        raise SettingsError(
            f"it computes flow by {resolved} instead of {backend}", "choose another --flow-backend"
        )


def _text_of(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


# ------------------------------------------------------------------------ where the command runs


class RayPool:
    """Context manager that runs tasks on the nodes of a Ray cluster.

    Every Ray worker keeps a `LocalPool` of one process, with its limits, second try and single
    thread. An item whose Ray worker or node is lost is tried again elsewhere. Tasks run in the
    driver's working directory, if their node has it.

    Args:
        address: ``HOST:PORT``, or ``auto`` for the cluster of this machine.
        jobs: maximum number of items at once; by default as many as fit on the nodes.
        check: called by every Ray worker before its first item, see `node_check`.

    Raises:
        SettingsError: there is no Ray, no such cluster, or no node for the request.
    """

    def __init__(
        self,
        address: str,
        limits: Limits = DEFAULT_LIMITS,
        *,
        request: Request | None = None,
        jobs: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self.slots = 0
        self._address, self._limits, self._jobs = address, limits, jobs
        self._request = request or Request()
        self._check = check
        self._running: dict[Any, Any] = {}

    def __enter__(self) -> "RayPool":
        self._connect()
        return self

    def __exit__(self, *exception: object) -> None:
        self._disconnect()

    def _connect(self) -> None:
        self._ray = _connected(self._address)
        self._had_nodes = time.monotonic() - NO_NODES_TIMEOUT
        try:
            self._count_slots()
        except BaseException:
            self._ray.shutdown()
            raise
        # `run` retries lost items: Ray would retry one that fills a node's memory forever.
        self._remote_run = self._ray.remote(
            num_cpus=self._request.cpu,
            num_gpus=self._request.gpu,
            memory=int(self._request.memory * 1e6),
            max_retries=0,
            max_calls=0,  # no limit; with a GPU the default is 1
        )(_run_in_ray_worker)

    def _disconnect(self) -> None:
        """End all tasks of this driver; `ray.cancel` may crash it (ray#54798)."""
        self._ray.shutdown()
        if self._running:
            time.sleep(STOP_SECONDS)
        self._running.clear()

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        seconds: Callable[[Item], float] = lambda item: DEFAULT_SECONDS,
    ) -> Iterator[tuple[Item, Result | Rejected]]:
        """Run a task on each item, see `Pool.run`; raise `SettingsError` if no node is left."""
        waiting = items if isinstance(items, deque) else deque(items)
        lost: deque[tuple[Item, int]] = deque()  # to try again, and how often it was lost
        running: dict[Any, tuple[Item, int]] = {}
        self._running = running
        check = _pickled_call(_run_check, self._check)
        if not self._ray.is_initialized():  # an earlier run was stopped
            self._connect()
        try:
            while waiting or lost or running:
                while (waiting or lost) and len(running) < self._max_in_flight():
                    item, n_losses = (waiting.popleft(), 0) if waiting else lost.popleft()
                    call = _pickled_call(task, item)
                    limit = self._limits.seconds or seconds(item)
                    ref = self._remote_run.remote(check, call, limit, self._limits.n_bytes)
                    running[ref] = item, n_losses
                for ref in self._finished(list(running)):
                    item, n_losses = running.pop(ref)
                    result = _result_of(self._ray, ref)
                    if not isinstance(result, _Lost):
                        yield item, result
                    elif n_losses + 1 < MAX_TRIES:
                        lost.append((item, n_losses + 1))
                    else:
                        yield item, Rejected(result.reason, f"{result.detail}, {MAX_TRIES} times")
        finally:
            if running:
                self._disconnect()

    def _max_in_flight(self) -> int:
        if time.monotonic() - self._counted > RECOUNT_INTERVAL:
            self._count_slots()
        return min(self._jobs or sys.maxsize, TASKS_PER_SLOT * self.slots)

    def _count_slots(self) -> None:
        self._counted = time.monotonic()
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self.slots = min(self._jobs or sys.maxsize, sum(map(self._request.room, nodes)))
        if self.slots:
            self._had_nodes = self._counted
        elif self._counted - self._had_nodes >= NO_NODES_TIMEOUT:
            most = {name: max((n.get(name, 0) for n in nodes), default=0) for name in RESOURCES}
            has = f"cpu={most['CPU']:g},memory={most['memory'] / 1e6:.0f},gpu={most['GPU']:g}"
            raise SettingsError(
                f"no node of the Ray cluster at {self._address} has {self._request}: they have "
                f"{has} at most",
                "ask for less with --ray-request, or start such a node; also a cluster that grows "
                "by itself needs one at the beginning",
            )

    def _finished(self, refs: list[Any]) -> list[Any]:
        if not refs:
            time.sleep(1)  # until there are nodes again
            return []
        self._ray.wait(refs, num_returns=1, timeout=1)
        return self._ray.wait(refs, num_returns=len(refs), timeout=0)[0]


class _Lost(Rejected):
    """An item whose node or Ray worker was lost."""


def _connected(address: str) -> Any:
    """Connect to a cluster, and return the module ray."""
    try:
        import ray
    except ImportError:
        raise SettingsError(
            "--ray needs Ray, which is not installed",
            "pip install 'deepfake-motion[ray]', or from a clone pip install -e '.[ray]'",
        ) from None
    hint = (
        "ray start --head on one machine and ray start --address=HOST:6379 on all others, this one "
        "too, with the same versions of Python and Ray"
    )
    if address != "auto" and not re.fullmatch(r"[^/\s]+:\d+", address):
        raise SettingsError(f"--ray {address} is neither auto nor HOST:PORT", hint)
    # First in another process: if nothing answers, Ray blocks for minutes and then exits.
    connect = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"
    try:
        trial = subprocess.run(
            [sys.executable, "-c", connect, address],
            capture_output=True,
            text=True,
            timeout=CONNECT_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise SettingsError(
            f"no Ray cluster answers at {address} within {CONNECT_TIMEOUT:.0f} s", hint
        ) from None
    if trial.returncode:
        why = (trial.stderr.strip() or f"exit code {trial.returncode}").splitlines()[-1]
        raise SettingsError(f"no Ray cluster at {address}: {why}", hint)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)
    return ray


def _result_of(ray: Any, ref: Any) -> Any:
    """Return an item's result, or raise what ends the run."""
    try:
        kind, value = ray.get(ref)
    except ray.exceptions.OutOfMemoryError:
        return _Lost(OUT_OF_MEMORY, "its node had none left, and Ray ended it")
    except ray.exceptions.NodeDiedError:
        return _Lost(CRASHED, "its node was lost")
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.ObjectLostError):
        return _Lost(CRASHED, "its Ray worker was killed")
    except ray.exceptions.RayError as error:
        where = f"node {error.ip}" if hasattr(error, "ip") else "the Ray cluster"
        raise SettingsError(
            f"{where} cannot do the work: {str(error).strip().splitlines()[-1]}",
            "install the same version of this program on all nodes, and see that they are up",
        ) from error
    if kind == "raise":
        exception, trace = pickle.loads(value)
        exception.__cause__ = RuntimeError(trace)
        raise exception
    return value if isinstance(value, Rejected) else pickle.loads(value)


def _pickled_call(function: Callable[..., Any], *arguments: Any) -> bytes:
    """Pickle a call for `_call`: Ray workers need not import it."""
    return pickle.dumps((Path.cwd(), function, arguments))


# ---------------------------------------------------------------------------------- on the nodes


_open_pool = contextlib.ExitStack()
_pool: LocalPool | None = None
_pool_key: tuple[Any, ...] = ()


def _run_in_ray_worker(check: bytes, call: bytes, seconds: float, n_bytes: int) -> tuple[str, Any]:
    """Return "done" and a call's result, or "raise" and an exception."""
    try:
        [(_, result)] = _checked_pool(check, n_bytes).run(_call, [call], lambda call: seconds)
    except Exception as error:
        return "raise", pickle.dumps((error, str(error.__cause__)))
    return "done", result


def _checked_pool(check: bytes, n_bytes: int) -> LocalPool:
    """Return this Ray worker's pool; raise `SettingsError` if the node fails the check."""
    global _pool, _pool_key
    # Ray may give the next task another GPU, but a process stays with its first one.
    key = (check, n_bytes, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if _pool is None or _pool_key != key:
        _pool_key = ()
        _open_pool.close()
        _pool = _open_pool.enter_context(LocalPool(1, Limits(n_bytes=n_bytes)))
        try:
            [(_, result)] = _pool.run(_call, [check], lambda call: CHECK_TIMEOUT)
            if isinstance(result, Rejected):
                raise result
        except SettingsError as error:
            raise SettingsError(f"node {_this_node()}: {error}", error.hint) from error
        except Exception as error:
            raise SettingsError(
                f"node {_this_node()} cannot do the work: {error!r}",
                "install the same version of this program there",
            ) from error
        _pool_key = key
    return _pool


def _call(call: bytes) -> bytes:
    """Do a pickled call in the pool's process; return its pickled result."""
    folder, function, arguments = pickle.loads(call)
    with contextlib.suppress(OSError):  # it need not exist here if all paths are absolute
        os.chdir(folder)
    return pickle.dumps(function(*arguments))


def _run_check(check: Callable[[], None] | None) -> None:
    if check:
        check()


def _this_node() -> str:
    import ray

    return f"{platform.node()} ({ray.util.get_node_ip_address()})"
