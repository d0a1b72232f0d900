"""The command-line options that say how to split a corpus."""

import functools
from collections.abc import Callable
from typing import Any

import click
import cloup

from pipeline.splits.protocols import Splitting

_SPLITTING = Splitting()


SPLIT_HELP = """
How to split. identity: by the shares below. official: as FaceForensics++, Celeb-DF and DFDC
publish it; what leaks into test is dropped from val and train. published: the same, leaks and all.
fold:I/K: fold I of K tests. leave-out:NAME: train on all manipulations but this, test on this.
test-on:SOURCE: train on all sources but this, test on this.
"""


def splitting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how to split; the command gets one `Splitting`."""

    @functools.wraps(command)
    def parsed(split: str, test: float, val: float, holdout: int, seed: int, **others: Any) -> Any:
        how = Splitting(by=split, test=test, val=val, holdout=holdout, seed=seed)
        return command(splitting=how, **others)

    return cloup.option_group(
        "Splits (no identity is on two sides)",
        cloup.option("--split", metavar="HOW", default=_SPLITTING.by, help=SPLIT_HELP),
        cloup.option(
            "--test",
            metavar="SHARE",
            type=click.FloatRange(0, 0.9),
            default=_SPLITTING.test,
            help="Share for testing.",
        ),
        cloup.option(
            "--val",
            metavar="SHARE",
            type=click.FloatRange(0, 0.9),
            default=_SPLITTING.val,
            help="Share for validation; 0 lets model.fit make folds of the training videos.",
        ),
        cloup.option(
            "--holdout",
            metavar="N",
            type=click.IntRange(0),
            default=_SPLITTING.holdout,
            help="This many real and as many fake videos are held out besides.",
        ),
        cloup.option(
            "--seed", metavar="N", type=int, default=_SPLITTING.seed, help="Decides what is open."
        ),
    )(parsed)
