"""Another split of a cache, without extracting or embedding anything again."""

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.cache import TIMING, Cache, Clip, write_index
from pipeline.cache.datacard import write_datacard
from pipeline.common.errors import SettingsError
from pipeline.scratch import scratch_folder
from pipeline.splits.protocols import Splitting, split_videos

COPIED = ("names.csv", "rejected.csv", TIMING)


def resplit(cache: Cache, folder: Path, how: Splitting) -> Cache:
    """Make a cache of the same clips with another split.

    Shards are hard links where the file system has them, else copies.

    Args:
        cache: of either stage.
        folder: of the new cache; it must not be there yet.
        how: the split.

    Raises:
        SettingsError: the folder exists, or the protocol does not fit these videos.
    """
    if folder.exists():
        raise SettingsError(f"{folder} exists already", "give a new folder for the new split")
    clips = split_clips(cache.clips, how)
    attrs = {k: v for k, v in cache.attrs.items() if k not in ("schema", "stage", "settings")}
    settings, extraction = cache.settings, cache.settings
    if cache.stage == "embed":
        extraction = json.loads(attrs["source_settings"])
    extraction = extraction | {"splitting": dataclasses.asdict(how)}
    if cache.stage == "embed":
        attrs["source_settings"] = json.dumps(extraction, sort_keys=True)
    else:
        settings = extraction
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(f".{folder.name}.", folder.parent) as temporary:
        new = temporary / "cache"  # renamed at the end, so that it is whole or not there
        (new / "shards").mkdir(parents=True)
        for name in [shard.name for shard in cache.shards] + [
            name for name in COPIED if (cache.folder / name).is_file()
        ]:
            _link(cache.folder / name, new / name)
        write_datacard(
            new,
            clips,
            extraction=extraction,
            attrs=attrs,
            embedding=settings if cache.stage == "embed" else None,
        )
        write_index(
            new, stage=cache.stage, settings=settings, attrs=attrs, clips=clips, shards=cache.shards
        )
        new.rename(folder)
    return Cache(folder, cache.stage)


def split_clips(clips: Sequence[Clip], how: Splitting) -> list[Clip]:
    """The same rows, with the splits that a protocol gives to their videos."""
    videos = list({clip.video: clip for clip in clips}.values())
    splits = split_videos(videos, [video.source_sha256 for video in videos], how)
    split_of = {video.video: split or "" for video, split in zip(videos, splits, strict=True)}
    return [dataclasses.replace(clip, split=split_of[clip.video]) for clip in clips]


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)
