"""Options shared by commands, and the warnings of a run."""

from typing import TYPE_CHECKING

import click
import cloup

if TYPE_CHECKING:
    from model.run.run import Run

allow_leaks_option = cloup.option(
    "--allow-leaks",
    is_flag=True,
    help="Continue if the split leaks; every metric and report then has a warning.",
)
controls_option = cloup.option(
    "--no-controls",
    is_flag=True,
    help="Do not train the controls that are heads: shuffled time, flow only, frames only.",
)
weights_option = cloup.option(
    "--weights",
    metavar="PATH",
    help="Weights of the backbone, if features.embed was given a file.",
)
cases_option = cloup.option(
    "--cases",
    metavar="N",
    type=click.IntRange(0),
    default=3,
    help="Write pages about the N worst mistakes, as model.predict --report does, and link them in "
    "the report.",
)
jobs_option = cloup.option(
    "--jobs", metavar="N", type=click.IntRange(1), help="Worker processes.  [default: one per core]"
)


def warn(run: "Run") -> None:
    """Print the warnings of a run to stderr."""
    for warning in run.config.warnings:
        click.secho(f"WARNING: {warning}", fg="yellow", err=True)
