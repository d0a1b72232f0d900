"""Versions of installed packages."""

import functools
import importlib.metadata
import json

_CACHE_PACKAGES = (  # the bytes of a cache depend on them
    "deepfake-motion",
    "av",
    "deflate",
    "h5py",
    "numba",
    "numpy",
    "opencv-contrib-python",
)


def version_of(package: str) -> str:
    """Return a package's version, or ``""`` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def versions() -> str:
    """Return the versions of `_CACHE_PACKAGES` as JSON."""
    found = {name: version_of(name) or "unknown" for name in _CACHE_PACKAGES}
    return json.dumps(found, sort_keys=True)
