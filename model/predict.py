"""The command that judges new videos."""

import dataclasses
import json
from pathlib import Path

import click
import cloup

from model.prediction import Prediction, backbone_of, predict
from model.run import load_run, warn
from pipeline.cli import Command
from pipeline.errors import NothingUsable


@cloup.command(cls=Command)
@cloup.argument("run", type=click.Path(path_type=Path), help="A folder that model.fit wrote.")
@cloup.argument(
    "videos", nargs=-1, required=True, type=click.Path(path_type=Path), help="Video files."
)
@cloup.option("--json", "as_json", is_flag=True, help="Print one JSON object per video and line.")
@cloup.option(
    "--weights",
    metavar="PATH",
    help="The backbone's weights, if they were given to features.embed as a file.",
)
@cloup.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
@cloup.option(
    "--jobs", metavar="N", type=click.IntRange(1), help="Processes.  [default: one per core]"
)
def main(
    run: Path,
    videos: tuple[Path, ...],
    as_json: bool,
    weights: str | None,
    device: str,
    jobs: int | None,
) -> None:
    """Say of each of VIDEOS how probably it is fake, by the detector in RUN.

    A video is treated exactly as the training videos were. One that cannot be is called
    undecidable, with the reason; if none can be judged the exit code is 1.

    \b
    Example:
      python -m model.predict runs/first some_video.mp4
    """
    loaded = load_run(run)
    backbone = backbone_of(loaded, weights, device)
    decided = False
    warn(loaded)
    for prediction in predict(loaded, videos, backbone, jobs=jobs):
        decided |= prediction.probability is not None
        click.echo(json.dumps(dataclasses.asdict(prediction)) if as_json else sentence(prediction))
    if not decided:
        raise NothingUsable("no video could be judged", "the reasons are above")


def sentence(prediction: Prediction) -> str:
    """A prediction as one line of text."""
    if prediction.probability is None:
        return f"{prediction.path}: undecidable ({prediction.reason})"
    reason = f" ({prediction.reason})" if prediction.reason else ""
    motion = ""
    if prediction.anomaly is not None:
        percent = int(100 * prediction.anomaly + 1e-9)
        motion = (
            f"; motion stranger than {percent}% of real training videos ({prediction.strangest})"
        )
    return (
        f"{prediction.path}: {prediction.verdict}{reason}, probability of being fake "
        f"{prediction.probability:.3f} (called fake from {prediction.threshold:.3f} on){motion}"
    )


if __name__ == "__main__":
    main()
