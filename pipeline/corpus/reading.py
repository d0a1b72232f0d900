"""Which videos there are, whether they are real or fake, and whose face they show."""

import csv
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.csv_files import read_csv
from pipeline.common.errors import NothingUsable, SettingsError
from pipeline.corpus import layouts
from pipeline.corpus.labelled_video import (
    EXTENSIONS,
    FAKE,
    LABELS,
    REAL,
    SPLITS,
    Video,
    looks_like_video,
)
from pipeline.corpus.layouts.folder import Folder
from pipeline.corpus.leaks import find_leaks


def read_corpus(
    roots: Sequence[Path], layout: str = layouts.AUTO, *, follow_links: bool = False
) -> list[Video]:
    """Find the videos of a corpus.

    Args:
        roots: folders, searched all the way down: of datasets that are recognised, or whose own
            names or those of their subfolders say what they hold (``*REAL*`` and ``*original*``,
            ``*FAKE*`` and ``*manipulated*``; the folder nearest to the file decides); and CSV
            files with the columns ``path``, ``label``, and perhaps ``identity``, ``split``,
            ``original``, ``source``, ``manipulation`` and ``compression``.
        layout: which dataset's names and lists to go by, one of `pipeline.corpus.layouts.CHOICES`.
        follow_links: whether symbolic links may lead out of the roots.

    Returns:
        the videos sorted by path. Files that are no videos by their extension are among them, and
        so are links that are not followed, so that they are accounted for; hidden files are not.

    Raises:
        SettingsError: a root is missing or holds nothing of the given layout, a folder does not
            say whether it is real or fake, a CSV or a dataset's list cannot be read, two roots
            disagree about a file, or the splits that are given leak.
        OSError: a folder cannot be read.
        NothingUsable: no video at all, or only one of the two labels.
    """
    walls = _Walls(roots, follow_links)
    found: dict[Path, Video] = {}
    for root in roots:
        if root.is_dir():
            videos = _from_folder(root, layout, walls)
        elif root.suffix.lower() == ".csv" and root.is_file():
            videos = _from_csv(root, layout, walls)
        else:
            what = "is neither a folder nor a CSV file" if root.exists() else "does not exist"
            raise SettingsError(f"{root} {what}", "give folders of videos, or CSV files")
        for video in videos:
            other = found.setdefault(_absolute(video.path), video)
            if (other.label, other.group_keys, other.given) != (
                video.label,
                video.group_keys,
                video.given,
            ):
                raise SettingsError(
                    f"{video.path} is listed twice, with different labels, identities or splits",
                    "list it once",
                )
    videos = sorted(found.values(), key=lambda video: os.fsencode(video.path))
    _check_both_labels(roots, videos)
    ties, given = [video.group_keys for video in videos], [video.given for video in videos]
    if straddling := find_leaks(ties, given, [str(video.path) for video in videos]):
        raise SettingsError(
            f"the splits given leak: {straddling[0]}",
            "give all videos of an identity the same split",
        )
    return videos


@dataclass(frozen=True)
class Found:
    """What is below a folder, without hidden files.

    Attributes:
        videos: by their extension, sorted; links that are not followed are among them.
        outside: where these links lead.
        others: files that are no videos by their extension.
    """

    videos: tuple[Path, ...]
    outside: dict[Path, str]
    others: tuple[Path, ...]


def find_videos(root: Path, inside: Sequence[Path] = (), *, follow_links: bool = False) -> Found:
    """Find the videos below a folder, whatever they show.

    Args:
        root: searched all the way down.
        inside: other folders that links may lead into.
        follow_links: whether they may lead anywhere.

    Raises:
        OSError: a folder cannot be read.
        NothingUsable: there is no video.
    """
    walls = _Walls([root, *inside], follow_links)
    videos: list[Path] = []
    outside: dict[Path, str] = {}
    others: list[Path] = []
    for _, files, led_out in _folders(root, walls):
        links = {p: to for p, to in led_out.items() if looks_like_video(p) or p.is_dir()}
        here = [file for file in files if looks_like_video(file)]
        taken = {*here, *links}
        others += (path for path in (*files, *led_out) if path not in taken)
        videos += here
        outside |= links
    if not videos:
        raise _no_video(str(root), len(outside))
    return Found(tuple(sorted((*videos, *outside), key=os.fsencode)), outside, tuple(others))


def _no_video(searched: str, led_out: int) -> NothingUsable:
    return NothingUsable(
        f"no video in {searched}{_not_counting(led_out)}",
        f"looked for files ending in {' '.join(sorted(EXTENSIONS))}",
    )


def _not_counting(led_out: int) -> str:
    if not led_out:
        return ""
    return f" (not counting {led_out} links that lead out of it: --follow-links)"


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - must not follow links, as resolve() does


class _Walls:
    """The folders that a corpus may not be led out of by links."""

    def __init__(self, roots: Iterable[Path], follow_links: bool) -> None:
        folders = [root if root.is_dir() else root.parent for root in roots]
        self._inside = [os.path.realpath(folder) for folder in folders]
        self._open = follow_links
        self._folder_of_rows = functools.cache(self._look_at_folder)

    def leads_to(self, path: Path, *also: str) -> str:
        """Where a path really is, if that is outside, also of the folders ``also``; else ``""``."""
        real = os.path.realpath(path)
        return "" if self._open or self._is_inside(real, *also) else real

    def of_row(self, path: Path, csv_folder: Path) -> str:
        """The same for a row of a CSV file, which may name any folder, but not by a link."""
        if self._open:
            return ""
        folder, named = self._folder_of_rows(path.parent, csv_folder)
        if os.path.islink(path):  # noqa: PTH114 - is_symlink() fails on names that are too long
            return self.leads_to(path, *([folder] if named else []))
        return "" if named or self._is_inside(folder) else str(Path(folder, path.name))

    def _look_at_folder(self, folder: Path, csv_folder: Path) -> tuple[str, bool]:
        """Where a folder really is, and whether its name says that it is not beside the CSV."""
        absolute = str(_absolute(folder))
        return os.path.realpath(folder), not _is_below(absolute, str(_absolute(csv_folder)))

    def _is_inside(self, real: str, *also: str) -> bool:
        return any(_is_below(real, folder) for folder in (*self._inside, *also))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _from_folder(root: Path, layout: str, walls: _Walls) -> list[Video]:
    videos: list[Video] = []
    unlabelled = set()
    explained = False
    for path, files, outside in _folders(root, walls):
        label = _label_of(path, root)
        videos += [Video(link, REAL, leads_to=where) for link, where in outside.items()]
        folder = Folder(path, tuple(file for file in files if looks_like_video(file)), label)
        known = {video.path: video for video in layouts.read(folder, layout)}
        explained |= bool(known)
        source = next(iter(known.values())).source if known else _source(root)
        for file in files:
            if file in known:
                videos.append(known[file])
            elif label is not None:
                videos.append(Video(file, label, source=source))
            elif looks_like_video(file):
                unlabelled.add(path)
    if layout in layouts.LAYOUTS and not explained:
        raise SettingsError(
            f"{root} holds no videos in the layout {layout}",
            f"looked for {layouts.LAYOUTS[layout].looks_for}",
        )
    if unlabelled:
        listed = ", ".join(str(folder) for folder in sorted(unlabelled)[:10])
        raise SettingsError(
            f"cannot tell whether these folders hold real or fake videos: {listed}",
            "name a folder *REAL* or *original*, *FAKE* or *manipulated*, "
            "or give a CSV file with the columns path,label",
        )
    return videos


def _folders(root: Path, walls: _Walls) -> Iterator[tuple[Path, list[Path], dict[Path, str]]]:
    """Every folder below a root, none twice: its files, and links that lead outside, and where."""
    seen: set[str] = set()  # a link may lead back up
    for folder, subfolders, names in os.walk(root, onerror=_raise, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:
            subfolders.clear()
            continue
        seen.add(place)
        subfolders[:] = sorted(
            (name for name in subfolders if not name.startswith(".")),
            key=lambda name: (Path(folder, name).is_symlink(), name),
        )
        shown = [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        below = [Path(folder, name) for name in subfolders]
        links = [path for path in (*shown, *below) if path.is_symlink()]
        outside = {path: where for path in links if (where := walls.leads_to(path))}
        subfolders[:] = [name for name in subfolders if Path(folder, name) not in outside]
        yield Path(folder), [path for path in shown if path not in outside], outside


def _raise(error: OSError) -> None:
    raise error


def _source(root: Path) -> str:
    """The name of a root; of the folder above, if its own only says real or fake."""
    root = _absolute(root)
    return root.name if _label_of(root, root) is None else root.parent.name


def _label_of(folder: Path, root: Path) -> int | None:
    """The label that the nearest telling folder name gives, from ``folder`` up to ``root``."""
    for part in (folder, *folder.parents):
        name = (part.name or part.resolve().name).lower()
        real = "real" in name or "original" in name
        fake = "fake" in name or "manipulated" in name
        if real != fake:
            return FAKE if fake else REAL
        if part == root:
            return None
    return None


def known_by_path(paths: Iterable[Path], layout: str = layouts.AUTO) -> dict[Path, Video]:
    """What the layouts of known datasets say of single files, which need not exist.

    Args:
        paths: of videos.
        layout: as in `read_corpus`.

    Returns:
        the videos that are explained, by path. Their labels are only what names suggest.
    """
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, []).append(path)
    known: dict[Path, Video] = {}
    for path, videos in by_folder.items():
        # Given some label, a layout goes by the names of files even where folders say nothing.
        folder = Folder(path, tuple(videos), label=REAL, whole=False)
        known |= {video.path: video for video in layouts.read(folder, layout)}
    return known


def _from_csv(path: Path, layout: str, walls: _Walls) -> list[Video]:
    try:
        rows = read_csv(path)
    except (OSError, csv.Error) as error:
        raise SettingsError(f"cannot read {path}: {error}", "save it as a plain CSV") from error
    videos = []
    for row in rows:
        where = f"{path} line {row.line}"
        if not row.get("path") or row.get("label") is None:
            raise SettingsError(
                f"{where}: it needs a path and a label; the columns are {row.columns}",
                "the first line must be path,label or path,label,identity,split",
            )
        label = LABELS.get(row["label"].strip().lower())
        if label is None:
            raise SettingsError(
                f"{where}: label {row['label']!r}", f"labels are {', '.join(LABELS)}"
            )
        split = _cell(row, "split").lower()
        if split not in ("", *SPLITS):
            raise SettingsError(f"{where}: split {split!r}", f"splits are {', '.join(SPLITS)}")
        video_path = path.parent / row["path"]
        original = _cell(row, "original") or ("original" in row and label == REAL and row["path"])
        videos.append(
            Video(
                video_path,
                label,
                names_in(row),
                split,
                source=_cell(row, "source"),
                manipulation=_cell(row, "manipulation"),
                compression=_cell(row, "compression"),
                original=f"{path.stem}:{original}" if original else "",
                leads_to=walls.of_row(video_path, path.parent),
            )
        )
    known = known_by_path((video.path for video in videos), layout)
    unknown = Video(path, REAL, source=path.stem)
    return [_filled_in(video, known.get(video.path, unknown)) for video in videos]


def _cell(row: Mapping[str, str], column: str) -> str:
    return (row.get(column) or "").strip()


def names_in(row: Mapping[str, str]) -> tuple[str, ...]:
    """The identities that a row of a CSV gives in its column ``identity``, separated by ``;``."""
    return tuple(name.strip() for name in _cell(row, "identity").split(";") if name.strip())


def _filled_in(video: Video, known: Video) -> Video:
    """What a CSV says of a file, and what is known of it by its name where the CSV is silent."""
    fields = ("identities", "source", "manipulation", "compression", "original", "official")
    silent = {field: getattr(known, field) for field in fields if not getattr(video, field)}
    return dataclasses.replace(video, **silent)


def _check_both_labels(roots: Iterable[Path], videos: Sequence[Video]) -> None:
    searched = ", ".join(str(root) for root in roots)
    usable = [v for v in videos if looks_like_video(v.path) and not v.leads_to]
    led_out = len([video for video in videos if video.leads_to])
    if not usable:
        raise _no_video(searched, led_out)
    searched += _not_counting(led_out)
    labels = {video.label for video in usable}
    if len(labels) == 1:
        missing = "fake" if REAL in labels else "real"
        raise NothingUsable(
            f"no {missing} video in {searched}", f"give a folder of {missing} videos as well"
        )
