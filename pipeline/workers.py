"""Where work runs: processes on this machine, each of which may crash or hang alone."""

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from pipeline.errors import Rejected

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Worker(Generic[Item]):
    process: BaseProcess
    pipe: Connection
    item: Item
    deadline: float


def available_cores() -> int:
    """The cores this process may use (a container or `taskset` may allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    jobs: int,
    timeout: float = 3600.0,
) -> Iterator[tuple[Item, Result | Rejected]]:
    """Run ``task`` over ``items`` in processes of their own, and give results as they come.

    A task that raises `Rejected`, crashes its process, or takes longer than ``timeout`` costs its
    own item only. Any other exception is a fault of the program or of the machine (a full disk):
    it ends the run and is raised here.

    Args:
        task: a function that can be pickled; it returns something small.
        items: what to call it with.
        jobs: how many processes.
        timeout: seconds that one item may take.

    Yields:
        the item and its result, or the `Rejected` that says why there is none.
    """
    waiting = deque(items)
    jobs = min(jobs, len(waiting))
    idle: list[tuple[BaseProcess, Connection]] = []
    busy: dict[Connection, _Worker[Item]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                process, pipe = idle.pop() if idle else _start(task)
                item = waiting.popleft()
                pipe.send(item)
                busy[pipe] = _Worker(process, pipe, item, time.monotonic() + timeout)
            nearest = min(worker.deadline for worker in busy.values()) - time.monotonic()
            for ready in wait(list(busy), timeout=max(0.0, nearest)):
                worker = busy.pop(ready)  # type: ignore[call-overload]
                outcome = _receive(worker)
                if worker.process.is_alive():
                    idle.append((worker.process, worker.pipe))
                yield worker.item, outcome
            for pipe in [p for p, w in busy.items() if w.deadline < time.monotonic()]:
                worker = busy.pop(pipe)
                _stop(worker.process, worker.pipe)
                yield worker.item, Rejected("timed out", f"after {timeout:g} s")
    finally:
        for worker in busy.values():
            _stop(worker.process, worker.pipe)
        for process, pipe in idle:
            _stop(process, pipe)


def _start(task: Callable[[Item], Result]) -> tuple[BaseProcess, Connection]:
    """Spawn, not fork: open HDF5 files and threads of libraries do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _stop(process: BaseProcess, pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.join()


def _receive(worker: _Worker[Any]) -> Any:
    try:
        kind, value = worker.pipe.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        code = worker.process.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Rejected("crashed the decoder", cause)
    if kind == "raise":
        exception, trace = value
        exception.__cause__ = RuntimeError(f"in a worker:\n{trace}")
        raise exception
    return value


def _serve(task: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import cv2

    cv2.setNumThreads(1)  # processes use the cores; threads would only fight over them
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = ("done", task(item))
        except Rejected as rejected:
            answer = ("done", rejected)
        except MemoryError as error:
            answer = ("done", Rejected("out of memory", str(error)))
        except Exception as error:
            answer = ("raise", (error, traceback.format_exc()))
        pipe.send(answer)
