"""Options that several commands have, and what they say of a run."""

from typing import TYPE_CHECKING

import click
import cloup

if TYPE_CHECKING:
    from model.run.run import Run

allow_leaks_option = cloup.option(
    "--allow-leaks",
    is_flag=True,
    help="Go on where somebody or something is on two sides of the split; every metric and report "
    "then says so.",
)
controls_option = cloup.option(
    "--no-controls",
    is_flag=True,
    help="Do not train the controls that are heads like the detector's: shuffled time, flow only, "
    "frames only.",
)
weights_option = cloup.option(
    "--weights",
    metavar="PATH",
    help="The backbone's weights, if they were given to features.embed as a file.",
)
cases_option = cloup.option(
    "--cases",
    metavar="N",
    type=click.IntRange(0),
    default=3,
    help="Write a page about each of the N worst mistakes, at most, as model.predict --report "
    "does; the report leads to them.",
)
jobs_option = cloup.option(
    "--jobs", metavar="N", type=click.IntRange(1), help="Processes.  [default: one per core]"
)


def warn(run: "Run") -> None:
    """Say on the terminal what every result of a run rests on, where that is not sound."""
    for warning in run.config.warnings:
        click.secho(f"WARNING: {warning}", fg="yellow", err=True)
