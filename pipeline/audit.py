"""The command that checks whether a split leaks."""

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

_IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})


@dataclass(frozen=True)
class AuditedVideo:
    """A video of a split, with the keys that must not be on two sides."""

    name: str
    identities: tuple[str, ...]
    group_keys: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Audit:
    """The videos of a split, and the identities in them."""

    videos: list[AuditedVideo]
    identities: set[str]

    def leaks(self) -> list[Leak]:
        """Return the keys that are on two sides."""
        return find_leaks(*self._columns())

    def pairs(self) -> Iterator[Pair]:
        """Return the pairs of videos that leak."""
        return offending_pairs(*self._columns())

    def _columns(self) -> tuple[list[tuple[str, ...]], list[str], list[str]]:
        rows = self.videos
        return [row.group_keys for row in rows], [row.split for row in rows], [r.name for r in rows]


def audit(path: Path, layout: str = AUTO) -> Audit:
    """Read the split of a cache, or of a CSV file: path,split[,identity][,original].

    Missing identities are derived from names; files need not exist. A row may also be an image in a
    folder named after its video.
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
    identities = {identity for row in rows for identity in row.identities}
    if not identities:
        raise NothingUsable(
            f"no identity is known in the {len(rows)} videos of {path}, so no leak could show",
            "add a column identity, or say with --layout whose names these are",
        )
    return Audit(rows, identities)


def _from_cache(folder: Path) -> list[AuditedVideo]:
    videos = {(clip.video, clip.split): clip for clip in Cache(folder).clips}
    return [
        AuditedVideo(clip.video, clip.identities, clip.group_keys, clip.split)
        for clip in videos.values()
    ]


def _from_csv(path: Path, layout: str) -> list[AuditedVideo]:
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
    folders = [file.parent for file in files if file.suffix.lower() in _IMAGE_ENDINGS]
    known = known_by_path(files, layout) | known_by_path(dict.fromkeys(folders), layout)
    audited = []
    for row, file in zip(rows, files, strict=True):
        is_frame = file.suffix.lower() in _IMAGE_ENDINGS and file.parent in known
        video = known.get(file.parent if is_frame else file)
        identities = names_in(row) or (video.identities if video else ())
        original = (row.get("original") or "").strip()
        group_keys = (
            *identities,
            f"file:{row['path']}",
            *([f"file:{original}"] if original else [video.original] if video else []),
        )
        split = row["split"].strip().lower()
        keys = tuple(filter(None, group_keys))
        audited.append(AuditedVideo(row["path"], identities, keys, split))
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
    help="Naming scheme that identities are derived from where none is given.",
)
def main(split: Path, layout: str) -> None:
    """Check whether the split of a cache, or of any list of files, leaks.

    Print every pair of videos on different sides that share an identity, an original, a recording
    or a file. Identities that a list does not give are derived from the file names of DFD,
    FaceForensics++ and Celeb-DF. The exit code is 4 if the split leaks.

    \b
    Examples:
      python -m pipeline.audit split.csv
      python -m pipeline.audit caches/dfd
    """
    audited = audit(split, layout)
    for pair in audited.pairs():
        click.echo(pair)
    if leaks := audited.leaks():
        for leak in leaks:
            click.echo(leak)
        raise IntegrityError(
            f"the split of {split} leaks: {len(leaks)} identities, originals or files are on two "
            "sides",
            "give all videos of an identity the same split, or leave out those that straddle",
        )
    n_unknown = sum(not video.identities for video in audited.videos)
    click.echo(
        f"no identity is on two sides: {len(audited.videos)} videos, "
        f"{len(audited.identities)} identities"
        + (f", {n_unknown} videos without a known identity" if n_unknown else "")
    )


if __name__ == "__main__":
    main()
