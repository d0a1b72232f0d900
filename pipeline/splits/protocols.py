"""Which videos train and which test: by identity, as published, or across manipulations or sources.

Whatever the protocol, nothing that ties two videos together is on two sides of the split; only
``published`` keeps a dataset's own split as it is, leaks and all.
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipeline.common.errors import SettingsError
from pipeline.corpus.labelled_video import FAKE
from pipeline.splits.partition import folds, partition

if TYPE_CHECKING:  # splitting itself knows no HDF5
    from pipeline.cache import Clip

SPLITTERS = ("identity", "official", "published", "fold", "leave-out", "test-on")


class Splittable(Protocol):
    """What a protocol asks of a video: such as `Video` and `Clip`."""

    @property
    def label(self) -> int: ...  # noqa: D102
    @property
    def group_keys(self) -> Collection[str]: ...  # noqa: D102
    @property
    def given(self) -> str: ...  # noqa: D102
    @property
    def official(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def manipulation(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Splitting:
    """How to split a corpus.

    Attributes:
        by: ``identity``; ``official`` and ``published``: as FaceForensics++, Celeb-DF and DFDC
            publish it, without and with its leaks; ``fold:2/5``; ``leave-out:Face2Face``, which
            tests on one manipulation and trains on the others; ``test-on:celebdf``, the same of
            sources.
        test: share of each label for test.
        val: share of each label for val.
        holdout: videos of each label to hold out besides.
        seed: decides whatever is left open.
    """

    by: str = "identity"
    test: float = 0.2
    val: float = 0.0
    holdout: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        name, _, rest = self.by.partition(":")
        if name not in SPLITTERS or bool(rest) != (name in SPLITTERS[3:]):
            raise SettingsError(
                f"no split {self.by!r}",
                "there are identity, official, published, fold:1/5, leave-out:Face2Face, "
                "test-on:celebdf",
            )
        if name == "fold":
            self.fold  # noqa: B018 - it checks the numbers

    @property
    def fold(self) -> tuple[int, int]:
        """Which fold of how many, from 1.

        Raises:
            SettingsError: the protocol is not two such numbers.
        """
        number, _, of = self.by.partition(":")[2].partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) >= 2):
            raise SettingsError(f"no split {self.by!r}", "folds are fold:1/5 to fold:5/5, say")
        return int(number), int(of)


def split_clips(clips: Sequence["Clip"], how: Splitting) -> list["Clip"]:
    """Return the clips with ``split`` set by a protocol; clips of one video stay together."""
    videos = list({clip.video: clip for clip in clips}.values())
    splits = split_videos(videos, [video.source_sha256 for video in videos], how)
    split_of = {video.video: split or "" for video, split in zip(videos, splits, strict=True)}
    return [dataclasses.replace(clip, split=split_of[clip.video]) for clip in clips]


def split_videos(
    videos: Sequence[Splittable], names: Sequence[str], how: Splitting
) -> list[str | None]:
    """Put every video into train, val, test or holdout by a protocol.

    Args:
        videos: N videos.
        names: N distinct names, the same for the same video whatever the others are.
        how: the protocol and its settings.

    Returns:
        N splits, None for a video that is dropped.

    Raises:
        SettingsError: no video is of the manipulation, source or official split that is asked
            for; the fractions or the identities do not allow it.
    """
    name, _, rest = how.by.partition(":")
    given = [video.given for video in videos]
    if name == "fold":
        return _fold(videos, how)
    if name == "leave-out":
        return _leave_out(videos, names, how, rest)
    if name == "test-on":
        return _test_on(videos, names, how, rest)
    if name == "identity":
        return _partition(videos, names, how, given)
    if not any(video.official for video in videos):
        raise SettingsError(
            "no video here is in an official split",
            "put the lists that the dataset publishes beside its videos: splits/*.json, "
            "List_of_testing_videos.txt, dataset.json",
        )
    stated = [video.given or video.official for video in videos]
    splits = _partition(videos, names, how, stated)
    if name == "published":
        return [split or own for split, own in zip(stated, splits, strict=True)]
    return splits


def _partition(
    videos: Sequence[Splittable], names: Sequence[str], how: Splitting, stated: Sequence[str]
) -> list[str | None]:
    """Keep the splits that are stated as far as they do not leak, and choose the others."""
    dropped = _leaking(videos, stated)
    rest = [n for n in range(len(videos)) if n not in dropped]
    chosen = partition(
        [videos[n].group_keys for n in rest],
        [videos[n].label for n in rest],
        seed=how.seed,
        test=how.test,
        val=how.val,
        holdout=how.holdout,
        fixed=[stated[n] for n in rest],
        names=[names[n] for n in rest],
    )
    splits: list[str | None] = [None] * len(videos)
    for n, split in zip(rest, chosen, strict=True):
        splits[n] = split
    return splits


def _leaking(videos: Sequence[Splittable], stated: Sequence[str]) -> set[int]:
    """The videos whose stated splits leak into test, then into holdout, then into val."""
    leaking: set[int] = set()
    side_of: dict[str, str] = {}
    for side in ("test", "holdout", "val", "train"):
        here = [n for n, split in enumerate(stated) if split == side]
        leaking |= {n for n in here if any(tie in side_of for tie in videos[n].group_keys)}
        side_of |= {tie: side for n in here if n not in leaking for tie in videos[n].group_keys}
    return leaking


def _fold(videos: Sequence[Splittable], how: Splitting) -> list[str | None]:
    number, of = how.fold
    parts = folds(
        [video.group_keys for video in videos], [video.label for video in videos], of, seed=how.seed
    )
    if len(parts) < of:
        raise SettingsError(
            f"these identities allow {len(parts)} folds, not {of}", f"use fold:1/{len(parts)}"
        )
    splits: list[str | None] = [None] * len(videos)
    for side, members in zip(("train", "test"), parts[number - 1], strict=True):
        for n in members:
            splits[n] = side
    return splits


def _leave_out(
    videos: Sequence[Splittable], names: Sequence[str], how: Splitting, left_out: str
) -> list[str | None]:
    """Fakes of one manipulation may only test, all others only train."""
    _there(
        left_out, {video.manipulation for video in videos if video.label == FAKE}, "manipulation"
    )
    tested = [n for n, v in enumerate(videos) if v.label != FAKE or v.manipulation == left_out]
    stated = [video.given for video in videos]
    chosen = _partition(
        [videos[n] for n in tested], [names[n] for n in tested], how, [stated[n] for n in tested]
    )
    for n, split in zip(tested, chosen, strict=True):
        stated[n] = split or ""
    # The other fakes follow those who are in them.
    splits = _partition(videos, names, dataclasses.replace(how, holdout=0), stated)
    splits = [split if split in ("train", "val") else None for split in splits]
    for n, split in zip(tested, chosen, strict=True):
        here = videos[n].label != FAKE or split in ("test", "holdout")
        splits[n] = split if here else None
    return splits


def _test_on(
    videos: Sequence[Splittable], names: Sequence[str], how: Splitting, source: str
) -> list[str | None]:
    """All of one source tests; of the others, what is tied to it is dropped."""
    _there(source, {video.source for video in videos}, "source")
    tested = {tie for video in videos if video.source == source for tie in video.group_keys}
    apart = [
        n
        for n, video in enumerate(videos)
        if video.source != source and tested.isdisjoint(video.group_keys)
    ]
    inner = _partition(
        [videos[n] for n in apart],
        [names[n] for n in apart],
        dataclasses.replace(how, test=0.0),
        [videos[n].given for n in apart],
    )
    splits: list[str | None] = ["test" if video.source == source else None for video in videos]
    for n, split in zip(apart, inner, strict=True):
        splits[n] = split
    return splits


def _there(name: str, present: Collection[str], what: str) -> None:
    if name not in present or len(present) < 2:
        listed = ", ".join(sorted(present)) or "none"
        raise SettingsError(
            f"cannot test on the {what} {name!r} and train on others: there is {listed}",
            f"name one {what} of two or more",
        )
