"""Command that makes fakes of real videos, to train a detector without any deepfake."""

from collections import Counter
from pathlib import Path

import click
import cloup

from pipeline.common.cli import Command, log_json_option, some_of
from pipeline.common.errors import TooManyRejects
from pipeline.corpus.labelled_video import REAL
from pipeline.corpus.options import max_rejects_option, which_videos_options
from pipeline.corpus.reading import read_corpus
from pipeline.extraction.selection import tally
from pipeline.faces import find_model
from pipeline.own_fakes.corpus import FakeCorpus, make_fakes
from pipeline.own_fakes.kinds import DEFAULT_KINDS, KINDS
from pipeline.own_fakes.settings import FakeSettings
from pipeline.workers.local import DEFAULT_LIMITS, Limits, LocalPool

DEFAULTS = FakeSettings()


@cloup.command(cls=Command)
@cloup.argument(
    "videos",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    help="Folders and CSV files of real videos, as pipeline.extract takes them; fakes among them "
    "are left out.",
)
@which_videos_options
@cloup.option_group(
    "What is made",
    cloup.option(
        "-o",
        "--output",
        required=True,
        type=click.Path(path_type=Path),
        help="Folder for the videos, masks and videos.csv.",
    ),
    cloup.option(
        "--per-video",
        metavar="N",
        type=click.IntRange(1, 99),
        default=DEFAULTS.per_video,
        help="Fakes of each real video.",
    ),
    cloup.option(
        "--kinds",
        metavar="NAMES",
        default=",".join(DEFAULT_KINDS),
        callback=some_of(KINDS),
        help=f"Kinds of fakes, of which each is of one or several: some of {', '.join(KINDS)}.",
    ),
    cloup.option(
        "--strength",
        metavar="FACTOR",
        type=click.FloatRange(0, 3),
        default=DEFAULTS.strength,
        help="How much all kinds change; at 0 they change nothing.",
    ),
    cloup.option(
        "--seconds",
        metavar="SECONDS",
        type=click.FloatRange(0.5, 600),
        default=DEFAULTS.seconds,
        help="Length, from the start of each video.",
    ),
    cloup.option(
        "--longest-side",
        metavar="PIXELS",
        type=click.IntRange(64),
        default=DEFAULTS.longest_side,
        help="Larger videos are shrunk to this.",
    ),
    cloup.option(
        "--seed",
        metavar="N",
        type=click.IntRange(0),
        default=DEFAULTS.seed,
        help="Another seed, other fakes.",
    ),
)
@cloup.option_group(
    "Faces, processes and limits",
    cloup.option(
        "--face-detector",
        metavar="yunet|PATH",
        default="yunet",
        help="The PATH of YuNet's file, if it is not here and cannot be downloaded.",
    ),
    cloup.option(
        "--jobs",
        metavar="N",
        type=click.IntRange(1),
        help="Number of processes.  [default: one per core]",
    ),
    cloup.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(1),
        help="Reject a video that takes longer.  [default: depends on its length and size]",
    ),
    cloup.option(
        "--memory",
        metavar="MB",
        type=click.IntRange(500),
        default=DEFAULT_LIMITS.n_bytes // 10**6,
        help="Reject a video whose process needs more memory than this.",
    ),
    max_rejects_option,
    log_json_option,
)
def main(
    videos: tuple[Path, ...],
    layout: str,
    follow_links: bool,
    output: Path,
    per_video: int,
    kinds: tuple[str, ...],
    strength: float,
    seconds: float,
    longest_side: int,
    seed: int,
    face_detector: str,
    jobs: int | None,
    timeout: float | None,
    memory: int,
    max_rejects: int | None,
) -> None:
    """Make fakes of real videos: a detector can then be trained without any deepfake.

    Each real video is encoded again, and so are fakes made of it, alike but for the face: its own,
    moved, recoloured and blended back with motion that does not hold together. Masks beside the
    fakes say what was changed. OUTPUT/videos.csv lists all for pipeline.extract, and
    OUTPUT/rejected.csv the videos without a usable face. If interrupted, run the same command again
    to resume.

    \b
    Example:
      python -m data.fakes data/DFD_REAL -o data/own
    """
    settings = FakeSettings(per_video, kinds, strength, seconds, longest_side, seed)
    corpus = read_corpus(videos, layout, follow_links=follow_links)
    real = [video for video in corpus if video.label == REAL]
    if n_fakes := len(corpus) - len(real):
        click.echo(f"note: {n_fakes} fake videos among them are left out", err=True)
    model = find_model(face_detector).content if settings.needs_faces else b""
    with LocalPool(jobs, Limits(timeout, memory * 10**6)) as pool:
        made = make_fakes(real, output, settings, model, pool)
    click.echo(summary(made))
    if max_rejects is not None and len(made.rejected) > max_rejects:
        raise TooManyRejects(
            f"{len(made.rejected)} files were rejected, --max-rejects allows {max_rejects}",
            f"{output / 'rejected.csv'} says why",
        )


def summary(corpus: FakeCorpus) -> str:
    """Summarise a corpus in a few lines."""
    fakes = [m for members in corpus.families.values() for m in members if m.kinds]
    kinds = Counter(kind for member in fakes for kind in member.kinds)
    lines = [
        f"{corpus.folder}: {len(corpus.families)} real videos, {len(fakes)} fakes of them",
        "  kinds, one or several in a fake: "
        + ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind]),
    ]
    if reasons := tally(rejection.reason for rejection in corpus.rejected.values()):
        lines.append(f"  rejected: {reasons} (see {corpus.folder / 'rejected.csv'})")
    lines.append(f"  next: python -m pipeline.extract {corpus.list} -o CACHE")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
