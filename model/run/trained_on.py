"""Whom and what a run was trained on, kept beside the model."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.cache import Clip
from pipeline.common.csv_files import first_few, read_csv, write_csv
from pipeline.common.errors import IntegrityError, SettingsError

TRAINING = "training.csv"
SHOWN = 5


def write_trained_on(folder: Path, clips: Iterable[Clip]) -> None:
    """Write ``training.csv``: a row for everything that ties each training video to others."""
    of_video = {clip.video: clip.group_keys for clip in clips}
    rows = [[video, tie] for video, ties in of_video.items() for tie in ties]
    write_csv(folder / TRAINING, ["id", "tie"], rows)


def trained_on(folder: Path) -> set[str]:
    """The identities, originals, recordings and files that a run was trained on.

    Raises:
        SettingsError: the run does not say.
    """
    path = folder / TRAINING
    if not path.is_file():
        raise SettingsError(
            f"{folder} does not say what it was trained on: it has no {TRAINING}", "fit it again"
        )
    return {row["tie"] for row in read_csv(path)}


def check_unseen(folder: Path, clips: Iterable[Clip], what: str, *, allow: bool = False) -> str:
    """Refuse videos that share anything with those that a run was trained on.

    Args:
        folder: of the run.
        clips: to be evaluated.
        what: these are, for the message.
        allow: do not refuse them.

    Returns:
        what to say over every result on them, or nothing.

    Raises:
        IntegrityError: a tie is on both sides.
    """
    shared = sorted(trained_on(folder) & {tie for clip in clips for tie in clip.group_keys})
    if not shared:
        return ""
    found = f"{len(shared)} identities, originals, recordings or files of {what}"
    if not allow:
        listed = first_few(shared, SHOWN)
        raise IntegrityError(
            f"{found} were trained on by {folder}: {listed}",
            "evaluate on others; --allow-leaks goes on, and says so over every result",
        )
    return f"{found} were seen in training. Results are too good to be true."
