"""Where work runs: the nodes of a Ray cluster, with the limits and results of one machine."""

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
from types import TracebackType
from typing import Any

from pipeline import farneback
from pipeline.cache.in_progress import LOCK, this_process
from pipeline.common.errors import Rejected, SettingsError
from pipeline.common.versions import versions
from pipeline.workers.local import CRASHED, GENEROUS, OUT_OF_MEMORY, Item, Limits, LocalPool, Result

AHEAD = 2  # tasks in flight per slot: one at work, one on its way
RECOUNT = 5.0  # seconds between two looks at the nodes there are
TO_CONNECT = 15.0  # seconds
WITHOUT_NODES = 60.0  # seconds until a run ends that has lost them all
TO_CHECK = 600.0  # seconds in which a node imports everything and compiles its kernels
TO_STOP = 1.0  # seconds in which Ray ends the processes of a driver that has let go
TRIES = 4  # of an item whose node or Ray worker is lost: it may be the node's fault
RESOURCES = ("CPU", "memory", "GPU")  # as Ray names them; memory in bytes


@dataclass(frozen=True)
class Request:
    """What a task reserves on a node.

    Attributes:
        cpu: cores.
        memory: MB.
        gpu: share of a GPU.
    """

    cpu: float = 1.0
    memory: float = 0.0
    gpu: float = 0.0

    def __post_init__(self) -> None:
        if not (0.01 <= self.cpu < 1e4 and 0 <= self.memory < 1e9 and 0 <= self.gpu <= 1):
            raise SettingsError(
                f"a request of {self}", "give cpu from 0.01, memory in MB, and gpu from 0 to 1"
            )

    def __str__(self) -> str:
        asked = {"cpu": self.cpu, "memory": self.memory, "gpu": self.gpu}
        return ",".join(f"{name}={value:g}" for name, value in asked.items() if value)

    def room(self, resources: dict[str, float]) -> int:
        """How many tasks a node with these resources has room for."""
        asked = zip(RESOURCES, (self.cpu, self.memory * 1e6, self.gpu), strict=True)
        return int(min(resources.get(name, 0) / n + 1e-6 for name, n in asked if n))


class RayPool:
    """The nodes of a Ray cluster; see `Pool`. Use it as a context manager.

    Every Ray worker keeps a `LocalPool` of one process, in which an item has the limits, the second
    try and the single thread that it has on one machine. An item whose Ray worker or node is lost
    is tried again elsewhere. Tasks run in the driver's working directory, where a node has it.

    Args:
        address: ``HOST:PORT`` of the cluster, or ``auto``: the one that this machine belongs to.
        limits: of one item.
        request: what an item reserves on a node.
        jobs: how many items at once, at most; by default as many as there is room for.
        check: called in every Ray worker before its first item. It can be pickled, and raises
            `SettingsError` where a node is not fit for the work.

    Raises:
        SettingsError: on entering, if there is no Ray, no such cluster, or no node for the request.
    """

    def __init__(
        self,
        address: str,
        limits: Limits = GENEROUS,
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._disconnect()

    def _connect(self) -> None:
        self._ray = _connected(self._address)
        self._had_nodes = time.monotonic() - WITHOUT_NODES
        try:
            self._count_slots()
        except BaseException:
            self._ray.shutdown()
            raise
        # `run` tries a lost item again: Ray would try one that fills a node's memory forever.
        self._work = self._ray.remote(
            num_cpus=self._request.cpu,
            num_gpus=self._request.gpu,
            memory=int(self._request.memory * 1e6),
            max_retries=0,
            max_calls=0,  # any number, also where it has a GPU
        )(_work)

    def _disconnect(self) -> None:
        """Let go of the cluster, which ends whatever runs there for this driver.

        After `ray.cancel` the driver may crash, if a task ends at the same moment (ray#54798).
        """
        self._ray.shutdown()
        if self._running:
            time.sleep(TO_STOP)
        self._running.clear()

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        seconds: Callable[[Item], float] = lambda item: 3600.0,
    ) -> Iterator[tuple[Item, Result | Rejected]]:
        """See `Pool.run`.

        Raises:
            SettingsError: a node is not fit for the work, or none is left.
        """
        waiting = items if isinstance(items, deque) else deque(items)
        again: deque[tuple[Item, int]] = deque()  # what was lost, and how often
        running: dict[Any, tuple[Item, int]] = {}
        self._running = running
        check = _call_of(_run_check, self._check)
        if not self._ray.is_initialized():  # an earlier run was stopped
            self._connect()
        try:
            while waiting or again or running:
                while (waiting or again) and len(running) < self._most_in_flight():
                    item, losses = (waiting.popleft(), 0) if waiting else again.popleft()
                    most = self._limits.seconds
                    allowed = seconds(item) if most is None else most
                    call = _call_of(task, item)
                    ref = self._work.remote(check, call, allowed, self._limits.n_bytes)
                    running[ref] = item, losses
                for ref in self._finished(list(running)):
                    item, losses = running.pop(ref)
                    outcome = _outcome(self._ray, ref)
                    if not isinstance(outcome, _Lost):
                        yield item, outcome
                    elif losses + 1 < TRIES:
                        again.append((item, losses + 1))
                    else:
                        yield item, Rejected(outcome.reason, f"{outcome.detail}, {TRIES} times")
        finally:
            if running:
                self._disconnect()

    def _most_in_flight(self) -> int:
        if time.monotonic() - self._counted > RECOUNT:
            self._count_slots()
        return min(self._jobs or sys.maxsize, AHEAD * self.slots)

    def _count_slots(self) -> None:
        """See how many items the nodes have room for, now."""
        self._counted = time.monotonic()
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self.slots = min(self._jobs or sys.maxsize, sum(map(self._request.room, nodes)))
        if self.slots:
            self._had_nodes = self._counted
        elif self._counted - self._had_nodes >= WITHOUT_NODES:
            most = {name: max((n.get(name, 0) for n in nodes), default=0) for name in RESOURCES}
            has = f"cpu={most['CPU']:g},memory={most['memory'] / 1e6:.0f},gpu={most['GPU']:g}"
            raise SettingsError(
                f"no node of the Ray cluster at {self._address} has {self._request}: they have "
                f"{has} at most",
                "ask for less with --ray-request, or start such a node; of a cluster that grows by "
                "itself one has to be there at the beginning",
            )

    def _finished(self, refs: list[Any]) -> list[Any]:
        if not refs:
            time.sleep(1)  # until there are nodes again
            return []
        self._ray.wait(refs, num_returns=1, timeout=1)
        return self._ray.wait(refs, num_returns=len(refs), timeout=0)[0]


class _Lost(Rejected):
    """No fault of the item, as far as one knows."""


def _connected(address: str) -> Any:
    """The module ray, connected to a cluster."""
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
    # In a process of its own first: where nobody answers, Ray blocks for minutes and then exits.
    connect = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", connect, address],
            capture_output=True,
            text=True,
            timeout=TO_CONNECT,
        )
    except subprocess.TimeoutExpired:
        raise SettingsError(
            f"no Ray cluster answers at {address} within {TO_CONNECT:.0f} s", hint
        ) from None
    if tried.returncode:
        why = (tried.stderr.strip() or f"exit code {tried.returncode}").splitlines()[-1]
        raise SettingsError(f"no Ray cluster at {address}: {why}", hint)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)
    return ray


def _outcome(ray: Any, ref: Any) -> Any:
    """What came of an item; raises what ends the run."""
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


# ------------------------------------------------------------------------------ on the nodes


def _call_of(function: Callable[..., Any], *arguments: Any) -> bytes:
    """A call for `_call`: a Ray worker hands it on as it is, and need not import what it needs."""
    return pickle.dumps((Path.cwd(), function, arguments))


def _call(call: bytes) -> bytes:
    """Do a call, in the process that a Ray worker keeps."""
    folder, function, arguments = pickle.loads(call)
    with contextlib.suppress(OSError):  # it need not be there if all paths are absolute
        os.chdir(folder)
    return pickle.dumps(function(*arguments))


def _run_check(check: Callable[[], None] | None) -> None:
    if check:
        check()


_kept = contextlib.ExitStack()
_pool: LocalPool | None = None
_pool_is_for: tuple[Any, ...] = ()


def _work(check: bytes, call: bytes, seconds: float, n_bytes: int) -> tuple[str, Any]:
    """Do a call in a Ray worker; what comes of it, pickled if it is not `Rejected`."""
    try:
        [(_, result)] = _checked_pool(check, n_bytes).run(_call, [call], lambda call: seconds)
    except Exception as error:
        return "raise", pickle.dumps((error, str(error.__cause__)))
    return "done", result


def _checked_pool(check: bytes, n_bytes: int) -> LocalPool:
    """One process, kept from one task to the next.

    Raises:
        SettingsError: this node is not fit for the work.
    """
    global _pool, _pool_is_for
    # Ray may give another GPU to the next task; a process keeps to the one it began with.
    wanted = (check, n_bytes, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if _pool is None or _pool_is_for != wanted:
        _pool_is_for = ()
        _kept.close()
        _pool = _kept.enter_context(LocalPool(1, Limits(n_bytes=n_bytes)))
        try:
            [(_, result)] = _pool.run(_call, [check], lambda call: TO_CHECK)
            if isinstance(result, Rejected):
                raise result
        except SettingsError as error:
            raise SettingsError(f"node {_this_node()}: {error}", error.hint) from error
        except Exception as error:
            raise SettingsError(
                f"node {_this_node()} cannot do the work: {error!r}",
                "install the same version of this program there",
            ) from error
        _pool_is_for = wanted
    return _pool


def _this_node() -> str:
    import ray

    return f"{platform.node()} ({ray.util.get_node_ip_address()})"


def node_check(
    videos: Sequence[Path], cache: Path | None, backend: farneback.Backend
) -> Callable[[], None]:
    """A check of any node, for `pipeline.workers.ray_cluster.RayPool`.

    Args:
        videos: files or folders that a node has to see.
        cache: the folder that this process is going to write, if any.
        backend: of the flow.

    Returns:
        a function that can be pickled. It raises `SettingsError` on a node that does not see them,
        has other libraries, or does not compute flow by this backend.
    """
    return partial(
        _check,
        libraries=versions(),
        seen=[(path, path.absolute()) for path in videos],
        written=[] if cache is None else [(cache / LOCK, cache.absolute(), this_process())],
        backend=backend,
    )


def _check(
    libraries: str,
    seen: Sequence[tuple[Path, Path]],
    written: Sequence[tuple[Path, Path, str]],
    backend: farneback.Backend,
) -> None:
    """Check this node; of a folder it is given what to look at, and where that is in full."""
    here = json.loads(versions())
    for package, version in json.loads(libraries).items():
        if here.get(package) != version:
            raise SettingsError(
                f"{package} is {here.get(package)} there, and {version} where the command runs",
                "install the same versions on all nodes",
            )
    unseen = [name for path, name in seen if not os.access(path, os.R_OK)]
    unseen += [name for path, name, text in written if _text(path) != text]
    if unseen:
        raise SettingsError(
            f"it does not see {unseen[0]}, as the machine does where the command runs",
            "mount the same storage at the same path on all nodes",
        )
    if (found := farneback.resolve(backend)) != backend:
        raise SettingsError(
            f"it computes flow by {found} instead of {backend}", "choose another --flow-backend"
        )


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
