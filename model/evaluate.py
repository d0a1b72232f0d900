"""The command that evaluates a run on videos it has never seen."""

from pathlib import Path

import click
import cloup

from model.evaluation import evaluate, table
from model.report import write_report
from model.run import allow_leaks_option, load_run
from pipeline.cache import Cache
from pipeline.cli import Command


@cloup.command(cls=Command)
@cloup.argument("run", type=click.Path(path_type=Path), help="A folder that model.fit wrote.")
@cloup.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="The embeddings the run was fitted on.  [default: where they were then]",
)
@cloup.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of a table.")
@allow_leaks_option
def main(run: Path, cache: Path | None, as_json: bool, allow_leaks: bool) -> None:
    """Evaluate RUN on the test split and the holdout, beside two baselines.

    The baselines are a logistic regression over mean-pooled embeddings (is the LSTM worth
    anything?) and one over metadata only: size, frame rate, duration, bit rate (does the corpus
    give itself away?). Writes metrics.json, curves and report.html into RUN.

    \b
    Example:
      python -m model.evaluate runs/first
    """
    loaded = load_run(run)
    opened = Cache(cache, "embed") if cache else None
    evaluation = evaluate(loaded, opened, allow_leaks=allow_leaks)
    report = write_report(loaded, evaluation)
    if as_json:
        click.echo((run / "metrics.json").read_text(), nl=False)
    else:
        click.echo(table(loaded, evaluation))
        click.echo(f"report: {report}")


if __name__ == "__main__":
    main()
