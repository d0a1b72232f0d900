"""The command that splits a cache anew."""

from pathlib import Path

import click
import cloup

from pipeline.cache import Cache
from pipeline.common.cli import Command, splitting_options
from pipeline.corpus.tables import split_lines
from pipeline.resplitting import resplit
from pipeline.splits.protocols import Splitting


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
    """Make another split of a CACHE, without extracting or embedding anything again.

    The new cache has links to the same shards where the file system allows that, so it costs no
    space. Splits that a CSV file prescribed are kept, except by fold and test-on.

    \b
    Examples:
      python -m pipeline.split caches/ffpp-resnet18 -o caches/no-f2f --split leave-out:Face2Face
      for i in 1 2 3 4 5; do
        python -m pipeline.split caches/dfd-resnet18 -o caches/dfd-fold$i --split fold:$i/5
        python -m model.fit caches/dfd-fold$i -o runs/dfd-fold$i
      done
    """
    new = resplit(Cache(cache), output, splitting)
    click.echo(f"{output}: {len(new.clips)} clips")
    settings = vars(splitting)
    click.echo("\n".join(split_lines(new.clips, [clip.split for clip in new.clips], settings)))


if __name__ == "__main__":
    main()
