"""Counting a corpus: tables of what it holds, readable on a terminal and as Markdown."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from pipeline.corpus.labelled_video import FAKE, REAL, SPLITS


class Counted(Protocol):
    """What the tables count of a video or a clip."""

    @property
    def label(self) -> int: ...  # noqa: D102
    @property
    def identities(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def manipulation(self) -> str: ...  # noqa: D102
    @property
    def compression(self) -> str: ...  # noqa: D102


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, its columns aligned; numbers are put to the right."""
    cells = [[str(value).replace("|", "\\|") for value in row] for row in rows]
    right = [bool(cells) and all(row[n].isdecimal() for row in cells) for n in range(len(header))]
    width = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(width, right, strict=True)]
    lines = [
        [
            f"{value:>{w}}" if r else f"{value:{w}}"
            for value, w, r in zip(row, width, right, strict=True)
        ]
        for row in (header, rule, *cells)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def by_kind(videos: Sequence[Counted]) -> str:
    """Videos by source, manipulation, compression and label."""
    kinds: dict[tuple[str, str, str], Counter[int]] = {}
    for video in videos:
        kind = (video.source, video.manipulation, video.compression)
        kinds.setdefault(kind, Counter())[video.label] += 1
    rows = [
        [*(part or "-" for part in kind), labels[REAL], labels[FAKE]]
        for kind, labels in sorted(kinds.items())
    ]
    return table(["source", "manipulation", "compression", "real", "fake"], rows)


def split_rows(videos: Sequence[Counted], splits: Sequence[str | None]) -> list[dict[str, Any]]:
    """``split`` (empty: none), ``real``, ``fake`` and ``identities`` of each that has videos."""
    rows = []
    for split in (*SPLITS, ""):
        here = [video for video, s in zip(videos, splits, strict=True) if (s or "") == split]
        labels = Counter(video.label for video in here)
        if here:
            n = {"real": labels[REAL], "fake": labels[FAKE], "identities": len(identities(here))}
            rows.append({"split": split} | n)
    return rows


def by_split(videos: Sequence[Counted], splits: Sequence[str | None]) -> str:
    """Videos and identities of each split, and of none."""
    rows = [
        [row["split"] or "none (dropped)", row["real"], row["fake"], row["identities"]]
        for row in split_rows(videos, splits)
    ]
    return table(["split", "real", "fake", "identities"], rows)


def split_lines(
    videos: Sequence[Counted], splits: Sequence[str | None], how: Mapping[str, Any]
) -> list[str]:
    """What came of a split, a line each.

    Args:
        videos: N of them.
        splits: N splits, empty or None for those in none.
        how: the settings of `pipeline.splits.protocols.Splitting`.
    """
    lines = []
    for split in (*SPLITS, ""):
        labels = Counter(v.label for v, s in zip(videos, splits, strict=True) if (s or "") == split)
        name = split or "in no split (what ties them to others straddles, or the holdout is full)"
        if labels:
            lines.append(f"  {name}: {labels[REAL]} real, {labels[FAKE]} fake")
        elif split in ("test", "val", "holdout") and how[split] and how["by"] == "identity":
            lines.append(f"  {name}: none, the identities do not allow it")
    return lines


def identities(videos: Iterable[Counted]) -> set[str]:
    """Everybody who is known to be in one of the videos."""
    return {identity for video in videos for identity in video.identities}
