"""What a node of a cluster must have in common with the machine that leads the work."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pipeline import farneback
from pipeline.errors import SettingsError
from pipeline.extraction import versions
from pipeline.resume import LOCK, this_process


def node_check(
    videos: Sequence[Path], cache: Path | None, backend: farneback.Backend
) -> Callable[[], None]:
    """A check of any node, for `pipeline.cluster.RayPool`.

    Args:
        videos: files or folders that a node has to see.
        cache: the folder that this process is going to write, if any.
        backend: of the flow.

    Returns:
        a function that can be pickled. It raises `SettingsError` on a node that does not see them,
        has other libraries, or does not compute flow by this backend.
    """
    lock = None if cache is None else (cache / LOCK, this_process())
    seen = [(path, str(path.absolute())) for path in videos]
    return partial(_check, seen, lock, versions(), backend)


def _check(
    seen: Sequence[tuple[Path, str]],
    lock: tuple[Path, str] | None,
    versions_there: str,
    backend: farneback.Backend,
) -> None:
    here, there = json.loads(versions()), json.loads(versions_there)
    for package, version in there.items():
        if here.get(package) != version:
            raise SettingsError(
                f"{package} is {here.get(package)} there, and {version} where the command runs",
                "install the same versions on all nodes",
            )
    for path, name in seen:
        if not path.exists():
            raise SettingsError(f"it does not see {name}", SHARE)
    if lock and not _holds(*lock):
        raise SettingsError(f"it does not see the cache's folder {lock[0].parent.parent}", SHARE)
    if (found := farneback.resolve(backend)) != backend:
        raise SettingsError(
            f"it computes flow by {found} instead of {backend}", "choose another --flow-backend"
        )


SHARE = "mount the same storage at the same path on all nodes"


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except OSError:
        return False
