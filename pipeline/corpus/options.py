"""Options of commands that find videos."""

import click
import cloup

from pipeline.corpus import layouts

which_videos_options = cloup.option_group(
    "Which videos",
    cloup.option(
        "--layout",
        type=click.Choice(layouts.CHOICES),
        default=layouts.AUTO,
        help="Naming scheme: auto recognises each folder's, folders uses *REAL* and *FAKE* alone.",
    ),
    cloup.option(
        "--follow-links",
        is_flag=True,
        help="Follow symbolic links out of the given folders instead of rejecting them.",
    ),
)
max_rejects_option = cloup.option(
    "--max-rejects",
    metavar="N",
    type=click.IntRange(0),
    help="Exit with code 3 if more files than this are rejected.  [default: no limit]",
)
