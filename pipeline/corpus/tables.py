"""Tables of what a corpus holds, in Markdown."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.corpus.labelled_video import FAKE, REAL, SPLITS, Video, own_kinds

if TYPE_CHECKING:  # a corpus knows no HDF5
    from pipeline.cache import Clip

Counted: TypeAlias = "Video | Clip"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format an aligned Markdown table, numbers to the right."""
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
    """Count videos by source, manipulation, compression and label; own fakes of all kinds as one.

    `own_fakes_by_kind` counts these.
    """
    kinds: dict[tuple[str, str, str], Counter[int]] = {}
    for video in videos:
        manipulation = "own fakes" if video.is_own_fake else video.manipulation
        kind = (video.source, manipulation, video.compression)
        kinds.setdefault(kind, Counter())[video.label] += 1
    rows = [
        [*(part or "-" for part in kind), labels[REAL], labels[FAKE]]
        for kind, labels in sorted(kinds.items())
    ]
    return table(["source", "manipulation", "compression", "real", "fake"], rows)


def split_rows(videos: Sequence[Counted], splits: Sequence[str | None]) -> list[dict[str, Any]]:
    """Count videos and ``identities`` of each ``split`` with videos; empty: dropped.

    ``fake`` leaves out own fakes, which are ``own``.
    """
    rows = []
    for split in (*SPLITS, ""):
        here = [video for video, s in zip(videos, splits, strict=True) if (s or "") == split]
        labels = Counter(video.label for video in here)
        own = sum(video.is_own_fake for video in here)
        if here:
            n = {"real": labels[REAL], "fake": labels[FAKE] - own, "own": own}
            n["identities"] = len(identities(here))
            rows.append({"split": split} | n)
    return rows


def by_split(videos: Sequence[Counted], splits: Sequence[str | None]) -> str:
    """Format `split_rows`, with a column of own fakes if there are any."""
    counted = split_rows(videos, splits)
    columns = {"real": "real", "fake": "fake", "own": "own fakes", "identities": "identities"}
    if any(row["own"] for row in counted):
        columns["fake"] = "real fakes"
    else:
        del columns["own"]
    rows = [
        [row["split"] or "none (dropped)", *(row[column] for column in columns)] for row in counted
    ]
    return table(["split", *columns.values()], rows)


def split_lines(
    videos: Sequence[Counted], splits: Sequence[str | None], how: Mapping[str, Any]
) -> list[str]:
    """Summarise a split in one line a side; ``how`` has the fields of `Splitting`."""
    lines = []
    rows = {row["split"]: row for row in split_rows(videos, splits)}
    has_own = any(row["own"] for row in rows.values())
    why = "they share identities with two sides, or the holdout is full"
    if has_own and any(row["fake"] for row in rows.values()):
        why += ", or they are not what this split trains or tests on"
    for split in (*SPLITS, ""):
        name = split or f"in no split ({why})"
        if split in rows:
            n = rows[split]
            fakes = (
                f"{n['fake']} real fakes, {n['own']} own fakes" if has_own else f"{n['fake']} fake"
            )
            lines.append(f"  {name}: {n['real']} real, {fakes}")
        elif split in ("test", "val", "holdout") and how[split] and how["by"] == "identity":
            lines.append(f"  {name}: none, the identities do not allow it")
    return lines


def kinds_of_own_fakes(videos: Iterable[Counted]) -> tuple[str, ...]:
    """Return the kinds in any of the own fakes, sorted."""
    own = (video.manipulation for video in videos if video.is_own_fake)
    return tuple(sorted({kind for manipulation in own for kind in own_kinds(manipulation)}))


def own_fakes_by_kind(videos: Iterable[Counted]) -> str:
    """Count own fakes that contain each kind, such as ``2 blend, 1 drift``."""
    own = (video.manipulation for video in videos if video.is_own_fake)
    counts = Counter(kind for manipulation in own for kind in own_kinds(manipulation))
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))


def identities(videos: Iterable[Counted]) -> set[str]:
    """Return the identities in any of the videos."""
    return {identity for video in videos for identity in video.identities}
