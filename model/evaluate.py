"""The command that evaluates a run on videos it has never seen."""

from pathlib import Path

import click
import cloup

from model.evaluation import evaluate, table
from model.prediction import backbone_of
from model.report import write_report
from model.run import allow_leaks_option, load_run
from model.sweep import RESULT, sweep
from model.sweep_table import sweep_options, sweep_table
from pipeline.cache import Cache
from pipeline.cli import Command


@cloup.command(cls=Command)
@cloup.argument("run", type=click.Path(path_type=Path), help="A folder that model.fit wrote.")
@cloup.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="The embeddings the run was fitted on.  [default: where they were then]",
)
@cloup.option("--json", "as_json", is_flag=True, help="Print metrics.json, or sweep.json, instead.")
@allow_leaks_option
@sweep_options
def main(
    run: Path,
    cache: Path | None,
    as_json: bool,
    allow_leaks: bool,
    sweeps: bool,
    videos: Path | None,
    weights: str | None,
    device: str,
    jobs: int | None,
) -> None:
    """Evaluate RUN on the test split and the holdout, beside two baselines.

    The baselines are a logistic regression over mean-pooled embeddings (is the LSTM worth
    anything?) and one over metadata only: size, frame rate, duration, bit rate (does the corpus
    give itself away?). Writes metrics.json, curves and report.html into RUN; with --sweep also
    sweep.csv, sweep.json and sweep.png.

    \b
    Example:
      python -m model.evaluate runs/first
      python -m model.evaluate runs/first --sweep
    """
    loaded = load_run(run)
    opened = Cache(cache, "embed") if cache else None
    backbone = backbone_of(loaded, weights, device) if sweeps else None
    evaluation = evaluate(loaded, opened, allow_leaks=allow_leaks)
    swept = sweep(loaded, backbone, opened, folder=videos, jobs=jobs) if backbone else None
    report = write_report(loaded, evaluation)
    if as_json:
        click.echo((run / (RESULT if swept else "metrics.json")).read_text(), nl=False)
    else:
        click.echo(table(loaded, evaluation))
        if swept:
            click.echo("\n" + sweep_table(swept))
        click.echo(f"report: {report}")


if __name__ == "__main__":
    main()
