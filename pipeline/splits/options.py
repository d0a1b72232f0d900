"""Command-line options of a split."""

import functools
from collections.abc import Callable
from typing import Any, get_args

import click
import cloup

from pipeline.splits.protocols import Splitting, TrainOn

SPLIT_HELP = """
How to split. identity: by the shares below. official: as FaceForensics++, Celeb-DF and DFDC
publish it, without train and val videos that leak into test. published: the same with its leaks.
fold:I/K: test on fold I of K. leave-out:NAME: test on this manipulation, or with own:KIND on all
own fakes that contain this kind, and train on the others. test-on:SOURCE: test on this source,
train on the others.
"""


def splitting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a split to a command, which gets one `Splitting`."""

    @functools.wraps(command)
    def parsed(
        split: str,
        test: float,
        val: float,
        holdout: int,
        seed: int,
        train_on: TrainOn | None,
        **others: Any,
    ) -> Any:
        splitting = Splitting(split, test, val, holdout, seed, train_on)
        return command(splitting=splitting, **others)

    return cloup.option_group(
        "Splits (no identity is on two sides)",
        cloup.option("--split", metavar="HOW", default=Splitting.by, help=SPLIT_HELP),
        cloup.option(
            "--test",
            metavar="SHARE",
            type=click.FloatRange(0, 0.9),
            default=Splitting.test,
            help="Share for testing.",
        ),
        cloup.option(
            "--val",
            metavar="SHARE",
            type=click.FloatRange(0, 0.9),
            default=Splitting.val,
            help="Share for validation; with 0, model.fit makes folds of the training videos.",
        ),
        cloup.option(
            "--holdout",
            metavar="N",
            type=click.IntRange(0),
            default=Splitting.holdout,
            help="Hold out this many real and as many fake videos besides.",
        ),
        cloup.option(
            "--seed",
            metavar="N",
            type=int,
            default=Splitting.seed,
            help="Another seed, another split.",
        ),
        cloup.option(
            "--train-on",
            type=click.Choice(get_args(TrainOn)),
            help="Fakes to train on where data.fakes made some: own, real (all others) or all. "
            "Tests are on real ones where there are any.  [default: own]",
        ),
    )(parsed)
