"""Errors before a command has begun: an old Python, a missing library, Ctrl-C."""

from __future__ import annotations  # an old Python must get as far as the error

import os
import sys
from types import TracebackType
from typing import NoReturn

MIN_PYTHON = (3, 10)
_INSTALL = (
    "in the folder of this program: source .venv/bin/activate if make install was run, else "
    f"{sys.executable} -m pip install -e ."
)


def watch() -> None:
    """Let ``python -m COMMAND`` fail in two lines while it is still being imported."""
    if sys.argv[:1] != ["-m"]:  # its value while Python looks for the command
        return
    if sys.version_info < MIN_PYTHON:
        needed = ".".join(map(str, MIN_PYTHON))
        running = f"{sys.version.split()[0]}, {sys.executable}"
        hint = f"make PYTHON=/path/to/python{needed} install; source .venv/bin/activate"
        _end(f"Python {needed} or newer is needed, this is {running}", hint, 2)
    sys.excepthook = _fail


def _fail(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    first = (str(error).splitlines() or [kind.__name__])[0]
    if issubclass(kind, KeyboardInterrupt):
        _end("interrupted", "nothing had begun: give the same command again", 130)
    elif issubclass(kind, ImportError):
        _end(first, how_to_install(first), 2)
    else:
        sys.__excepthook__(kind, error, trace)


def how_to_install(missing: str) -> str:
    """Return a hint for an ImportError; ``missing`` is its message."""
    if missing.startswith(("libGL", "libglib", "libgthread")):
        return "it is a library of the system: apt-get install libgl1 libglib2.0-0 has OpenCV's"
    return _INSTALL


def _end(message: str, hint: str, code: int) -> NoReturn:
    sys.stderr.write(f"error: {message}\nhint: {hint}\n")
    sys.stderr.flush()
    os._exit(code)  # half-imported libraries cannot shut down
