"""The command that evaluates a run on videos it has never seen."""

import functools
import json
from pathlib import Path

import click
import cloup
from click.core import ParameterSource

from model.cli_options import (
    allow_leaks_option,
    cases_option,
    controls_option,
    jobs_option,
    weights_option,
)
from model.run.run import read_config
from pipeline.cache import Cache
from pipeline.common.cli import Command


@cloup.command(cls=Command)
@cloup.argument("run", type=click.Path(path_type=Path), help="A folder that model.fit wrote.")
@cloup.argument(
    "rival",
    required=False,
    type=click.Path(path_type=Path),
    help="Another one, to compare RUN with on the same test videos.",
)
@cloup.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="The embeddings the run was fitted on, or those of another corpus, all of whose videos "
    "are evaluated.  [default: where they were then]",
)
@cloup.option("--json", "as_json", is_flag=True, help="Print metrics.json, or sweep.json, instead.")
@cloup.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
@controls_option
@allow_leaks_option
@cloup.option_group(
    "Looking at the videos again",
    cases_option,
    cloup.option(
        "--sweep",
        "sweeps",
        is_flag=True,
        help="Also judge re-encoded, resized, slower, blurred, noisy, lighter and darker "
        "copies of the test videos, each like a new video. A sweep that was stopped goes on.",
    ),
    cloup.option(
        "--videos",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Folder of the videos, if they are not where they were.",
    ),
    weights_option,
    jobs_option,
)
@click.pass_context
def main(
    context: click.Context,
    /,
    run: Path,
    rival: Path | None,
    cache: Path | None,
    as_json: bool,
    device: str,
    no_controls: bool,
    allow_leaks: bool,
    cases: int,
    sweeps: bool,
    videos: Path | None,
    weights: str | None,
    jobs: int | None,
) -> None:
    """Evaluate RUN on the test split and the holdout, beside controls.

    The controls are trained on the same videos: logistic regressions over mean-pooled embeddings
    and over metadata alone (size, frame rate, duration, bit rate: does the corpus give itself
    away?), and heads like the detector's that see the moments in random order, or one stream
    alone. Writes metrics.json, curves and report.html into RUN, and those of another corpus into
    RUN/cross; pages about the worst mistakes into its cases/, where the videos and the backbone's
    weights are to be had; with --sweep also sweep.csv, sweep.json and sweep.png. With a second
    run, compares the two and writes nothing.

    \b
    Example:
      python -m model.evaluate runs/first
      python -m model.evaluate runs/first --sweep --cases 5
    """
    source = context.get_parameter_source("cases")
    asked_for_pages = cases > 0 and source is ParameterSource.COMMANDLINE
    about_videos = {"--videos": videos, "--weights": weights, "--jobs": jobs}
    given = [name for name, value in about_videos.items() if value is not None]
    if given and not sweeps and not cases:
        raise click.UsageError(f"{', '.join(given)} without --sweep or --cases: no video is needed")
    if rival and (cache or sweeps or asked_for_pages):
        raise click.UsageError("--cache, --sweep and --cases are for one run, not for two")
    for one in filter(None, (run, rival)):
        read_config(one)  # and see that it is there, before what takes long
    elsewhere = Cache(cache, "embed") if cache else None
    from model.evaluation.evaluation import METRICS, evaluate
    from model.evaluation.other_corpus import evaluate_elsewhere
    from model.evaluation.run_comparison import compare_runs, rivalry_table
    from model.prediction.predict_videos import backbone_of
    from model.reports.run_report import write_report
    from model.reports.summary import table
    from model.reports.worst_mistakes import write_mistake_pages
    from model.robustness.robustness import RESULT, sweep
    from model.robustness.table import sweep_table
    from model.run.run import cache_of, load_run

    loaded = load_run(run)
    if rival:
        found = compare_runs(loaded, load_run(rival), allow_leaks=allow_leaks)
        click.echo(json.dumps(found.as_json(), indent=1) if as_json else rivalry_table(found))
        return
    opened = elsewhere or cache_of(loaded)
    load = functools.cache(lambda: backbone_of(loaded, weights, device))
    if sweeps or asked_for_pages:
        load()  # and see that it is there, before all else
    swept = None
    if opened.sha256 != loaded.config.cache_sha256:
        if sweeps:
            raise click.UsageError("--sweep is for the test videos of the run's own corpus")
        evaluation = evaluate_elsewhere(
            loaded, opened, controls=not no_controls, device=device, allow_leaks=allow_leaks
        )
    else:
        evaluation = evaluate(
            loaded, opened, controls=not no_controls, device=device, allow_leaks=allow_leaks
        )
        if sweeps:
            swept = sweep(loaded, load(), opened, folder=videos, jobs=jobs)
    written = None
    if cases:
        written = write_mistake_pages(
            loaded, opened, evaluation, load, cases, folder=videos, jobs=jobs
        )
    report = write_report(loaded, evaluation)
    if as_json:
        click.echo((evaluation.folder / (RESULT if swept else METRICS)).read_text(), nl=False)
        return
    click.echo(table(evaluation))
    if swept:
        click.echo("\n" + sweep_table(swept))
    if written:
        click.echo(f"\n{written}")
    click.echo(f"report: {report}")


if __name__ == "__main__":
    main()
