"""The command that trains a detector over a cache of embeddings."""

from pathlib import Path

import click
import cloup

from model.evaluation import evaluate
from model.fitting import fit
from model.report import write_report
from model.run import allow_leaks_option, controls_option, warn
from model.sequences import STREAMS
from model.summary import headline
from model.training import TrainingSettings
from model.videos import UNSEEN
from pipeline.cache import Cache
from pipeline.cli import Command, some_of

DEFAULTS = TrainingSettings()


@cloup.command(cls=Command)
@cloup.argument(
    "embeddings", type=click.Path(path_type=Path), help="A cache that features.embed made."
)
@cloup.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run."
)
@cloup.option_group(
    "Tuning",
    cloup.option(
        "--tune",
        metavar="N",
        type=click.IntRange(0),
        default=0,
        help="Trials of the Gaussian-process search over learning rate, batch size, sequence "
        "length, weight decay, dropout and hidden size. The same command goes on with a search "
        "that was stopped.",
    ),
    cloup.option(
        "--folds",
        metavar="K",
        type=click.IntRange(2),
        default=3,
        help="Validation folds, disjoint in identities. One head is trained per fold.",
    ),
    cloup.option("--seed", metavar="N", type=int, default=0, help="Of folds, search and training."),
)
@cloup.option_group(
    "The head (where --tune starts from)",
    cloup.option(
        "--streams",
        metavar="STREAMS",
        default=",".join(DEFAULTS.streams),
        callback=some_of(STREAMS),
        help=f"Some of {', '.join(STREAMS)}, side by side.",
    ),
    cloup.option(
        "--learning-rate",
        metavar="X",
        type=click.FloatRange(0, 1, min_open=True),
        default=DEFAULTS.learning_rate,
        help="Of AdamW.",
    ),
    cloup.option(
        "--batch-size",
        metavar="N",
        type=click.IntRange(1),
        default=DEFAULTS.batch_size,
        help="Clips.",
    ),
    cloup.option(
        "--sequence-length",
        metavar="N",
        type=click.IntRange(1),
        default=DEFAULTS.sequence_length,
        help="Flow maps that the LSTM sees at once.",
    ),
    cloup.option(
        "--weight-decay",
        metavar="X",
        type=click.FloatRange(0, 1),
        default=DEFAULTS.weight_decay,
        help="Of AdamW.",
    ),
    cloup.option(
        "--dropout",
        metavar="X",
        type=click.FloatRange(0, 0.95),
        default=DEFAULTS.dropout,
        help="Before, between and after the LSTM's layers.",
    ),
    cloup.option(
        "--hidden", metavar="N", type=click.IntRange(1), default=DEFAULTS.hidden, help="LSTM units."
    ),
    cloup.option(
        "--layers", metavar="N", type=click.IntRange(1, 2), default=DEFAULTS.layers, help="1 or 2."
    ),
    cloup.option("--bidirectional", is_flag=True, help="Read each clip in both directions."),
    cloup.option(
        "--pooling",
        type=click.Choice(["last", "mean", "attention"]),
        default=DEFAULTS.pooling,
        help="From the LSTM's outputs over time to one vector.",
    ),
    cloup.option(
        "--max-epochs",
        metavar="N",
        type=click.IntRange(1),
        default=DEFAULTS.max_epochs,
        help="Per fold.",
    ),
    cloup.option(
        "--patience",
        metavar="N",
        type=click.IntRange(1),
        default=DEFAULTS.patience,
        help="Epochs without a better validation loss before training stops.",
    ),
    cloup.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ..."),
)
@cloup.option_group(
    "Verdicts",
    cloup.option(
        "--max-fpr",
        metavar="SHARE",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="The threshold lets at most this share of the real validation videos be called fake.  "
        "[default: as many errors on real as on fake ones]",
    ),
    cloup.option(
        "--abstain",
        metavar="SHARE",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.0,
        help="This share of the validation videos, nearest to the threshold, is too close to call.",
    ),
)
@controls_option
@allow_leaks_option
def main(
    embeddings: Path,
    output: Path,
    tune: int,
    folds: int,
    seed: int,
    device: str,
    max_fpr: float | None,
    abstain: float,
    no_controls: bool,
    allow_leaks: bool,
    **settings: object,
) -> None:
    """Train an LSTM over a cache of EMBEDDINGS, tune it, and evaluate it on unseen identities.

    One head is trained per validation fold and stopped early there; together they are the
    detector. Its operating threshold is where their errors on the validation folds are equal.
    Test split and holdout are read when the model is final.

    \b
    Example:
      python -m model.fit caches/dfd-resnet18 -o runs/first --tune 20
    """
    cache = Cache(embeddings, "embed")
    run = fit(
        cache,
        output,
        settings=TrainingSettings(**settings),  # type: ignore[arg-type]
        n_trials=tune,
        n_folds=folds,
        seed=seed,
        device=device,
        max_fpr=max_fpr,
        abstain=abstain,
        allow_leaks=allow_leaks,
    )
    warn(run)
    click.echo(f"run: {output}")
    if not any(clip.split in UNSEEN for clip in cache.clips):
        click.echo("not evaluated: the cache has neither a test split nor a holdout")
        return
    evaluation = evaluate(
        run, cache, controls=not no_controls, device=device, allow_leaks=allow_leaks
    )
    report = write_report(run, evaluation)
    click.echo(headline(evaluation))
    click.echo(f"report: {report}\nall metrics: python -m model.evaluate {output}")


if __name__ == "__main__":
    main()
