"""The command that makes one file of a cache, and a cache of such a file."""

import time
from pathlib import Path

import click
import cloup

from pipeline.cache import Cache
from pipeline.common.cli import Command, log_json_option
from pipeline.common.errors import SettingsError
from pipeline.common.files import readable_bytes
from pipeline.packing import pack, unpack


@cloup.command(cls=Command)
@cloup.argument(
    "source",
    type=click.Path(path_type=Path),
    help="The folder of a cache of either stage, or a file that this command made of one.",
)
@cloup.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The file, or the folder, to make; it must not be there yet.",
)
@log_json_option
def main(source: Path, output: Path) -> None:
    """Make one HDF5 file of a cache, to carry it elsewhere, or a cache of such a file.

    Every byte is checked on both ways; what comes out is the very same cache.

    \b
    Examples:
      python -m pipeline.pack caches/dfd -o dfd.h5
      python -m pipeline.pack dfd.h5 -o caches/dfd
    """
    if not source.exists():
        raise SettingsError(f"{source} does not exist", "give a cache, or a file made of one")
    begin = time.perf_counter()
    if source.is_dir():
        size = pack(Cache(source), output)
        what = f"{output}: {source} in one file"
    else:
        cache = unpack(source, output)
        size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        what = f"{output}: a cache of {len(cache.clips)} clips"
    speed = size / 1e6 / (time.perf_counter() - begin)
    click.echo(f"{what}, {readable_bytes(size)}, {speed:.0f} MB/s, every checksum is right")


if __name__ == "__main__":
    main()
