"""Where work runs: processes on this machine, each of which may crash or hang alone."""

import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from tqdm import tqdm

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
    title: str | None = None,
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
        title: of a progress bar on a terminal, or None for no bar.

    Yields:
        the item and its result, or the `Rejected` that says why there is none.
    """
    waiting = deque(items)
    with tqdm(
        total=len(waiting),
        desc=title,
        unit="video",
        disable=True if title is None else None,  # None: shown on a terminal only
    ) as bar:
        n_rejected = 0
        for item, outcome in _outcomes(task, waiting, jobs, timeout):
            n_rejected += isinstance(outcome, Rejected)
            bar.set_postfix(rejected=n_rejected, refresh=False)
            bar.update()
            yield item, outcome


def _outcomes(
    task: Callable[[Item], Result], waiting: deque[Item], jobs: int, timeout: float
) -> Iterator[tuple[Item, Result | Rejected]]:
    idle: list[tuple[BaseProcess, Connection]] = []
    busy: dict[Connection, _Worker[Item]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                process, pipe = idle.pop() if idle else _start(task)
                item = waiting.popleft()
                try:
                    pipe.send(item)
                except OSError:  # it died while it was idle
                    _stop(process, pipe)
                    waiting.appendleft(item)
                    continue
                busy[pipe] = _Worker(process, pipe, item, time.monotonic() + timeout)
            nearest = min(worker.deadline for worker in busy.values()) - time.monotonic()
            for ready in wait(list(busy), timeout=max(0.0, nearest)):
                worker = busy.pop(ready)  # type: ignore[call-overload]
                outcome = _receive(worker)
                if worker.process.is_alive():
                    idle.append((worker.process, worker.pipe))
                yield worker.item, outcome
            now = time.monotonic()
            late = [worker for worker in busy.values() if worker.deadline < now]
            for worker in late:
                if worker.pipe.poll():  # it was done while nobody looked
                    continue
                del busy[worker.pipe]
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
    # Ctrl-C reaches us and every worker at once; they inherit that it does not concern them. The
    # resource tracker unblocks signals when it starts, so it has to be there before.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
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
        _stop(worker.process, worker.pipe)
        exception, trace = value
        exception.__cause__ = RuntimeError(f"in a worker:\n{trace}")
        raise exception
    return value


def _serve(task: Callable[[Any], Any], pipe: Connection) -> None:
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
            answer = ("raise", (_portable(error), traceback.format_exc()))
        try:
            pipe.send(answer)
        except OSError:  # nobody waits for it any more
            return


def _portable(error: Exception) -> Exception:
    """An exception that survives the way to the parent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
