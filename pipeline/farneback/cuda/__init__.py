"""Farneback's flow on a CUDA device, by PyTorch and Triton."""

import ctypes
import functools


@functools.cache
def why_not() -> str:
    """What is in the way of a CUDA device, or nothing."""
    try:  # looking for the driver spares machines without one the import of PyTorch
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver"
    import torch

    return "" if torch.cuda.is_available() else "PyTorch sees no CUDA device"
