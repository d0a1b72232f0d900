"""Farneback's flow on the CPU, by kernels that share work between frames.

Kernels see flat float32 planes with ``stride`` floats a row, and slack around them that vectors may
read and write.
"""

import functools
import logging
import sys

_log = logging.getLogger(__name__)


@functools.cache
def why_not() -> str:
    """Compile the kernels, or load them from disk; return why that fails, or ``""``."""
    try:
        from pipeline.farneback.cpu.engine import compile_kernels, has_cached_kernels

        if sys.stderr.isatty() and not has_cached_kernels():
            _log.warning("compiling the flow kernels for this machine, once; about half a minute")
        compile_kernels()
    except Exception as error:  # a compiler on an unknown machine
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""
