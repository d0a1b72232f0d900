"""The table of group keys of a run's training videos, ``training.csv``."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.cache import Clip
from pipeline.common.csv_files import first_few, read_csv, write_csv
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.corpus.labelled_video import own_kinds

TRAINING = "training.csv"
MAX_KEYS_IN_MESSAGE = 5


def write_trained_on(folder: Path, clips: Iterable[Clip]) -> None:
    """Write ``training.csv``: one row per training video and group key, and kinds of own fakes."""
    videos = {clip.video: clip for clip in clips}
    rows = [
        [clip.video, key, "+".join(own_kinds(clip.manipulation)) if clip.is_own_fake else ""]
        for clip in videos.values()
        for key in clip.group_keys
    ]
    write_csv(folder / TRAINING, ["id", "tie", "own_kinds"], rows)


def trained_on(folder: Path) -> set[str]:
    """Return all group keys (identities, originals, files ...) of a run's training videos."""
    path = folder / TRAINING
    if not path.is_file():
        raise SettingsError(
            f"{folder} does not say what it was trained on: it has no {TRAINING}", "fit it again"
        )
    return {row["tie"] for row in read_csv(path)}


def check_unseen(folder: Path, clips: Iterable[Clip], source: str, *, allow: bool = False) -> str:
    """Raise IntegrityError if clips share a group key with a run's training videos.

    With ``allow`` return a warning for every result instead, empty if nothing is shared.
    """
    shared = sorted(trained_on(folder) & {key for clip in clips for key in clip.group_keys})
    if not shared:
        return ""
    overlap = f"{len(shared)} identities, originals, recordings or files of {source}"
    if not allow:
        raise IntegrityError(
            f"{overlap} were trained on by {folder}: {first_few(shared, MAX_KEYS_IN_MESSAGE)}",
            "evaluate on others; --allow-leaks continues and adds a warning to every result",
        )
    return f"{overlap} were seen in training. Results are too good to be true."
