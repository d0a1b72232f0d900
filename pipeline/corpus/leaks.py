"""Leaks: group keys on two sides of a split."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product


@dataclass(frozen=True)
class Leak:
    """A group key of videos on more than one side."""

    key: str
    sides: dict[str, list[str]]  # names of the videos by split

    @property
    def n_pairs(self) -> int:
        """Pairs of videos on different sides."""
        counts = [len(videos) for videos in self.sides.values()]
        return (sum(counts) ** 2 - sum(n * n for n in counts)) // 2

    def __str__(self) -> str:
        places = [f"{split} ({videos[0]})" for split, videos in self.sides.items()]
        more = f", {self.n_pairs} such pairs" if self.n_pairs > 1 else ""
        return f"{self.key} is in {' and in '.join(places)}{more}"


@dataclass(frozen=True)
class Pair:
    """Two videos on different sides, and the group keys they share."""

    split_a: str
    video_a: str
    split_b: str
    video_b: str
    group_keys: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.split_a} {self.video_a} and {self.split_b} {self.video_b}: "
            f"{', '.join(self.group_keys)}"
        )


def find_leaks(
    group_keys: Sequence[Collection[str]],
    splits: Sequence[str | None],
    names: Sequence[str] | None = None,
) -> list[Leak]:
    """Return the group keys that are on more than one side, sorted.

    A video whose split is empty or None is on no side.

    Example:
        >>> print(*find_leaks([{"ann"}, {"ann", "bo"}, {"bo"}], ["train", "test", "test"]))
        ann is in train (row 0) and in test (row 1)
    """
    names = _names(splits, names)
    return [
        Leak(key, {split: [names[row] for row in rows] for split, rows in sides.items()})
        for key, sides in _straddling(group_keys, splits, names).items()
    ]


def offending_pairs(
    group_keys: Sequence[Collection[str]],
    splits: Sequence[str | None],
    names: Sequence[str] | None = None,
) -> Iterator[Pair]:
    """Yield every pair of videos that leaks, once."""
    names = _names(splits, names)
    straddling = _straddling(group_keys, splits, names)
    for key, sides in straddling.items():
        for (split_a, rows_a), (split_b, rows_b) in combinations(sides.items(), 2):
            for a, b in product(rows_a, rows_b):
                common = sorted(set(group_keys[a]) & set(group_keys[b]) & straddling.keys())
                if common[0] == key:  # else another key yields the pair
                    yield Pair(split_a, names[a], split_b, names[b], tuple(common))


def _names(splits: Sequence[str | None], names: Sequence[str] | None) -> Sequence[str]:
    return [f"row {row}" for row in range(len(splits))] if names is None else names


def _straddling(
    group_keys: Sequence[Collection[str]], splits: Sequence[str | None], names: Sequence[str]
) -> dict[str, dict[str, list[int]]]:
    """Return rows by key and side, sorted by key."""
    sides_of_key: dict[str, dict[str, list[int]]] = {}
    for row, (keys, split, _) in enumerate(zip(group_keys, splits, names, strict=True)):
        if split:
            for key in set(keys):
                sides_of_key.setdefault(key, {}).setdefault(split, []).append(row)
    return {key: sides for key, sides in sorted(sides_of_key.items()) if len(sides) > 1}
