"""Command that predicts new videos."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import cloup

from model.cli_options import jobs_option, warn, weights_option
from model.run.run import read_config
from pipeline.common.cli import Command
from pipeline.common.errors import NothingUsable, SettingsError, TooManyRejects
from pipeline.workers.local import LocalPool

if TYPE_CHECKING:
    from model.prediction.predict_videos import Only, Prediction


@cloup.command(cls=Command)
@cloup.argument("run", type=click.Path(path_type=Path), help="A folder that model.fit wrote.")
@cloup.argument(
    "videos",
    nargs=-1,
    type=click.Path(path_type=Path),
    help="Video files, and folders, searched all the way down.",
)
@cloup.option_group(
    "Which videos",
    cloup.option(
        "--list",
        "lists",
        metavar="FILE",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Read more VIDEOS from a text file, one a line; - is standard input.",
    ),
    cloup.option(
        "--follow-links",
        is_flag=True,
        help="Follow links out of the folders given, which are undecidable otherwise.",
    ),
)
@cloup.option_group(
    "Output",
    cloup.option(
        "-o",
        "--output",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Write a row per video to a .csv or .jsonl file as it is done. The same command "
        "resumes.",
    ),
    cloup.option(
        "--report",
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        help="Write a page of evidence and an evidence video into FOLDER for each video, and "
        "index.html for several. Takes several times as long. Not with -o.",
    ),
    cloup.option("--json", "as_json", is_flag=True, help="Print a JSON object per video and line."),
    cloup.option(
        "--only",
        type=click.Choice(["anomaly"]),
        help="anomaly: ask no detector, but say how unusual a video is among real ones, by scores "
        "that never saw a fake. A run fitted on real videos alone always does.",
    ),
    cloup.option(
        "--max-undecidable",
        metavar="SHARE",
        type=click.FloatRange(0, 1),
        help="End with exit code 3 if a larger share of the videos is undecidable.  [default: no "
        "limit]",
    ),
)
@cloup.option_group(
    "Computation",
    weights_option,
    cloup.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ..."),
    jobs_option,
)
def main(
    run: Path,
    videos: tuple[Path, ...],
    lists: tuple[Path, ...],
    follow_links: bool,
    output: Path | None,
    report: Path | None,
    as_json: bool,
    only: "Only | None",
    max_undecidable: float | None,
    weights: str | None,
    device: str,
    jobs: int | None,
) -> None:
    """Say of each of VIDEOS how probably it is fake, by the detector in RUN.

    A video is treated exactly as the training videos were. One that cannot be is called
    undecidable, with the reason; if none has a probability the exit code is 1. Beside it stands how
    unusual the video is among real training videos, by scores that never saw a fake.

    \b
    Example:
      python -m model.predict runs/first some_video.mp4
      python -m model.predict runs/first some_video.mp4 --report out
      python -m model.predict runs/first downloads -o verdicts.csv
      python -m model.predict runs/first some_video.mp4 --only anomaly
    """
    if not videos and not lists:
        raise click.UsageError("Missing argument 'VIDEOS...', or --list FILE.")
    if output and as_json:
        raise click.UsageError("--json is for the terminal: give -o a name that ends in .jsonl.")
    if output and report:
        raise click.UsageError(
            "--report is not for -o, which leaves out what was predicted before: give one of them."
        )
    config = read_config(run)  # fails fast, before PyTorch is imported
    if report and (only or not config.is_detector):
        why = "--only anomaly asks none" if only else f"{run} has none"
        raise SettingsError(
            f"--report explains the verdict of a detector, and {why}", "leave it out"
        )
    if not config.is_detector and not only:
        click.echo(
            f"note: {run} was fitted on real videos alone: it says how unusual a video is, not "
            "whether it is fake",
            err=True,
        )
    from model.prediction.batch import Tally, list_videos, predict_into_file, read_list
    from model.prediction.predict_videos import ExaminedVideo, backbone_of, predict, sentence
    from model.prediction.results_file import check_suffix
    from model.run.run import load_run

    if output:
        check_suffix(output)
    given = [*videos, *(path for file in lists for path in read_list(file))]
    loaded = load_run(run)
    listing = list_videos(given, follow_links=follow_links)
    for note in listing.notes:
        click.echo(f"note: {note}", err=True)
    backbone = backbone_of(loaded, weights, device)
    warn(loaded)
    pool = LocalPool(jobs)
    if output:
        tally = predict_into_file(output, loaded, listing, backbone, pool, only)
        click.echo(f"{tally}\n{output} has a row for each")
    else:
        tally = Tally()
        pages: list[tuple[Prediction, Path]] = []
        write_report = None
        if report:
            from model.reports.verdicts import write_verdicts
            from model.reports.video_report import page_of, write_video_report

            def write_page(video: ExaminedVideo) -> None:
                page = page_of(report, Path(video.prediction.path))
                write_video_report(loaded, video, page, backbone)

            write_report = write_page

        predictions = predict(
            loaded,
            listing.paths,
            backbone,
            pool=pool,
            refused=listing.refused,
            report=write_report,
            only=only,
        )
        with contextlib.closing(predictions):
            for prediction in predictions:
                tally.count(dataclasses.asdict(prediction))
                page = {}
                if report:
                    path = page_of(report, Path(prediction.path))
                    page = {"report": str(path)}
                    pages.append((prediction, path))
                if as_json:
                    click.echo(json.dumps(dataclasses.asdict(prediction) | page))
                else:
                    click.echo("\n  ".join([sentence(prediction), *page.values()]))
        if len(listing.paths) > 1:
            click.echo(tally, err=True)
        if report and len(pages) > 1:
            click.echo(f"all of them: {write_verdicts(report, loaded, pages)}", err=True)
    reasons = f"{output} says why" if output else "the reasons are above"
    if not tally.n_scored:
        raise NothingUsable("no video could be predicted", reasons)
    if max_undecidable is not None and tally.share_undecidable > max_undecidable:
        raise TooManyRejects(
            f"{100 * tally.share_undecidable:.3g}% of the videos are undecidable, "
            f"--max-undecidable allows {100 * max_undecidable:.3g}%",
            reasons,
        )


if __name__ == "__main__":
    main()
