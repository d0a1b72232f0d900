"""How kernels are compiled: once, kept on disk, without the interpreter's lock."""

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function with numba; products and sums may be fused, nothing else rearranged."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A few operations that kernels share, compiled into each of them."""
    return numba.njit(inline="always")(function)
