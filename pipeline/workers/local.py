"""Where work runs: processes on this machine, each of which may crash or hang alone."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from pipeline.common.errors import Rejected
from pipeline.common.files import readable_bytes

Item = TypeVar("Item")
Result = TypeVar("Result")

CRASHED, OUT_OF_MEMORY = ACCIDENTS = ("crashed the decoder", "out of memory")
# Processes use the cores; threads of libraries would only fight over them.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
WATCH = 0.2  # seconds between two looks at how much memory processes use


@dataclass(frozen=True)
class Limits:
    """What one item may use before its process is killed.

    Attributes:
        seconds: of time; None leaves it to what is known of the item.
        n_bytes: of memory.
    """

    seconds: float | None = None
    n_bytes: int = 4 * 10**9


GENEROUS = Limits()


@dataclass
class _Worker(Generic[Item]):
    process: BaseProcess
    pipe: Connection
    item: Item
    seconds: float
    deadline: float


def available_cores() -> int:
    """The cores this process may use (a container or `taskset` may allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(Protocol):
    """Where work runs: `LocalPool` is this machine.

    Attributes:
        slots: how many items are worked on at once, about.
    """

    slots: int

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        seconds: Callable[[Item], float] = ...,
    ) -> Iterator[tuple[Item, Result | Rejected]]:
        """Run ``task`` over ``items`` in processes that may die; give results as they come.

        A task that raises `Rejected`, crashes its process, or takes too much time or memory costs
        its own item only. An item whose process dies or needs too much memory is tried once more:
        somebody else may have filled the memory or killed it. Any other exception is a fault of the
        program or of the machine (a full disk): it ends the run and is raised here.

        Args:
            task: a function that can be pickled; it returns something small.
            items: what to call it with. A deque may grow while results are taken.
            seconds: how long an item may take, where the pool's limits do not say.

        Yields:
            the item and its result, or the `Rejected` that says why there is none.
        """


class LocalPool:
    """Processes on this machine; see `Pool`.

    As a context manager it keeps its processes from one `run` to the next: to start one takes a
    second.

    Args:
        jobs: how many processes; by default one per core.
        limits: of one item.
    """

    def __init__(self, jobs: int | None = None, limits: Limits = GENEROUS) -> None:
        self.slots = jobs or available_cores()
        self._limits = limits
        self._idle: list[tuple[BaseProcess, Connection]] = []
        self._keeps = False

    def __enter__(self) -> "LocalPool":
        self._keeps = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._keeps = False
        self._stop_idle()

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        seconds: Callable[[Item], float] = lambda item: 3600.0,
    ) -> Iterator[tuple[Item, Result | Rejected]]:
        """See `Pool.run`. An item that is tried once more comes after all others."""
        waiting = items if isinstance(items, deque) else deque(items)
        busy: dict[Connection, _Worker[Item]] = {}
        tried: list[Item] = []  # once, in vain

        def is_final(item: Item, outcome: Any) -> bool:
            accident = isinstance(outcome, Rejected) and outcome.reason in ACCIDENTS
            if not accident or any(item is other for other in tried):
                return True
            tried.append(item)
            waiting.append(item)
            return False

        try:
            while waiting or busy:
                while waiting and len(busy) < self.slots:
                    process, pipe = self._idle.pop() if self._idle else _start()
                    item = waiting.popleft()
                    try:
                        pipe.send((task, item))
                    except OSError:  # it died while it was idle
                        _stop(process, pipe)
                        waiting.appendleft(item)
                        continue
                    most = self._limits.seconds
                    allowed = seconds(item) if most is None else most
                    busy[pipe] = _Worker(process, pipe, item, allowed, time.monotonic() + allowed)
                for ready in wait(list(busy), timeout=WATCH):
                    worker = busy.pop(ready)  # type: ignore[call-overload]
                    outcome = _receive(worker)
                    if worker.process.is_alive():
                        self._idle.append((worker.process, worker.pipe))
                    if is_final(worker.item, outcome):
                        yield worker.item, outcome
                for worker in list(busy.values()):
                    excess = _excess(worker, self._limits)
                    if excess is None or worker.pipe.poll():  # it was done while nobody looked
                        continue
                    del busy[worker.pipe]
                    _stop(worker.process, worker.pipe)
                    if is_final(worker.item, excess):
                        yield worker.item, excess
        finally:
            for worker in busy.values():
                _stop(worker.process, worker.pipe)
            if not self._keeps:
                self._stop_idle()

    def _stop_idle(self) -> None:
        while self._idle:
            _stop(*self._idle.pop())


def _excess(worker: _Worker[Any], limits: Limits) -> Rejected | None:
    if worker.deadline < time.monotonic():
        return Rejected("timed out", f"after {worker.seconds:.0f} s")
    if (used := _memory_of(worker.process.pid)) > limits.n_bytes:
        return Rejected(OUT_OF_MEMORY, f"it used {readable_bytes(used)}")
    return None


def _memory_of(pid: int | None) -> int:
    """The memory that a process occupies, in bytes; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _start() -> tuple[BaseProcess, Connection]:
    """Spawn, not fork: open HDF5 files and threads of libraries do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    # Ctrl-C reaches us and every worker at once; they inherit that it does not concern them. The
    # resource tracker unblocks signals when it starts, so it has to be there before.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    environment = dict(os.environ)
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read when it imports the libraries
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(environment)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return process, ours


def _stop(process: BaseProcess, pipe: Connection) -> None:
    process.kill()
    process.join()
    pipe.close()


def _receive(worker: _Worker[Any]) -> Any:
    try:
        kind, value = worker.pipe.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        code = worker.process.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Rejected(CRASHED, cause)
    if kind == "raise":
        _stop(worker.process, worker.pipe)
        exception, trace = value
        exception.__cause__ = RuntimeError(f"in a worker:\n{trace}")
        raise exception
    return value


def _serve(pipe: Connection) -> None:
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()
    while True:
        try:
            task, item = pipe.recv()
        except (EOFError, OSError):  # the parent is gone, or wants us gone
            return
        try:
            answer: tuple[str, Any] = ("done", task(item))
        except Rejected as rejected:
            answer = ("done", rejected)
        except MemoryError as error:
            answer = ("done", Rejected(OUT_OF_MEMORY, str(error)))
        except Exception as error:
            answer = ("raise", (_portable(error), traceback.format_exc()))
        try:
            pipe.send(answer)
        except OSError:  # nobody waits for it any more
            return


def _follow_parent() -> None:
    """End with the parent, however that ends, also in the middle of a video."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """An exception that survives the way to the parent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
