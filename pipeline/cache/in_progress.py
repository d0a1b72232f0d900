"""A cache that is being written: settings, finished parts, and the writer's lock."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
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
    """The exclusive right to write a cache, with the shards and notes of an interrupted run."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = json.loads(json.dumps(settings))  # all that the result's bytes depend on
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

    def __exit__(self, *_: object) -> None:
        os.close(self._lock_handle)  # releases the lock

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
        """Return the note under a key, or None."""
        line = self._notes.get(key)
        return None if line is None else json.loads(line)[key]

    def remember(self, key: str, value: Any) -> None:
        """Note a JSON value, also for a run that resumes this one."""
        line = json.dumps({key: value}).encode()
        self._notes[key] = line
        with (self.folder / WORK / "notes.jsonl").open("ab") as file:
            file.write(line + b"\n")

    def recipe(self, **particulars: Any) -> str:
        """Return a digest of all that a shard is made from: settings and particulars."""
        text = json.dumps([self.settings, particulars], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def has_shard(self, name: str, recipe: str) -> bool:
        """Return whether a readable shard of this recipe exists."""
        return shard_recipe(self.folder, name) == recipe

    def finish(self, shards: Iterable[str]) -> None:
        """Remove all but the finished cache."""
        for folder in (self.folder, self.folder / "shards"):
            remove_temporaries(folder)
        used = {self.folder / name for name in shards}
        for path in set((self.folder / "shards").glob("*.h5")) - used:
            path.unlink()
        remove_work(self.folder)


@functools.cache
def this_process() -> str:
    """Return a description unique among all machines."""
    return f"process {os.getpid()} on {os.uname().nodename} since {datetime.now():%F %T}"


def remove_work(folder: Path) -> None:
    """Remove what only an unfinished cache needs."""
    shutil.rmtree(folder / WORK, ignore_errors=True)
