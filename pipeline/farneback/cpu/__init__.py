"""Farneback's flow on the CPU: OpenCV's numbers from kernels that share work between frames."""

import functools
import logging
import sys

_log = logging.getLogger(__name__)


@functools.cache
def why_not() -> str:
    """Compile the kernels, or read them from numba's cache; what is in the way, or nothing."""
    try:
        from pipeline.farneback.cpu.engine import compile_kernels, kept_kernels

        if sys.stderr.isatty() and not kept_kernels():
            _log.warning("compiling the flow kernels for this machine, once; about half a minute")
        compile_kernels()
    except Exception as error:  # whatever a compiler may meet on a strange machine
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""
