"""Errors before a command has begun: a missing library, Ctrl-C."""

from __future__ import annotations  # for an old Python, which lacks the libraries too

import os
import sys
from types import TracebackType
from typing import NoReturn

_INSTALL = (
    "in the folder of this program: source .venv/bin/activate if make install was run, else "
    f"{sys.executable} -m pip install -e ."
)


def watch() -> None:
    """Let ``python -m COMMAND`` fail in two lines while it is still being imported."""
    if sys.argv[:1] == ["-m"]:  # its value while Python looks for the command
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
    """Return a hint for the message of an ImportError."""
    if missing.startswith(("libGL", "libglib", "libgthread")):
        return "it is a library of the system: apt-get install libgl1 libglib2.0-0 has OpenCV's"
    return _INSTALL


def _end(message: str, hint: str, code: int) -> NoReturn:
    sys.stderr.write(f"error: {message}\nhint: {hint}\n")
    sys.stderr.flush()
    os._exit(code)  # half-imported libraries cannot shut down
