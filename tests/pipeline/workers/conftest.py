"""A task that misbehaves as its item says."""

import sys
import textwrap

import pytest

TASKS = """
    import os, resource, signal, sys, threading, time
    from pipeline.common.errors import Rejected

    class Picky(Exception):  # cannot be unpickled from its message alone
        def __init__(self, what, where):
            super().__init__(f"{what} in {where}")

    def task(item):
        if item == "abort":
            os.abort()
        if item == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "hang":
            time.sleep(600)
        if item == "exit":
            sys.exit(3)
        if item == "reject":
            raise Rejected("too short", "5 frames")
        if item == "memory":
            resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
            return len(bytearray(2**34))
        if item == "fault":
            raise ZeroDivisionError("a fault of the program")
        if item == "full":
            raise OSError(28, "No space left on device", "/a/disk")
        if item == "picky":
            raise Picky("fault", "program")
        if item == "unpicklable":
            error = ValueError("a fault that cannot be pickled")
            error.lock = threading.Lock()
            raise error
        if item == "slow":
            time.sleep(600)
        if item == "greedy":
            hoard = []
            while True:
                hoard.append(b"x" * 2**24)
                time.sleep(0.01)
        if isinstance(item, tuple):  # an accident that does not repeat itself
            if not os.path.exists(item[1]):
                with open(item[1], "w") as file:
                    file.write(str(os.getpid()))
                os.kill(os.getppid() if item[0] == "parent" else os.getpid(), signal.SIGKILL)
                time.sleep(600)
        return [item, os.getpid()]
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A function in a module that worker processes can import."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "misbehaving_tasks.py").write_text(textwrap.dedent(TASKS))
    sys.path.insert(0, str(folder))
    import misbehaving_tasks

    yield misbehaving_tasks.task
    sys.path.remove(str(folder))
    del sys.modules["misbehaving_tasks"]
