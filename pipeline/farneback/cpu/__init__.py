"""Farneback's flow on the CPU: OpenCV's results from kernels that share work between frames."""

import functools
import logging
import sys

_log = logging.getLogger(__name__)


@functools.cache
def why_not() -> str:
    """Compile the kernels, or load them from numba's cache; return why that fails, or ``""``."""
    try:
        from pipeline.farneback.cpu.engine import compile_kernels, has_cached_kernels

        if sys.stderr.isatty() and not has_cached_kernels():
            _log.warning("compiling the flow kernels for this machine, once; about half a minute")
        compile_kernels()
    except Exception as error:  # anything can go wrong in a compiler on an unknown machine
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""
