"""Protocols of splitting: by identity, as published, or across manipulations or sources.

Videos that share a group key are on one side, except with ``published``.
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipeline.common.errors import SettingsError
from pipeline.corpus.labelled_video import FAKE, Video
from pipeline.splits.partition import folds, partition

if TYPE_CHECKING:  # splitting itself knows no HDF5
    from pipeline.cache import Clip

Videos: TypeAlias = "Sequence[Video | Clip]"  # a clip stands for its video
Splits = list[str | None]  # None for a dropped video

UNPARAMETRISED = ("identity", "official", "published")
PARAMETRISED = ("fold", "leave-out", "test-on")  # "fold:1/5", "leave-out:NAME", "test-on:SOURCE"


@dataclass(frozen=True)
class Splitting:
    """Settings of a split.

    ``by`` is ``identity``; ``official`` or ``published``, as datasets publish it, without or with
    its leaks; ``fold:2/5``; ``leave-out:Face2Face``, to test on one manipulation and train on the
    others; or ``test-on:celebdf``, the same with sources.
    """

    by: str = "identity"
    test: float = 0.2  # share of each label
    val: float = 0.0
    holdout: int = 1  # videos of each label besides
    seed: int = 0

    def __post_init__(self) -> None:
        name, _, parameter = self.by.partition(":")
        if name not in (PARAMETRISED if parameter else UNPARAMETRISED):
            raise SettingsError(
                f"no split {self.by!r}",
                "there are identity, official, published, fold:1/5, leave-out:Face2Face, "
                "test-on:celebdf",
            )
        if name == "fold":
            self.fold  # noqa: B018 - it checks the numbers

    @property
    def fold(self) -> tuple[int, int]:
        """Number of the fold, from 1, and number of folds."""
        number, _, of = self.by.partition(":")[2].partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) >= 2):
            raise SettingsError(f"no split {self.by!r}", "folds are fold:1/5 to fold:5/5, say")
        return int(number), int(of)


def split_clips(clips: Sequence["Clip"], how: Splitting) -> list["Clip"]:
    """Return the clips with their ``split`` set by a protocol."""
    videos = list({clip.video: clip for clip in clips}.values())
    splits = split_videos(videos, [video.source_sha256 for video in videos], how)
    split_of = {video.video: split or "" for video, split in zip(videos, splits, strict=True)}
    return [dataclasses.replace(clip, split=split_of[clip.video]) for clip in clips]


def split_videos(videos: Videos, names: Sequence[str], how: Splitting) -> Splits:
    """Put N videos into train, val, test or holdout by a protocol.

    Their names must be distinct, and the same in every corpus.

    Raises:
        SettingsError: the videos, their group keys or the fractions do not allow the split.
    """
    name, _, parameter = how.by.partition(":")
    if name == "fold":
        return _fold(videos, how)
    if name == "leave-out":
        return _leave_out(videos, names, how, parameter)
    if name == "test-on":
        return _test_on(videos, names, how, parameter)
    if name == "identity":
        return _partition(videos, names, how, [video.given for video in videos])
    if not any(video.official for video in videos):
        raise SettingsError(
            "no video here is in an official split",
            "put the lists that the dataset publishes beside its videos: splits/*.json, "
            "List_of_testing_videos.txt, dataset.json",
        )
    published = [video.given or video.official for video in videos]
    splits = _partition(videos, names, how, published)
    if name == "published":
        return [split or own for split, own in zip(published, splits, strict=True)]
    return splits


def _partition(
    videos: Videos,
    names: Sequence[str],
    how: Splitting,
    fixed: Sequence[str | None],
    rows: Collection[int] | None = None,
) -> Splits:
    """Split some or all videos; drop the others and those whose fixed splits leak."""
    rows = range(len(videos)) if rows is None else rows
    leaking = _leaking(videos, fixed, rows)
    rows = [row for row in rows if row not in leaking]
    chosen = partition(
        [videos[row].group_keys for row in rows],
        [videos[row].label for row in rows],
        seed=how.seed,
        test=how.test,
        val=how.val,
        holdout=how.holdout,
        fixed=[fixed[row] for row in rows],
        names=[names[row] for row in rows],
    )
    split_of = dict(zip(rows, chosen, strict=True))
    return [split_of.get(row) for row in range(len(videos))]


def _leaking(videos: Videos, fixed: Sequence[str | None], rows: Collection[int]) -> set[int]:
    """Return the rows whose fixed splits leak into test, then holdout, then val."""
    leaking: set[int] = set()
    taken: set[str] = set()  # group keys of the sides before
    for side in ("test", "holdout", "val", "train"):
        keys = {row: videos[row].group_keys for row in rows if fixed[row] == side}
        leaking |= {row for row in keys if not taken.isdisjoint(keys[row])}
        taken |= {key for row in keys if row not in leaking for key in keys[row]}
    return leaking


def _fold(videos: Videos, how: Splitting) -> Splits:
    number, of = how.fold
    pairs = folds(
        [video.group_keys for video in videos], [video.label for video in videos], of, seed=how.seed
    )
    if len(pairs) < of:
        raise SettingsError(
            f"these identities allow {len(pairs)} folds, not {of}", f"use fold:1/{len(pairs)}"
        )
    train, test = (rows.tolist() for rows in pairs[number - 1])
    split_of = dict.fromkeys(train, "train") | dict.fromkeys(test, "test")
    return [split_of.get(row) for row in range(len(videos))]


def _leave_out(videos: Videos, names: Sequence[str], how: Splitting, left_out: str) -> Splits:
    """Test on the fakes of one manipulation only, and train on the others only."""
    _check_present(
        left_out, {video.manipulation for video in videos if video.label == FAKE}, "manipulation"
    )
    tested = {n for n, v in enumerate(videos) if v.label != FAKE or v.manipulation == left_out}
    given = [video.given for video in videos]
    first = _partition(videos, names, how, given, sorted(tested))
    fixed = [first[n] if n in tested else split for n, split in enumerate(given)]
    without_holdout = dataclasses.replace(how, holdout=0)
    second = _partition(videos, names, without_holdout, fixed)
    splits: Splits = []
    for n, video in enumerate(videos):
        split = first[n] if n in tested else second[n]
        allowed = ("test", "holdout") if n in tested else ("train", "val")
        splits.append(split if video.label != FAKE or split in allowed else None)
    return splits


def _test_on(videos: Videos, names: Sequence[str], how: Splitting, source: str) -> Splits:
    """Test on all of one source; drop others that share a group key with it."""
    _check_present(source, {video.source for video in videos}, "source")
    tested = {key for video in videos if video.source == source for key in video.group_keys}
    rows = [
        n
        for n, video in enumerate(videos)
        if video.source != source and tested.isdisjoint(video.group_keys)
    ]
    given = [video.given for video in videos]
    splits = _partition(videos, names, dataclasses.replace(how, test=0.0), given, rows)
    return [
        "test" if video.source == source else split
        for video, split in zip(videos, splits, strict=True)
    ]


def _check_present(name: str, present: Collection[str], what: str) -> None:
    if name not in present or len(present) < 2:
        listed = ", ".join(sorted(present)) or "none"
        raise SettingsError(
            f"cannot test on the {what} {name!r} and train on others: there is {listed}",
            f"name one {what} of two or more",
        )
