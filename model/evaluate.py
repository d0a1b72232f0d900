"""Command that evaluates a run on videos it has never seen."""

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
from model.run.run import check_detector, read_config
from pipeline.cache import Cache
from pipeline.common.cli import Command
from pipeline.workers.local import LocalPool


@cloup.command(cls=Command)
@cloup.argument("run", type=click.Path(path_type=Path), help="A folder that model.fit wrote.")
@cloup.argument(
    "rival",
    required=False,
    type=click.Path(path_type=Path),
    help="Another run, to compare RUN with on the same test videos.",
)
@cloup.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Embeddings that the run was fitted on, or another corpus, all of which is evaluated.  "
    "[default: the recorded path of the former]",
)
@cloup.option("--json", "as_json", is_flag=True, help="Print metrics.json, or sweep.json, instead.")
@cloup.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
@controls_option
@allow_leaks_option
@cloup.option_group(
    "Work on the video files",
    cases_option,
    cloup.option(
        "--sweep",
        "sweeps",
        is_flag=True,
        help="Also predict re-encoded, resized, slower, blurred, noisy, lighter and darker copies "
        "of the test videos, each like a new video. Resume an interrupted sweep.",
    ),
    cloup.option(
        "--videos",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Folder of the videos, if they have moved.",
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

    Controls are trained on the same videos: logistic regressions over mean-pooled embeddings and
    over metadata alone (does the corpus give itself away?), and heads that see the moments in
    random order, or one stream alone. Writes metrics.json, curves and report.html into RUN, or
    into RUN/cross for another corpus; pages about the worst mistakes into cases/ beside them, if
    videos and weights are available; and with --sweep sweep.csv, sweep.json and sweep.png. With a
    second run, compares the two and writes nothing. Of a run fitted on real videos alone, writes
    metrics.json of its scores, which never saw a fake.

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
    configs = {one: read_config(one) for one in filter(None, (run, rival))}  # fails fast
    for asked, what in ((rival, "a comparison"), (sweeps, "--sweep"), (asked_for_pages, "--cases")):
        for one, config in configs.items() if asked else ():
            check_detector(config, one, what)
    other = Cache(cache, "embed") if cache else None
    from model.evaluation.evaluation import METRICS, evaluate
    from model.evaluation.other_corpus import evaluate_elsewhere
    from model.evaluation.real_only import evaluate_real_only
    from model.evaluation.run_comparison import compare_runs, comparison_table
    from model.prediction.predict_videos import backbone_of
    from model.reports.run_report import write_report
    from model.reports.summary import table
    from model.reports.worst_mistakes import write_mistake_pages
    from model.robustness.robustness import RESULT, sweep
    from model.robustness.table import sweep_table
    from model.run.run import cache_of, load_run

    loaded = load_run(run)
    if rival:
        comparison = compare_runs(loaded, load_run(rival), allow_leaks=allow_leaks)
        values = comparison.as_json()
        click.echo(json.dumps(values, indent=1) if as_json else comparison_table(comparison))
        return
    embeddings = other or cache_of(loaded)
    if not loaded.config.is_detector:
        found = evaluate_real_only(loaded, embeddings, allow_leaks=allow_leaks)
        click.echo((found.folder / METRICS).read_text() if as_json else str(found), nl=not as_json)
        return
    is_own = embeddings.sha256 == loaded.config.cache_sha256
    if sweeps and not is_own:
        raise click.UsageError("--sweep is for the test videos of the run's own corpus")
    load = functools.cache(lambda: backbone_of(loaded, weights, device))
    if sweeps or asked_for_pages:
        load()  # fails fast, before anything is evaluated
    evaluation = (evaluate if is_own else evaluate_elsewhere)(
        loaded, embeddings, controls=not no_controls, device=device, allow_leaks=allow_leaks
    )
    swept = written = None
    with LocalPool(jobs) as pool:
        if sweeps:
            swept = sweep(loaded, load(), pool, embeddings, folder=videos)
        if cases:
            written = write_mistake_pages(
                loaded, embeddings, evaluation, load, cases, pool, folder=videos
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
