"""Farneback's flow on a CUDA device, with PyTorch and Triton."""

import ctypes
import functools


@functools.cache
def why_not() -> str:
    """Return why no CUDA device can be used, or ``""``."""
    try:  # quicker than importing PyTorch
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver"
    import torch

    return "" if torch.cuda.is_available() else "PyTorch sees no CUDA device"
