"""Versions of what is installed."""

import functools
import importlib.metadata
import json

# What decides the bytes of a cache.
_DECISIVE = (
    "deepfake-motion",
    "av",
    "deflate",
    "h5py",
    "numba",
    "numpy",
    "opencv-contrib-python",
)


def version_of(package: str) -> str:
    """The version of a package, or nothing if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def versions() -> str:
    """The versions of what decides the bytes of a cache, as JSON."""
    return json.dumps({name: version_of(name) or "unknown" for name in _DECISIVE}, sort_keys=True)
