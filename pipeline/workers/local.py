"""Pool of processes on this machine."""

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
from typing import Any, Generic, Protocol, TypeVar

from pipeline.common.errors import Rejected
from pipeline.common.files import readable_bytes

Item = TypeVar("Item")
Result = TypeVar("Result")

CRASHED, OUT_OF_MEMORY = ACCIDENTS = ("crashed the decoder", "out of memory")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
CHECK_INTERVAL = 0.2  # seconds
DEFAULT_SECONDS = 3600.0


@dataclass(frozen=True)
class Limits:
    """Limits of one item; a process that exceeds them is killed."""

    seconds: float | None = None  # None: those of `Pool.run`
    n_bytes: int = 4 * 10**9


DEFAULT_LIMITS = Limits()


@dataclass
class _Worker(Generic[Item]):
    process: BaseProcess
    pipe: Connection
    item: Item
    seconds: float
    deadline: float


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(Protocol):
    """Runs tasks in other processes."""

    slots: int  # about as many items run at once

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        seconds: Callable[[Item], float] = ...,
    ) -> Iterator[tuple[Item, Result | Rejected]]:
        """Run a task on each item, in processes that may die.

        An item whose task raises `Rejected`, crashes its process, or exceeds the limits fails
        alone; after a crash or lack of memory it is tried once more, as another program may be the
        cause. Any other exception ends the run and is raised here.

        Args:
            task: picklable function with a small result.
            items: a deque may grow while results are taken.
            seconds: time limit of an item, unless the pool has one.

        Yields:
            an item and its result, or why it has none, in order of completion.
        """


class LocalPool:
    """Pool of processes on this machine, by default one per core.

    A context manager keeps them from one `run` to the next: starting one takes a second.
    """

    def __init__(self, jobs: int | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        self.slots = jobs or available_cores()
        self._limits = limits
        self._idle: list[tuple[BaseProcess, Connection]] = []
        self._is_open = False

    def __enter__(self) -> "LocalPool":
        self._is_open = True
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_open = False
        self._stop_idle()

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        seconds: Callable[[Item], float] = lambda item: DEFAULT_SECONDS,
    ) -> Iterator[tuple[Item, Result | Rejected]]:
        """Run a task on each item, see `Pool.run`; second tries come last."""
        waiting = items if isinstance(items, deque) else deque(items)
        busy: dict[Connection, _Worker[Item]] = {}
        failed_once: list[Item] = []

        def is_final(item: Item, result: Any) -> bool:
            accident = isinstance(result, Rejected) and result.reason in ACCIDENTS
            if not accident or any(item is other for other in failed_once):
                return True
            failed_once.append(item)
            waiting.append(item)
            return False

        try:
            while waiting or busy:
                while waiting and len(busy) < self.slots:
                    process, pipe = self._idle.pop() if self._idle else _start()
                    item = waiting.popleft()
                    try:
                        pipe.send((task, item))
                    except OSError:  # the process died while it was idle
                        _stop(process, pipe)
                        waiting.appendleft(item)
                        continue
                    limit = self._limits.seconds or seconds(item)
                    busy[pipe] = _Worker(process, pipe, item, limit, time.monotonic() + limit)
                for ready in wait(list(busy), timeout=CHECK_INTERVAL):
                    worker = busy.pop(ready)  # type: ignore[call-overload]
                    result = _receive(worker)
                    if worker.process.is_alive():
                        self._idle.append((worker.process, worker.pipe))
                    if is_final(worker.item, result):
                        yield worker.item, result
                for worker in list(busy.values()):
                    excess = _excess(worker, self._limits)
                    if excess is None or worker.pipe.poll():  # it has finished meanwhile
                        continue
                    del busy[worker.pipe]
                    _stop(worker.process, worker.pipe)
                    if is_final(worker.item, excess):
                        yield worker.item, excess
        finally:
            for worker in busy.values():
                _stop(worker.process, worker.pipe)
            if not self._is_open:
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
    """Return the resident memory of a process in bytes, 0 if unknown."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _start() -> tuple[BaseProcess, Connection]:
    """Spawn a process: open HDF5 files and libraries' threads do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    # Workers inherit that SIGINT is blocked: Ctrl-C reaches all processes of the terminal. The
    # resource tracker unblocks signals when it starts, so it must run before.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    environment = dict(os.environ)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # libraries read them when imported
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
        except (EOFError, OSError):  # the parent has ended, or closed the pipe
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
        except OSError:  # the parent has closed the pipe
            return


def _follow_parent() -> None:
    """Exit when the parent ends, even within a task."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """Return the exception, or one that can be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
