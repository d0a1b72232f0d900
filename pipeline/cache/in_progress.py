"""A cache in the making: what it was begun with, what is finished, and who is at work on it."""

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

from pipeline.cache import DAMAGED_ENDING, INDEX, check_same_settings, shard_attrs
from pipeline.common.errors import SettingsError
from pipeline.common.files import end_of_lines, remove_temporaries, try_lock, write_whole

WORK = ".work"  # inside the cache until it is finished
PARTS = f"{WORK}/parts"
LOCK = f"{WORK}/lock"  # says which process is writing


class CacheInProgress:
    """The right to write one cache, alone, and the memory of an earlier run that was stopped.

    Use it as a context manager. What is finished stays finished: shards are kept if they were
    written with the same settings, and notes survive from one run to the next.

    Args:
        folder: the cache to be; made if it is not there.
        settings: everything that decides the bytes of the result, as JSON values.

    Raises:
        SettingsError: the folder holds something else, was begun with other settings, or another
            process is writing it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = json.loads(json.dumps(settings))
        self._notes: dict[str, bytes] = {}  # as they are on disk: objects would be much larger

    def __enter__(self) -> "CacheInProgress":
        work = self.folder / WORK
        if self.folder.exists() and not self.folder.is_dir():
            raise SettingsError(f"{self.folder} is a file", "give a folder for the cache")
        foreign = (
            sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []
        )
        ours = {WORK, INDEX, INDEX + DAMAGED_ENDING}
        if foreign and not ours & set(foreign):
            raise SettingsError(
                f"{self.folder} holds something that is not a cache: {', '.join(foreign[:5])}",
                "give a new or an empty folder for the cache",
            )
        work.mkdir(parents=True, exist_ok=True)
        self._lock()
        try:
            self._take_over(work)
        except BaseException:
            os.close(self._lock_handle)
            raise
        return self

    def _take_over(self, work: Path) -> None:
        for folder in (self.folder, self.folder / "shards", work, self.folder / PARTS):
            remove_temporaries(folder)
        begun = work / "settings.json"
        if begun.is_file():
            check_same_settings(self.folder, json.loads(begun.read_text()), self.settings)
        else:
            text = json.dumps(self.settings, indent=1)
            write_whole(begun, lambda path: path.write_text(text))
        self._read_notes()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        os.close(self._lock_handle)  # which gives up the lock; so does the end of the process

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
        os.fsync(self._lock_handle)  # other machines shall see it

    def _read_notes(self) -> None:
        path = self.folder / WORK / "notes.jsonl"
        if not path.is_file():
            return
        os.truncate(path, end_of_lines(path))
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # a line lost to a power cut is done again
                self._notes.update(dict.fromkeys(json.loads(line), line))

    def note(self, key: str) -> Any:
        """What was remembered under a key, by this run or an earlier one, or None."""
        line = self._notes.get(key)
        return None if line is None else json.loads(line)[key]

    def remember(self, key: str, value: Any) -> None:
        """Remember something for a later run that takes over from this one."""
        line = json.dumps({key: value}).encode()
        self._notes[key] = line
        with (self.folder / WORK / "notes.jsonl").open("ab") as file:
            file.write(line + b"\n")

    def recipe(self, **particulars: Any) -> str:
        """What a shard is made of, as a digest: these settings, and what is special to it."""
        text = json.dumps([self.settings, particulars], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def has_shard(self, name: str, recipe: str) -> bool:
        """Whether a shard is there, can be read to its end, and was made by this recipe."""
        attrs = shard_attrs(self.folder, name)
        return attrs is not None and attrs.get("recipe") == recipe

    def finish(self, shards: Iterable[str]) -> None:
        """Remove what a resumed run needs, shards of an earlier plan, and what the dead left."""
        for folder in (self.folder, self.folder / "shards"):
            remove_temporaries(folder)
        named = {self.folder / name for name in shards}
        for path in set((self.folder / "shards").glob("*.h5")) - named:
            path.unlink()
        remove_work(self.folder)


@functools.cache
def this_process() -> str:
    """This process, told from all others on all machines, in words."""
    return f"process {os.getpid()} on {os.uname().nodename} since {datetime.now():%F %T}"


def remove_work(folder: Path) -> None:
    """Remove what a finished cache does not need, if an earlier run was killed before it did."""
    shutil.rmtree(folder / WORK, ignore_errors=True)
