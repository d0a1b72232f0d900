"""The command that says whether a split leaks."""

from pathlib import Path

import click
import cloup

from pipeline.auditing import audit
from pipeline.common.cli import Command
from pipeline.common.errors import IntegrityError
from pipeline.corpus import layouts


@cloup.command(cls=Command)
@cloup.argument(
    "split",
    type=click.Path(path_type=Path),
    help="A cache, or a CSV file with the columns path,split[,identity]. The files need not exist.",
)
@cloup.option(
    "--layout",
    type=click.Choice(layouts.CHOICES),
    default=layouts.AUTO,
    help="Whose names of files say who is in them, where no identity is given.",
)
def main(split: Path, layout: str) -> None:
    """Say who is on two sides of a split: in a cache, or in anybody's list of files.

    Prints every pair of videos on different sides that have an identity, an original, a recording
    or a file in common. Where the list has no identities they are recognised from the names of DFD,
    FaceForensics++ and Celeb-DF. Ends with exit code 4 if the split leaks.

    \b
    Examples:
      python -m pipeline.audit split.csv
      python -m pipeline.audit caches/dfd
    """
    found = audit(split, layout)
    for pair in found.pairs():
        click.echo(pair)
    if leaks := found.leaks():
        for leak in leaks:
            click.echo(leak)
        raise IntegrityError(
            f"the split of {split} leaks: {len(leaks)} identities, originals or files are on two "
            "sides",
            "give all videos of an identity the same split, or leave out those that straddle",
        )
    unknown = f", {found.n_unknown} videos of whom none is known" if found.n_unknown else ""
    click.echo(
        f"no identity is on two sides: {len(found.names)} videos, {found.n_identities} identities"
        f"{unknown}"
    )


if __name__ == "__main__":
    main()
