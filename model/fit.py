"""Command that trains a detector on a cache of embeddings."""

import functools
from pathlib import Path
from typing import Any, get_args

import click
import cloup
from click.core import ParameterSource

from model.cli_options import (
    allow_leaks_option,
    cases_option,
    controls_option,
    warn,
    weights_option,
)
from model.run.run import read_config
from model.settings import FUSIONS, HEADS, POOLINGS, STREAMS, Scope, TrainingSettings
from pipeline.cache import Cache
from pipeline.common.cli import Command, some_of
from pipeline.common.errors import NothingUsable
from pipeline.workers.local import LocalPool

DEFAULTS = TrainingSettings()


def _setting(name: str, kind: "click.ParamType[Any]", text: str) -> Any:
    """Make the option of a field of `TrainingSettings`, with its default."""
    metavar = {click.IntRange: "N", click.FloatRange: "X"}.get(type(kind))
    default = getattr(DEFAULTS, name.removeprefix("--").replace("-", "_"))
    return cloup.option(name, metavar=metavar, type=kind, default=default, help=text)


@cloup.command(cls=Command)
@cloup.argument(
    "embeddings",
    required=False,
    type=click.Path(path_type=Path),
    help="Cache made by features.embed.",
)
@cloup.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run."
)
@cloup.option(
    "--from",
    "original",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Repeat a run with its embeddings, tuned settings, folds and seed, for the same weights.",
)
@cloup.option_group(
    "Tuning",
    cloup.option(
        "--tune",
        metavar="N",
        type=click.IntRange(0),
        default=0,
        help="Number of trials of the Gaussian-process search. The same command resumes an "
        "interrupted search.",
    ),
    cloup.option(
        "--search",
        type=click.Choice(get_args(Scope)),
        default="architecture",
        help="training: tune learning rate, batch size, sequence length, weight decay, dropout and "
        "hidden size. architecture: also layers, direction, pooling, head, streams and fusion.",
    ),
    cloup.option(
        "--jobs",
        metavar="N",
        type=click.IntRange(1),
        default=1,
        help="Run N trials in parallel, each in a process with one thread, on the same device. "
        "Another N gives another search.",
    ),
    cloup.option(
        "--time-budget",
        metavar="MINUTES",
        type=click.FloatRange(0, min_open=True),
        help="Start no trial after this time, once one has succeeded.",
    ),
    cloup.option(
        "--warm-start",
        metavar="RUN",
        type=click.Path(path_type=Path),
        help="Try the three best settings of another run's search first.",
    ),
    cloup.option(
        "--folds",
        metavar="K",
        type=click.IntRange(2),
        default=3,
        help="Number of validation folds, disjoint in identities; one head is trained per fold.",
    ),
    cloup.option(
        "--seed", metavar="N", type=int, default=0, help="Seed of folds, search and training."
    ),
)
@cloup.option_group(
    "The head and its training (the start of --tune)",
    _setting(
        "--head",
        click.Choice(HEADS),
        "statistics: a logistic regression on mean, spread, extremes and change over time, whose "
        "regularisation the folds choose. mean ignores the order of time. The others read it.",
    ),
    _setting(
        "--fusion",
        click.Choice(FUSIONS),
        "early: join streams before the head. late: average logits of one head per stream.",
    ),
    cloup.option(
        "--streams",
        metavar="STREAMS",
        default=",".join(DEFAULTS.streams),
        callback=some_of(STREAMS),
        help=f"Streams to join: some of {', '.join(STREAMS)}.",
    ),
    _setting("--learning-rate", click.FloatRange(0, 1, min_open=True), "Learning rate of AdamW."),
    _setting("--batch-size", click.IntRange(1), "Clips per step."),
    _setting("--sequence-length", click.IntRange(1), "Flow maps in a temporal crop."),
    _setting("--weight-decay", click.FloatRange(0, 1), "Weight decay of AdamW."),
    _setting("--dropout", click.FloatRange(0, 0.95), "Dropout before, between and after layers."),
    _setting("--hidden", click.IntRange(1), "Width of layers."),
    _setting("--layers", click.IntRange(1, 8), "Number of layers."),
    cloup.option(
        "--bidirectional", is_flag=True, help="Read sequences in both directions (LSTM and GRU)."
    ),
    _setting("--pooling", click.Choice(POOLINGS), "Reduction over time to one vector."),
    _setting("--max-epochs", click.IntRange(1), "Highest number of epochs per fold."),
    _setting(
        "--patience", click.IntRange(1), "Stop after N epochs without a better validation loss."
    ),
    cloup.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ..."),
)
@cloup.option_group(
    "Verdicts",
    cloup.option(
        "--max-fpr",
        metavar="SHARE",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Choose the threshold for at most this false-positive rate on validation videos.  "
        "[default: equal error rate]",
    ),
    cloup.option(
        "--abstain",
        metavar="SHARE",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.0,
        help="Share of the validation videos, nearest to the threshold, to treat as too close to "
        "call.",
    ),
)
@cloup.option_group(
    "Pages about its mistakes",
    cases_option,
    weights_option,
)
@controls_option
@allow_leaks_option
@click.pass_context
def main(
    context: click.Context,
    /,
    embeddings: Path | None,
    output: Path,
    original: Path | None,
    tune: int,
    search: Scope,
    jobs: int,
    time_budget: float | None,
    warm_start: Path | None,
    folds: int,
    seed: int,
    device: str,
    max_fpr: float | None,
    abstain: float,
    cases: int,
    weights: str | None,
    no_controls: bool,
    allow_leaks: bool,
    **settings: object,
) -> None:
    """Train a detector on a cache of EMBEDDINGS and evaluate it on unseen identities.

    The detector is an ensemble of one head per validation fold, each stopped early there. The
    operating threshold is at the equal error rate on the validation folds. Test split and holdout
    are read once the model is final. If the videos and the backbone's weights are available, pages
    about the worst mistakes are written as well.

    If the training split holds real videos alone, the run is no detector: it says how unusual a
    video is among them, by scores that never see a fake.

    \b
    Example:
      python -m model.fit caches/dfd-resnet18 -o runs/first --tune 20
    """
    if not tune and (warm_start or time_budget):
        raise click.UsageError("--warm-start and --time-budget are for tuning: give --tune N")
    if original:
        _refuse_beside_from(context)
        read_config(original)  # an error here comes before the slow imports
    elif embeddings is None:
        raise click.UsageError("EMBEDDINGS is missing: a cache that features.embed made")
    given = Cache(embeddings, "embed") if embeddings else None
    from model.evaluation.evaluation import evaluate
    from model.evaluation.real_only import evaluate_real_only
    from model.fitting import best_settings, fit, refit
    from model.prediction.predict_videos import backbone_of
    from model.reports.run_report import write_report
    from model.reports.summary import headline
    from model.reports.worst_mistakes import write_mistake_pages
    from model.run.per_video_scores import UNSEEN
    from model.run.run import cache_of, load_run

    if original:
        earlier = load_run(original)
        cache = cache_of(earlier, given)
        run = refit(earlier, output, cache, device=device, allow_leaks=allow_leaks)
    else:
        assert given is not None
        cache = given
        run = fit(
            cache,
            output,
            settings=TrainingSettings(**settings),  # type: ignore[arg-type]
            n_trials=tune,
            search=search,
            warm=best_settings(warm_start) if warm_start else (),
            jobs=jobs,
            seconds=60 * time_budget if time_budget else None,
            n_folds=folds,
            seed=seed,
            device=device,
            max_fpr=max_fpr,
            abstain=abstain,
            allow_leaks=allow_leaks,
        )
    warn(run)
    n_folds = run.config.n_heads or run.config.n_folds
    if not original and n_folds != folds:
        why = "prescribes a validation split" if n_folds == 1 else "has too few people for more"
        click.echo(f"note: {n_folds} folds instead of {folds}: the corpus {why}", err=True)
    if run.config.strength is not None:
        click.echo(f"regularisation: C {run.config.strength:.3g}, the best on the folds")
    click.echo(f"run: {output}")
    if not run.config.is_detector:
        click.echo(
            "It is no detector: the training split holds real videos alone, so it says how unusual "
            "a video is among them, not whether it is fake."
        )
        try:
            click.echo(evaluate_real_only(run, cache, allow_leaks=allow_leaks))
        except NothingUsable as error:
            click.echo(f"not evaluated: {error.hint} to model.evaluate")
        click.echo(f"python -m model.predict {output} VIDEOS says it of others")
        return
    if not any(clip.split in UNSEEN for clip in cache.clips):
        click.echo("not evaluated: the cache has neither a test split nor a holdout")
        return
    evaluation = evaluate(
        run, cache, controls=not no_controls, device=device, allow_leaks=allow_leaks
    )
    load = functools.partial(backbone_of, run, weights, device)
    written = None
    if cases:
        written = write_mistake_pages(run, cache, evaluation, load, cases, LocalPool())
    report = write_report(run, evaluation)
    click.echo(headline(evaluation))
    if written:
        click.echo(written)
    click.echo(f"report: {report}\nall metrics: python -m model.evaluate {output}")


def _refuse_beside_from(context: click.Context) -> None:
    """Raise an error if an option is given that --from determines."""
    free = {"embeddings", "output", "original", "device", "debug"}
    free |= {"allow_leaks", "no_controls", "cases", "weights"}
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name not in free:
            raise click.UsageError(f"{option.opts[0]} cannot be given beside --from, which has it")


if __name__ == "__main__":
    main()
