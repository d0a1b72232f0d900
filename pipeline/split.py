"""The command that gives a cache another split."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import click
import cloup

from pipeline.cache import NAMES, REJECTED, TIMING, Cache, write_index
from pipeline.cache.datacard import write_datacard
from pipeline.common.cli import Command
from pipeline.common.errors import SettingsError
from pipeline.common.files import scratch_folder
from pipeline.corpus.tables import split_lines
from pipeline.splits.options import splitting_options
from pipeline.splits.protocols import Splitting, split_clips


def resplit(cache: Cache, folder: Path, splitting: Splitting) -> Cache:
    """Make a cache of the same clips with another split, in a new folder, of links to shards."""
    if folder.exists():
        raise SettingsError(f"{folder} exists already", "give a new folder for the new split")
    clips = split_clips(cache.clips, splitting)
    attrs = {k: v for k, v in cache.attrs.items() if k not in ("schema", "stage", "settings")}
    new_splitting = {"splitting": dataclasses.asdict(splitting)}
    if cache.stage == "embed":
        settings, embedding = cache.settings, cache.settings
        extraction = json.loads(attrs["source_settings"]) | new_splitting
        attrs["source_settings"] = json.dumps(extraction, sort_keys=True)
    else:
        settings = extraction = cache.settings | new_splitting
        embedding = None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(f".{folder.name}.", folder.parent) as temporary:
        new = temporary / "cache"
        (new / "shards").mkdir(parents=True)
        for name in (*(shard.name for shard in cache.shards), NAMES, REJECTED, TIMING):
            if (cache.folder / name).is_file():
                _link(cache.folder / name, new / name)
        write_datacard(new, clips, extraction=extraction, attrs=attrs, embedding=embedding)
        write_index(
            new, stage=cache.stage, settings=settings, attrs=attrs, clips=clips, shards=cache.shards
        )
        new.rename(folder)
    return Cache(folder, cache.stage)


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


@cloup.command(cls=Command)
@cloup.argument("cache", type=click.Path(path_type=Path), help="A cache of either stage.")
@cloup.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the new cache.",
)
@splitting_options
def main(cache: Path, output: Path, splitting: Splitting) -> None:
    """Split a CACHE anew without extracting or embedding again.

    The new cache takes no space where the file system has hard links. Splits that a CSV file
    prescribed are kept, except by fold and test-on.

    \b
    Examples:
      python -m pipeline.split caches/ffpp-resnet18 -o caches/no-f2f --split leave-out:Face2Face
      for i in 1 2 3 4 5; do
        python -m pipeline.split caches/dfd-resnet18 -o caches/dfd-fold$i --split fold:$i/5
      done
    """
    new = resplit(Cache(cache), output, splitting)
    click.echo(f"{output}: {len(new.clips)} clips")
    settings = vars(splitting)
    click.echo("\n".join(split_lines(new.clips, [clip.split for clip in new.clips], settings)))


if __name__ == "__main__":
    main()
