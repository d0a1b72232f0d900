"""Leaks: who, or what, is on two sides of a split, and every pair of videos that shows it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Leak:
    """Something that videos on more than one side have in common.

    Attributes:
        tie: an identity, an original, the bytes of a file, a recording.
        sides: split → the videos there that have it; two splits or more.
    """

    tie: str
    sides: dict[str, list[str]]

    @property
    def n_pairs(self) -> int:
        """How many pairs of videos on different sides share it."""
        counts = [len(videos) for videos in self.sides.values()]
        return (sum(counts) ** 2 - sum(n * n for n in counts)) // 2

    def __str__(self) -> str:
        places = [f"{split} ({videos[0]})" for split, videos in self.sides.items()]
        more = f", {self.n_pairs} such pairs" if self.n_pairs > 1 else ""
        return f"{self.tie} is in {' and in '.join(places)}{more}"


@dataclass(frozen=True)
class Pair:
    """Two videos on different sides, and all that links them."""

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
    """Find everything that is on more than one side.

    Args:
        group_keys: N collections: whatever must not be on two sides.
        splits: N sides, any words; one that is empty or None is no side.
        names: N names for the report; without them, row numbers from 0.

    Returns:
        one leak per tie, sorted by it; `str(leak)` says it in a sentence.

    Raises:
        ValueError: the sequences differ in length.

    Example:
        >>> print(*find_leaks([{"ann"}, {"ann", "bo"}, {"bo"}], ["train", "test", "test"]))
        ann is in train (row 0) and in test (row 1)
    """
    shown = [f"row {i}" for i in range(len(splits))] if names is None else names
    return [
        Leak(tie, {split: [shown[row] for row in rows] for split, rows in sides.items()})
        for tie, sides in sorted(_straddling(group_keys, splits, shown).items())
    ]


def offending_pairs(
    group_keys: Sequence[Collection[str]],
    splits: Sequence[str | None],
    names: Sequence[str] | None = None,
) -> Iterator[Pair]:
    """Every pair of videos that a leak shows, each once; arguments as of `find_leaks`."""
    shown = [f"row {i}" for i in range(len(splits))] if names is None else names
    straddling = _straddling(group_keys, splits, shown)
    for tie, sides in sorted(straddling.items()):
        for (split_a, rows_a), (split_b, rows_b) in combinations(sides.items(), 2):
            for a in rows_a:
                for b in rows_b:
                    common = sorted(set(group_keys[a]) & set(group_keys[b]) & straddling.keys())
                    if common[0] == tie:  # the others would say the same pair again
                        yield Pair(split_a, shown[a], split_b, shown[b], tuple(common))


def _straddling(
    group_keys: Sequence[Collection[str]], splits: Sequence[str | None], names: Sequence[str]
) -> dict[str, dict[str, list[int]]]:
    """Tie → side → rows, for the group_keys on more than one side."""
    seen: dict[str, dict[str, list[int]]] = {}
    for row, (shared, split, _) in enumerate(zip(group_keys, splits, names, strict=True)):
        if split:
            for tie in set(shared):
                seen.setdefault(tie, {}).setdefault(split, []).append(row)
    return {tie: sides for tie, sides in seen.items() if len(sides) > 1}
