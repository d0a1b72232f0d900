"""What a node of a cluster must have in common with the machine that leads the work."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pipeline import farneback
from pipeline.cache.in_progress import LOCK, this_process
from pipeline.common.errors import SettingsError
from pipeline.common.versions import versions


def node_check(
    videos: Sequence[Path], cache: Path | None, backend: farneback.Backend
) -> Callable[[], None]:
    """A check of any node, for `pipeline.workers.ray_cluster.RayPool`.

    Args:
        videos: files or folders that a node has to see.
        cache: the folder that this process is going to write, if any.
        backend: of the flow.

    Returns:
        a function that can be pickled. It raises `SettingsError` on a node that does not see them,
        has other libraries, or does not compute flow by this backend.
    """
    return partial(
        _check,
        libraries=versions(),
        seen=[(path, path.absolute()) for path in videos],
        written=[] if cache is None else [(cache / LOCK, cache.absolute(), this_process())],
        backend=backend,
    )


def _check(
    libraries: str,
    seen: Sequence[tuple[Path, Path]],
    written: Sequence[tuple[Path, Path, str]],
    backend: farneback.Backend,
) -> None:
    """Check this node; of a folder it is given what to look at, and where that is in full."""
    here = json.loads(versions())
    for package, version in json.loads(libraries).items():
        if here.get(package) != version:
            raise SettingsError(
                f"{package} is {here.get(package)} there, and {version} where the command runs",
                "install the same versions on all nodes",
            )
    unseen = [name for path, name in seen if not os.access(path, os.R_OK)]
    unseen += [name for path, name, text in written if _text(path) != text]
    if unseen:
        raise SettingsError(
            f"it does not see {unseen[0]}, as the machine does where the command runs",
            "mount the same storage at the same path on all nodes",
        )
    if (found := farneback.resolve(backend)) != backend:
        raise SettingsError(
            f"it computes flow by {found} instead of {backend}", "choose another --flow-backend"
        )


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
