"""Many videos at once: which ones, their verdicts in a file, and a summary."""

import contextlib
import dataclasses
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from features.backbones import Backbone
from model.explanation.unusual import UNUSUAL, USUAL
from model.prediction.predict_videos import Only, predict_unordered
from model.prediction.results_file import OUTSIDE, ResultRow, ResultsFile
from model.run.run import UNDECIDABLE, Run
from pipeline.common.csv_files import first_few
from pipeline.common.errors import Rejected, SettingsError
from pipeline.common.files import one_line
from pipeline.corpus.reading import find_videos
from pipeline.workers.local import Pool

MAX_LISTED = 3  # file names in a note


@dataclass(frozen=True)
class Listing:
    """Videos to predict."""

    paths: tuple[Path, ...]  # in the order given, those of a folder sorted, none twice
    outside: dict[Path, str]  # paths that are links out of the folders given → their targets
    notes: tuple[str, ...]  # sentences on what was left out

    @property
    def refused(self) -> dict[Path, Rejected]:
        """Paths that must not be opened → why."""
        return {
            path: Rejected(OUTSIDE, f"a link to {target}") for path, target in self.outside.items()
        }


def list_videos(given: Sequence[Path], *, follow_links: bool = False) -> Listing:
    """List files, which need not exist, and the videos in folders, searched all the way down."""
    folders = [path for path in given if os.path.isdir(path)]  # noqa: PTH112 - any name will do
    paths: dict[str, Path] = {}
    outside: dict[Path, str] = {}
    others: list[Path] = []
    n_given = 0
    for path in given:
        videos: Sequence[Path] = [path]
        if path in folders:
            found = find_videos(path, folders, follow_links=follow_links)
            videos = found.videos
            others += found.others
            outside |= found.outside
        n_given += len(videos)
        for video in videos:
            paths.setdefault(_absolute(video), video)
    listed = tuple(paths.values())
    notes = []
    if n_given > len(listed):
        notes.append(f"{n_given - len(listed)} given more than once, predicted once")
    if others:
        names = one_line(first_few([str(path) for path in others], MAX_LISTED))
        notes.append(
            f"{len(others)} other files in the folders are no videos by their names ({names}); one "
            "that is given itself is predicted"
        )
    outside = {path: outside[path] for path in listed if path in outside}
    return Listing(listed, outside, tuple(notes))


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - must not follow links, as resolve() does


def read_list(path: Path) -> list[Path]:
    """Read paths, one a line or separated by zero bytes, from a file; ``-`` is standard input."""
    content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    content = content.removeprefix(b"\xef\xbb\xbf")
    if re.search(rb"[\x01-\x08]", content):
        raise SettingsError(f"the list {path} is no text", "write one path a line into it")
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise SettingsError(f"the list {path} is empty", "write one path a line into it")
    return paths


@dataclass
class Tally:
    """Counts over the predictions of a command."""

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)  # why videos are undecidable
    n_scored: int = 0  # with a probability, or called unusual or usual
    n_before: int = 0  # predicted by an earlier command
    started: float = field(default_factory=time.monotonic)

    def count(self, row: ResultRow) -> None:
        """Count a prediction."""
        self.verdicts[row["verdict"]] += 1
        self.n_scored += row["probability"] not in (None, "") or row["verdict"] in (UNUSUAL, USUAL)
        if row["verdict"] == UNDECIDABLE:
            self.reasons[row["reason"].split(":")[0]] += 1

    def count_before(self, row: ResultRow) -> None:
        """Count a row of an earlier command."""
        self.n_before += 1
        self.count(row)

    @property
    def share_undecidable(self) -> float:
        """Share of undecidable videos, 0..1."""
        return self.verdicts[UNDECIDABLE] / max(self.verdicts.total(), 1)

    def __str__(self) -> str:
        n_now = self.verdicts.total() - self.n_before
        others = {UNUSUAL, USUAL} & self.verdicts.keys()
        names = (UNUSUAL, USUAL) if others else ("fake", "real")
        counts = [f"{self.verdicts[name]} {name}" for name in (*names, UNDECIDABLE)]
        text = f"{self.verdicts.total()} videos: {', '.join(counts)}"
        if self.reasons:
            text += f" ({', '.join(f'{n} {reason}' for reason, n in self.reasons.most_common())})"
        if n_now:
            seconds = time.monotonic() - self.started
            text += f"\n{n_now} in {seconds:.0f} s, {seconds / n_now:.2f} s a video"
        if self.n_before:
            text += f"\n{self.n_before} were predicted before"
        return text


def predict_into_file(
    output: Path,
    run: Run,
    listing: Listing,
    backbone: Backbone,
    pool: Pool,
    only: Only | None = None,
) -> Tally:
    """Predict the videos that a results file lacks, and append a row for each as it is done."""
    tally = Tally()
    videos = [Path(_absolute(path)) for path in listing.paths]
    refused = {Path(_absolute(path)): why for path, why in listing.refused.items()}
    by_detector = run.config.is_detector and only != "anomaly"
    with ResultsFile(output, run, by_detector=by_detector) as results:
        missing = results.resume(videos, tally.count_before)
        predictions = predict_unordered(run, missing, backbone, pool, refused=refused, only=only)
        progress = tqdm(
            total=len(videos), initial=tally.n_before, desc="predict", unit="video", disable=None
        )
        with progress as bar, contextlib.closing(predictions) as examined:
            for _, video in examined:
                results.append(video.prediction)
                tally.count(dataclasses.asdict(video.prediction))
                bar.set_postfix(tally.verdicts, refresh=False)
                bar.update()
    return tally
