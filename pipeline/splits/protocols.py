"""Protocols of splitting: by identity, as published, or across manipulations or sources.

Videos that share a group key are on one side, except with ``published``.

Where there are own fakes and real ones, the own ones train and the real ones test, each beside the
real videos that are encoded like them.
"""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from pipeline.common.errors import SettingsError
from pipeline.corpus.labelled_video import FAKE, OWN, Video, own_kinds
from pipeline.splits.partition import folds, groups, partition

if TYPE_CHECKING:  # splitting itself knows no HDF5
    from pipeline.cache import Clip

Videos: TypeAlias = "Sequence[Video | Clip]"  # a clip stands for its video
Splits = list[str | None]  # None for a dropped video

UNPARAMETRISED = ("identity", "official", "published")
PARAMETRISED = ("fold", "leave-out", "test-on")  # "fold:1/5", "leave-out:NAME", "test-on:SOURCE"
TrainOn = Literal["own", "real", "all"]  # fakes


@dataclass(frozen=True)
class Splitting:
    """Settings of a split.

    ``by`` is ``identity``; ``official`` or ``published``, as datasets publish it, without or with
    its leaks; ``fold:2/5``; ``leave-out:Face2Face``, to test on one manipulation (or on all own
    fakes with ``own:drift`` among their kinds) and train on the others; or ``test-on:celebdf``, the
    same with sources.
    """

    by: str = "identity"
    test: float = 0.2  # share of each label
    val: float = 0.0
    holdout: int = 1  # videos of each label besides
    seed: int = 0
    train_on: TrainOn | None = None  # own fakes if there are any

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
    fakes = {n for n, video in enumerate(videos) if video.label == FAKE}
    given = [video.given for video in videos]
    if name == "fold":
        return _fold(videos, how, _roles(videos, how, fakes, fakes))
    if name == "leave-out":
        left_out = _left_out(videos, fakes, parameter)
        roles = _roles(videos, how, fakes - left_out, left_out)
        return _divide(videos, names, how, given, roles)
    if name == "test-on":
        return _test_on(videos, names, how, parameter, fakes)
    roles = _roles(videos, how, fakes, fakes).and_also(n for n, split in enumerate(given) if split)
    if name == "identity":
        return _divide(videos, names, how, given, roles)
    if not any(video.official for video in videos):
        raise SettingsError(
            "no video here is in an official split",
            "put the lists that the dataset publishes beside its videos: splits/*.json, "
            "List_of_testing_videos.txt, dataset.json",
        )
    published = [video.given or video.official for video in videos]
    splits = _divide(videos, names, how, published, roles)
    if name == "published":
        splits = [split or own for split, own in zip(published, splits, strict=True)]
        return roles.applied(splits)
    return splits


@dataclass(frozen=True)
class _Roles:
    """Rows that may train or validate, and rows that may be tested or held out."""

    train: frozenset[int]
    test: frozenset[int]

    def and_also(self, rows: Iterable[int]) -> "_Roles":
        """Allow rows on every side."""
        rows = frozenset(rows)
        return _Roles(self.train | rows, self.test | rows)

    def applied(self, splits: Sequence[str | None]) -> Splits:
        """Drop the videos that are on a side where they may not be."""
        allowed = {"train": self.train, "val": self.train, "test": self.test, "holdout": self.test}
        return [s if s and n in allowed[s] else None for n, s in enumerate(splits)]


def _roles(videos: Videos, how: Splitting, to_train: set[int], to_test: set[int]) -> _Roles:
    """Choose from fakes to train and to test: by default own ones train, and real ones test.

    Real videos do both. But where some are originals of own fakes, encoded again like them, and
    others are not, each trains or tests only beside the fakes that are encoded like it.
    """
    own = {n for n, video in enumerate(videos) if video.is_own_fake}
    fakes = {n for n, video in enumerate(videos) if video.label == FAKE}
    if how.train_on == "real":
        train = to_train - own or to_train
    elif how.train_on == "all":
        train = to_train
    else:
        train = to_train & own or to_train
    test = to_test - own or to_test
    originals = {videos[n].original for n in own} - {""}
    real = {n for n in range(len(videos)) if n not in fakes}
    like_own = {n for n in real if videos[n].original in originals}
    others = real - like_own

    def beside(chosen: set[int]) -> frozenset[int]:
        if not (own and fakes - own and like_own and others):
            return frozenset(chosen | real)
        reals = (like_own if chosen & own else set()) | (others if chosen - own else set())
        return frozenset(chosen | reals)

    return _Roles(beside(train), beside(test))


def _divide(
    videos: Videos, names: Sequence[str], how: Splitting, fixed: Sequence[str | None], roles: _Roles
) -> Splits:
    """Split what may be tested, then what may train beside it; people without the latter test."""
    if len(roles.train) == len(roles.test) == len(videos):
        return _partition(videos, names, how, fixed)
    component = groups([video.group_keys for video in videos]).tolist()
    may_train = {component[n] for n in roles.train}
    pinned: Splits = [
        split or ("test" if component[n] not in may_train else None)
        for n, split in enumerate(fixed)
    ]
    first = _partition(videos, names, how, pinned, sorted(roles.test))
    side_of_key = {key: s for n, s in enumerate(first) if s for key in videos[n].group_keys}
    rows = set(roles.test)
    for n in roles.train - roles.test:
        sides = {side_of_key.get(key, fixed[n]) for key in videos[n].group_keys}
        if not fixed[n] or sides <= {fixed[n]}:  # else it leaks
            rows.add(n)
    pinned = [first[n] if n in roles.test else split for n, split in enumerate(fixed)]
    rest = dataclasses.replace(how, test=0.0, holdout=0)
    second = _partition(videos, names, rest, pinned, sorted(rows))
    return roles.applied([first[n] if n in roles.test else split for n, split in enumerate(second)])


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


def _fold(videos: Videos, how: Splitting, roles: _Roles) -> Splits:
    number, of = how.fold
    rows = sorted(roles.test)
    pairs = folds(
        [videos[row].group_keys for row in rows], [videos[row].label for row in rows], of,
        seed=how.seed,
    )  # fmt: skip
    if len(pairs) < of:
        raise SettingsError(
            f"these identities allow {len(pairs)} folds, not {of}", f"use fold:1/{len(pairs)}"
        )
    _, test = pairs[number - 1]
    tested = {rows[n] for n in test.tolist()}
    keys = {key for row in tested for key in videos[row].group_keys}
    train = {n for n in roles.train - tested if keys.isdisjoint(videos[n].group_keys)}
    split_of = dict.fromkeys(train, "train") | dict.fromkeys(tested, "test")
    return [split_of.get(row) for row in range(len(videos))]


def _left_out(videos: Videos, fakes: set[int], name: str) -> set[int]:
    """Return the fakes of one manipulation, or the own fakes with all kinds of ``own:KIND``."""
    kinds = set(own_kinds(name))
    if kinds:
        left_out = {n for n in fakes if kinds <= set(own_kinds(videos[n].manipulation))}
    else:
        left_out = {n for n in fakes if videos[n].manipulation == name}
    if not left_out or left_out == fakes:
        present = {v.manipulation for v in videos if v.label == FAKE and not v.is_own_fake}
        for n in fakes:
            present |= {OWN + kind for kind in own_kinds(videos[n].manipulation)}
        raise _cannot_test_on(name, present, "manipulation")
    return left_out


def _test_on(
    videos: Videos, names: Sequence[str], how: Splitting, source: str, fakes: set[int]
) -> Splits:
    """Test on all of one source; drop others that share a group key with it."""
    present = {video.source for video in videos}
    if source not in present or len(present) < 2:
        raise _cannot_test_on(source, present, "source")
    tested = {n for n, video in enumerate(videos) if video.source == source}
    roles = _roles(videos, how, fakes - tested, fakes & tested)
    keys = {key for n in tested for key in videos[n].group_keys}
    rows = [n for n in sorted(roles.train - tested) if keys.isdisjoint(videos[n].group_keys)]
    given = [video.given for video in videos]
    splits = _partition(videos, names, dataclasses.replace(how, test=0.0), given, rows)
    return [
        ("test" if n in roles.test else None) if n in tested else split
        for n, split in enumerate(splits)
    ]


def _cannot_test_on(name: str, present: Collection[str], what: str) -> SettingsError:
    listed = ", ".join(sorted(present)) or "none"
    return SettingsError(
        f"cannot test on the {what} {name!r} and train on others: there is {listed}",
        f"name one {what} of two or more",
    )
