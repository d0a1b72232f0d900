"""Many videos at once: which they are, their verdicts one after the other, and what came of all."""

import contextlib
import dataclasses
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from features.backbones import Backbone
from model.prediction.predict_videos import (
    Prediction,
    Predictor,
    predict,
    predict_unordered,
    unusable,
)
from model.prediction.results_file import OUTSIDE, Results, Row
from model.run.run import Run
from pipeline.common.csv_files import first_few
from pipeline.common.errors import Rejected, SettingsError
from pipeline.common.files import one_line
from pipeline.corpus.reading import find_videos
from pipeline.workers.local import LocalPool

SHOWN = 3  # files in a note


@dataclass(frozen=True)
class Listing:
    """The videos that are asked for.

    Attributes:
        paths: in the order given, those of a folder sorted, none twice.
        outside: where links lead that are not followed; they are among the paths.
        notes: what to say of all that is not among them.
    """

    paths: tuple[Path, ...]
    outside: dict[Path, str]
    notes: tuple[str, ...]


def list_videos(given: Sequence[Path], *, follow_links: bool = False) -> Listing:
    """The videos that files and folders stand for.

    Args:
        given: files, which need not exist, and folders, searched all the way down.
        follow_links: whether links may lead out of the folders.

    Raises:
        NothingUsable: a folder without a video.
        OSError: a folder cannot be read.
    """
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
        notes.append(f"{n_given - len(listed)} given more than once, judged once")
    if others:
        named = one_line(first_few([str(path) for path in others], SHOWN))
        notes.append(
            f"{len(others)} other files in the folders are no videos by their names ({named}); one "
            "that is given itself is judged"
        )
    led_out = {path: outside[path] for path in listed if path in outside}
    return Listing(listed, led_out, tuple(notes))


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - must not follow links, as resolve() does


def read_list(path: Path) -> list[Path]:
    """The paths in a text file, one a line, or separated by zero bytes.

    Args:
        path: of the list; ``-`` is standard input.

    Raises:
        SettingsError: it is empty, or no text.
        OSError: it cannot be read.
    """
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
    """What came of many videos.

    Attributes:
        verdicts: how many of each.
        reasons: why videos are undecidable → how many.
        n_judged: how many have a probability.
        n_before: how many were judged by an earlier command.
        seconds: that this one took.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    n_judged: int = 0
    n_before: int = 0
    seconds: float = 0.0

    def count(self, row: Row) -> None:
        """Count a prediction, as a row of fields."""
        self.verdicts[row["verdict"]] += 1
        self.n_judged += row["probability"] not in (None, "")
        if row["verdict"] == "undecidable":
            self.reasons[row["reason"].split(":")[0]] += 1

    def count_before(self, row: Row) -> None:
        """Count a row of an earlier command."""
        self.n_before += 1
        self.count(row)

    @property
    def share_undecidable(self) -> float:
        """Of all videos."""
        return self.verdicts["undecidable"] / max(self.verdicts.total(), 1)

    def __str__(self) -> str:
        n_now = self.verdicts.total() - self.n_before
        said = [f"{self.verdicts[name]} {name}" for name in ("fake", "real", "undecidable")]
        text = f"{self.verdicts.total()} videos: {', '.join(said)}"
        if self.reasons:
            text += f" ({', '.join(f'{n} {reason}' for reason, n in self.reasons.most_common())})"
        if n_now:
            text += f"\n{n_now} in {self.seconds:.0f} s, {self.seconds / n_now:.2f} s a video"
        if self.n_before:
            text += f"\n{self.n_before} were judged before"
        return text


def predict_in_order(
    run: Run,
    listing: Listing,
    backbone: Backbone,
    tally: Tally,
    *,
    jobs: int | None = None,
    judging: Predictor | None = None,
) -> Generator[Prediction, None, None]:
    """Judge videos in the order in which they are listed, and count them.

    Files outside the given folders are not passed to ``judging`` (default: `predict_unordered`).
    """
    begun = time.monotonic()
    usable = [path for path in listing.paths if path not in listing.outside]
    with contextlib.closing(
        predict(run, usable, backbone, jobs=jobs, judging=judging)
    ) as predictions:
        for path in listing.paths:
            where = listing.outside.get(path)
            prediction = _led_out(run, path, where) if where else next(predictions)
            tally.count(dataclasses.asdict(prediction))
            tally.seconds = time.monotonic() - begun
            yield prediction


def predict_into_file(
    output: Path, run: Run, listing: Listing, backbone: Backbone, *, jobs: int | None = None
) -> Tally:
    """Judge the videos that a file of results does not have yet; a line for each as it is done.

    Args:
        output: ends in ``.csv`` or ``.jsonl``; see `Results`. It has absolute paths.
        run: a trained run.
        listing: of the videos.
        backbone: as `model.prediction.predict_videos.backbone_of` gives it.
        jobs: processes that decode; by default one per core.

    Returns:
        what came of all videos that are listed, those judged before among them.

    Raises:
        SettingsError: the file holds something else, or what another run says, or another process
            is writing it.
    """
    begun, tally = time.monotonic(), Tally()
    outside = {_absolute(path): where for path, where in listing.outside.items()}
    with Results(output, run) as results:
        paths = [Path(_absolute(path)) for path in listing.paths]
        todo = results.resume(paths, tally.count_before)
        bar = tqdm(
            total=len(paths), initial=tally.n_before, desc="predict", unit="video", disable=None
        )
        with bar, contextlib.closing(_judged(run, todo, outside, backbone, jobs)) as judged:
            for prediction in judged:
                results.append(prediction)
                tally.count(dataclasses.asdict(prediction))
                bar.set_postfix(tally.verdicts, refresh=False)
                bar.update()
    tally.seconds = time.monotonic() - begun
    return tally


def _judged(
    run: Run,
    paths: Sequence[Path],
    outside: Mapping[str, str],
    backbone: Backbone,
    jobs: int | None,
) -> Generator[Prediction, None, None]:
    usable = []
    for path in paths:
        if str(path) in outside:
            yield _led_out(run, path, outside[str(path)])
        else:
            usable.append(path)
    with contextlib.closing(predict_unordered(run, usable, backbone, LocalPool(jobs))) as judged:
        for _, prediction in judged:
            yield prediction


def _led_out(run: Run, path: Path, where: str) -> Prediction:
    return unusable(run, path, Rejected(OUTSIDE, f"a link to {where}"))
