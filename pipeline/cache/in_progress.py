"""A cache that is being written: its settings, its finished parts, and the lock of its writer."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import types
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.cache.index import check_same_settings
from pipeline.cache.layout import DAMAGED_SUFFIX, INDEX
from pipeline.cache.shards import shard_recipe
from pipeline.common.errors import SettingsError
from pipeline.common.files import end_of_lines, remove_temporaries, try_lock, write_whole

WORK = ".work"  # inside the cache until it is finished
PARTS = f"{WORK}/parts"
LOCK = f"{WORK}/lock"  # names the process that is writing


class CacheInProgress:
    """The exclusive right to write one cache, and what an interrupted run left of it.

    Use it as a context manager. Finished shards are kept if they were written with the same
    settings, and notes survive from one run to the next.

    Args:
        folder: the cache's folder; created if it does not exist.
        settings: everything that the bytes of the result depend on, as JSON values.

    Raises:
        SettingsError: the folder holds something else or was begun with other settings, or
            another process is writing it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = json.loads(json.dumps(settings))
        self._notes: dict[str, bytes] = {}  # lines as on disk: objects would be much larger

    def __enter__(self) -> "CacheInProgress":
        work = self.folder / WORK
        if self.folder.exists() and not self.folder.is_dir():
            raise SettingsError(f"{self.folder} is a file", "give a folder for the cache")
        self.folder.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in self.folder.iterdir())
        if names and not {WORK, INDEX, INDEX + DAMAGED_SUFFIX} & set(names):
            raise SettingsError(
                f"{self.folder} holds something that is not a cache: {', '.join(names[:5])}",
                "give a new or an empty folder for the cache",
            )
        work.mkdir(exist_ok=True)
        self._lock()
        try:
            self._resume(work)
        except BaseException:
            os.close(self._lock_handle)
            raise
        return self

    def _resume(self, work: Path) -> None:
        for folder in (self.folder, self.folder / "shards", work, self.folder / PARTS):
            remove_temporaries(folder)
        settings = work / "settings.json"
        if settings.is_file():
            check_same_settings(self.folder, json.loads(settings.read_text()), self.settings)
        else:
            text = json.dumps(self.settings, indent=1)
            write_whole(settings, lambda path: path.write_text(text))
        self._read_notes()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        os.close(self._lock_handle)  # releases the lock; so does the end of the process

    def _lock(self) -> None:
        self._lock_handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        if not try_lock(self._lock_handle):
            holder = os.read(self._lock_handle, 256).decode() or "unknown"
            os.close(self._lock_handle)
            raise SettingsError(
                f"another process is writing {self.folder}: {holder}",
                "wait for it to end, or give another output folder",
            )
        os.ftruncate(self._lock_handle, 0)
        os.write(self._lock_handle, this_process().encode())
        os.fsync(self._lock_handle)  # for readers on other machines

    def _read_notes(self) -> None:
        path = self.folder / WORK / "notes.jsonl"
        if not path.is_file():
            return
        os.truncate(path, end_of_lines(path))
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # garbled by a power cut: done again
                self._notes.update(dict.fromkeys(json.loads(line), line))

    def note(self, key: str) -> Any:
        """Return the note of this or an earlier run under a key, or None."""
        line = self._notes.get(key)
        return None if line is None else json.loads(line)[key]

    def remember(self, key: str, value: Any) -> None:
        """Note a JSON value for a run that resumes this one."""
        line = json.dumps({key: value}).encode()
        self._notes[key] = line
        with (self.folder / WORK / "notes.jsonl").open("ab") as file:
            file.write(line + b"\n")

    def recipe(self, **particulars: Any) -> str:
        """Return a digest of everything a shard is made from: the settings and its particulars."""
        text = json.dumps([self.settings, particulars], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def has_shard(self, name: str, recipe: str) -> bool:
        """Return whether a readable shard of this recipe exists."""
        return shard_recipe(self.folder, name) == recipe

    def finish(self, shards: Iterable[str]) -> None:
        """Remove what only a resumed run needs, shards of an earlier plan, and temporary files."""
        for folder in (self.folder, self.folder / "shards"):
            remove_temporaries(folder)
        used = {self.folder / name for name in shards}
        for path in set((self.folder / "shards").glob("*.h5")) - used:
            path.unlink()
        remove_work(self.folder)


@functools.cache
def this_process() -> str:
    """Describe this process, unlike any other on any machine."""
    return f"process {os.getpid()} on {os.uname().nodename} since {datetime.now():%F %T}"


def remove_work(folder: Path) -> None:
    """Remove the work folder of a finished cache, which a killed run may have left."""
    shutil.rmtree(folder / WORK, ignore_errors=True)
