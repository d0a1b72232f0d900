"""The command that says whether a split leaks."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import click
import cloup

from pipeline.cache import Cache
from pipeline.common.cli import Command
from pipeline.common.csv_files import read_csv
from pipeline.common.errors import IntegrityError, NothingUsable, SettingsError
from pipeline.corpus import layouts
from pipeline.corpus.layouts import AUTO
from pipeline.corpus.leaks import Leak, Pair, find_leaks, offending_pairs
from pipeline.corpus.reading import known_by_path, names_in

_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})


@dataclass(frozen=True)
class Audit:
    """The videos that are on a side of a split, and what links them.

    Attributes:
        names: N names of videos.
        splits: N sides.
        group_keys: N collections of whatever must not be on two sides.
        n_identities: known in these videos.
        n_unknown: videos of whom no identity is known.
    """

    names: list[str]
    splits: list[str]
    group_keys: list[tuple[str, ...]]
    n_identities: int
    n_unknown: int

    def leaks(self) -> list[Leak]:
        """Everything that is on two sides."""
        return find_leaks(self.group_keys, self.splits, self.names)

    def pairs(self) -> Iterator[Pair]:
        """Every pair of videos that shows a leak."""
        return offending_pairs(self.group_keys, self.splits, self.names)


def audit(path: Path, layout: str = AUTO) -> Audit:
    """Collect what has to be on one side of a split each.

    Args:
        path: a cache, or a CSV file with the columns ``path``, ``split`` (any words) and perhaps
            ``identity`` (several are separated by ``;``) and ``original`` (a path in this list).
            The files need not exist: where no identity is given, it is recognised from their names,
            as `read_corpus` would. A row may also be an image, in a folder that is named after its
            video.
        layout: whose names to go by, one of `pipeline.corpus.layouts.CHOICES`.

    Raises:
        SettingsError: it is neither, or lacks a column.
        NothingUsable: nothing is in a split, or nobody is known.
    """
    if path.is_dir():
        rows = _from_cache(path)
    elif path.is_file():
        rows = _from_csv(path, layout)
    else:
        raise SettingsError(f"{path} does not exist", "give a CSV file or a cache")
    rows = [row for row in rows if row.split]
    if not rows:
        raise NothingUsable(f"no video of {path} is in a split", "fill in the column split")
    who = [row.identities for row in rows]
    known = {identity for identities in who for identity in identities}
    if not known:
        raise NothingUsable(
            f"nobody is known of the {len(rows)} videos of {path}, so no leak could show",
            "add a column identity, or say with --layout whose names these are",
        )
    return Audit(
        names=[row.name for row in rows],
        splits=[row.split for row in rows],
        group_keys=[row.group_keys for row in rows],
        n_identities=len(known),
        n_unknown=sum(not identities for identities in who),
    )


@dataclass(frozen=True)
class _Row:
    name: str
    identities: tuple[str, ...]
    group_keys: tuple[str, ...]
    split: str


def _from_cache(folder: Path) -> list[_Row]:
    first = {(clip.video, clip.split): clip for clip in Cache(folder).clips}
    return [
        _Row(clip.video, clip.identities, clip.group_keys, clip.split) for clip in first.values()
    ]


def _from_csv(path: Path, layout: str) -> list[_Row]:
    try:
        rows = read_csv(path)
    except (OSError, csv.Error) as error:
        raise SettingsError(f"cannot read {path}: {error}", "save it as a plain CSV") from error
    if not rows:
        raise SettingsError(f"{path} has no rows", "give a CSV file, or a cache")
    for row in rows:
        if not row.get("path") or row.get("split") is None:
            raise SettingsError(
                f"{path} line {row.line}: it needs a path and a split; the columns are "
                f"{row.columns}",
                "the first line must be path,split or path,label,identity,split",
            )
    files = [path.parent / PureWindowsPath(row["path"]).as_posix() for row in rows]
    folders = [file.parent for file in files if file.suffix.lower() in _IMAGES]
    known = known_by_path(files, layout) | known_by_path(dict.fromkeys(folders), layout)
    audited = []
    for row, file in zip(rows, files, strict=True):
        is_frame = file.suffix.lower() in _IMAGES and file.parent in known
        video = known.get(file.parent if is_frame else file)
        identities = names_in(row) or (video.identities if video else ())
        original = (row.get("original") or "").strip()
        group_keys = (
            *identities,
            f"file:{row['path']}",
            *([f"file:{original}"] if original else [video.original] if video else []),
        )
        split = row["split"].strip().lower()
        audited.append(_Row(row["path"], identities, tuple(filter(None, group_keys)), split))
    return audited


@cloup.command(cls=Command)
@cloup.argument(
    "split",
    type=click.Path(path_type=Path),
    help="A cache, or a CSV file with the columns path,split[,identity]. The files need not exist.",
)
@cloup.option(
    "--layout",
    type=click.Choice(layouts.CHOICES),
    default=layouts.AUTO,
    help="Whose names of files say who is in them, where no identity is given.",
)
def main(split: Path, layout: str) -> None:
    """Say who is on two sides of a split: in a cache, or in anybody's list of files.

    Prints every pair of videos on different sides that have an identity, an original, a recording
    or a file in common. Where the list has no identities they are recognised from the names of DFD,
    FaceForensics++ and Celeb-DF. Ends with exit code 4 if the split leaks.

    \b
    Examples:
      python -m pipeline.audit split.csv
      python -m pipeline.audit caches/dfd
    """
    found = audit(split, layout)
    for pair in found.pairs():
        click.echo(pair)
    if leaks := found.leaks():
        for leak in leaks:
            click.echo(leak)
        raise IntegrityError(
            f"the split of {split} leaks: {len(leaks)} identities, originals or files are on two "
            "sides",
            "give all videos of an identity the same split, or leave out those that straddle",
        )
    unknown = f", {found.n_unknown} videos of whom none is known" if found.n_unknown else ""
    click.echo(
        f"no identity is on two sides: {len(found.names)} videos, {found.n_identities} identities"
        f"{unknown}"
    )


if __name__ == "__main__":
    main()
