"""Videos of a corpus, found in folders and CSV files."""

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
    LABEL_NAMES,
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
        roots: folders, searched recursively: of known datasets, or with the label in a name
            (``*REAL*``, ``*original*``, ``*FAKE*``, ``*manipulated*``; the nearest to a file
            decides); and CSV files with the columns ``path``, ``label``, and optionally
            ``identity``, ``split``, ``original``, ``source``, ``manipulation``, ``compression``.
        layout: dataset whose names and lists are read, one of `pipeline.corpus.layouts.CHOICES`.
        follow_links: whether symbolic links may lead out of the roots.

    Returns:
        the videos, sorted by path, and what has to be accounted for: files without a video's
        extension and links that are not followed, but no hidden files.

    Raises:
        SettingsError: a root is missing, a folder has no label, a CSV file or a dataset's list
            cannot be read, roots disagree about a file, or the prescribed splits leak.
        OSError: a folder cannot be read.
        NothingUsable: there is no video, or no real one.
    """
    guard = _LinkGuard(roots, follow_links)
    by_path: dict[Path, Video] = {}
    for root in roots:
        if root.is_dir():
            videos = _read_folders(root, layout, guard)
        elif root.suffix.lower() == ".csv" and root.is_file():
            videos = _read_table(root, layout, guard)
        else:
            what = "is neither a folder nor a CSV file" if root.exists() else "does not exist"
            raise SettingsError(f"{root} {what}", "give folders of videos, or CSV files")
        for video in videos:
            other = by_path.setdefault(_absolute(video.path), video)
            if any(
                getattr(video, f) != getattr(other, f) for f in ("label", "group_keys", "given")
            ):
                raise SettingsError(
                    f"{video.path} is listed twice, with different labels, identities or splits",
                    "list it once",
                )
    videos = sorted(by_path.values(), key=lambda video: os.fsencode(video.path))
    _check_real_ones(", ".join(map(str, roots)), videos)
    group_keys, given = [video.group_keys for video in videos], [video.given for video in videos]
    if leaks := find_leaks(group_keys, given, [str(video.path) for video in videos]):
        raise SettingsError(
            f"the splits given leak: {leaks[0]}",
            "give all videos of an identity the same split",
        )
    return videos


@dataclass(frozen=True)
class VideoFiles:
    """Files below a folder, without hidden ones."""

    videos: tuple[Path, ...]  # sorted, with links that are not followed
    outside: dict[Path, str]  # targets of these links
    others: tuple[Path, ...]  # files without a video's extension


def find_videos(
    root: Path, inside: Sequence[Path] = (), *, follow_links: bool = False
) -> VideoFiles:
    """Find the videos below a folder; links may lead ``inside`` other folders too."""
    guard = _LinkGuard([root, *inside], follow_links)
    videos: list[Path] = []
    outside: dict[Path, str] = {}
    others: list[Path] = []
    for _, files, links in _walk(root, guard):
        for file in files:
            (videos if looks_like_video(file) else others).append(file)
        for link, target in links.items():
            if looks_like_video(link) or link.is_dir():
                outside[link] = target
            else:
                others.append(link)
    if not videos:
        raise _no_video(str(root), len(outside))
    return VideoFiles(tuple(sorted((*videos, *outside), key=os.fsencode)), outside, tuple(others))


def known_by_path(paths: Iterable[Path], layout: str = layouts.AUTO) -> dict[Path, Video]:
    """Return what layouts say of single files, which need not exist; labels are only suggested."""
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, []).append(path)
    known: dict[Path, Video] = {}
    for path, videos in by_folder.items():
        # With a label, a layout reads the names of files even where folders say nothing.
        folder = Folder(path, tuple(videos), label=REAL, whole=False)
        known |= {video.path: video for video in layouts.read(folder, layout)}
    return known


def names_in(row: Mapping[str, str]) -> tuple[str, ...]:
    """Return the identities of a CSV row, separated there by ``;``."""
    return tuple(name.strip() for name in _cell(row, "identity").split(";") if name.strip())


def _read_folders(root: Path, layout: str, guard: "_LinkGuard") -> list[Video]:
    videos: list[Video] = []
    unlabelled = set()
    explained = False
    for path, files, links in _walk(root, guard):
        label = _label_of(path, root)
        videos += [Video(link, REAL, leads_to=target) for link, target in links.items()]
        folder = Folder(path, tuple(filter(looks_like_video, files)), label)
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
            f"looked for {layouts.LAYOUTS[layout].LOOKS_FOR}",
        )
    if unlabelled:
        listed = ", ".join(str(folder) for folder in sorted(unlabelled)[:10])
        raise SettingsError(
            f"cannot tell whether these folders hold real or fake videos: {listed}",
            "name a folder *REAL* or *original*, *FAKE* or *manipulated*, "
            "or give a CSV file with the columns path,label",
        )
    return videos


def _walk(root: Path, guard: "_LinkGuard") -> Iterator[tuple[Path, list[Path], dict[Path, str]]]:
    """Yield every folder once, with its files and the targets of links out."""
    seen: set[str] = set()  # a link may lead back up
    for folder, subfolders, names in os.walk(root, onerror=_raise, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(
            (name for name in subfolders if not name.startswith(".")),
            key=lambda name: (Path(folder, name).is_symlink(), name),
        )
        files = [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        links = filter(Path.is_symlink, (*files, *(Path(folder, name) for name in subfolders)))
        outside = {link: target for link in links if (target := guard.target_outside(link))}
        subfolders[:] = [name for name in subfolders if Path(folder, name) not in outside]
        yield Path(folder), [path for path in files if path not in outside], outside


def _raise(error: OSError) -> None:
    raise error


def _source(root: Path) -> str:
    """Return the name of a root, or of the folder above if its own gives the label."""
    root = _absolute(root)
    return root.name if _label_of(root, root) is None else root.parent.name


def _label_of(folder: Path, root: Path) -> int | None:
    """Return the label in the nearest name, from ``folder`` up to ``root``."""
    for part in (folder, *folder.parents):
        name = (part.name or part.resolve().name).lower()
        real = "real" in name or "original" in name
        fake = "fake" in name or "manipulated" in name
        if real != fake:
            return FAKE if fake else REAL
        if part == root:
            return None
    return None


def _read_table(path: Path, layout: str, guard: "_LinkGuard") -> list[Video]:
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
                leads_to=guard.target_of_row(video_path, path.parent),
            )
        )
    known = known_by_path((video.path for video in videos), layout)
    unknown = Video(path, REAL, source=path.stem)
    return [_completed(video, known.get(video.path, unknown)) for video in videos]


def _cell(row: Mapping[str, str], column: str) -> str:
    return (row.get(column) or "").strip()


def _completed(video: Video, known: Video) -> Video:
    """Fill in what a layout knows where the CSV row is empty."""
    fields = ("identities", "source", "manipulation", "compression", "original", "official")
    empty = {field: getattr(known, field) for field in fields if not getattr(video, field)}
    return dataclasses.replace(video, **empty)


class _LinkGuard:
    """Finds links that lead out of a corpus and are not to be followed."""

    def __init__(self, roots: Iterable[Path], follow_links: bool) -> None:
        folders = [root if root.is_dir() else root.parent for root in roots]
        self._inside = [os.path.realpath(folder) for folder in folders]
        self._follow_links = follow_links
        self._resolve = functools.cache(os.path.realpath)  # many rows have few folders
        self._make_absolute = functools.cache(os.path.abspath)

    def target_outside(self, path: Path, *also_inside: str) -> str:
        """Return where a path really is if that is outside."""
        real = os.path.realpath(path)
        return "" if self._follow_links or self._is_inside(real, *also_inside) else real

    def target_of_row(self, path: Path, csv_folder: Path) -> str:
        """Do the same for a CSV row, which may name any folder, but not by a link."""
        if self._follow_links:
            return ""
        folder = self._resolve(path.parent)
        named = not _is_below(self._make_absolute(path.parent), self._make_absolute(csv_folder))
        if os.path.islink(path):  # noqa: PTH114 - is_symlink() fails on names that are too long
            return self.target_outside(path, *([folder] if named else []))
        return "" if named or self._is_inside(folder) else str(Path(folder, path.name))

    def _is_inside(self, real: str, *also_inside: str) -> bool:
        return any(_is_below(real, folder) for folder in (*self._inside, *also_inside))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - must not follow links, as resolve() does


def _check_real_ones(searched: str, videos: Sequence[Video]) -> None:
    labels = {v.label for v in videos if looks_like_video(v.path) and not v.leads_to}
    n_outside = sum(bool(video.leads_to) for video in videos)
    if not labels:
        raise _no_video(searched, n_outside)
    if REAL not in labels:
        raise _no_video(searched, n_outside, LABEL_NAMES[REAL])


def _no_video(searched: str, n_outside: int, label: str = "") -> NothingUsable:
    outside = f" (not counting {n_outside} links that lead out of it: --follow-links)"
    message = f"video in {searched}{outside if n_outside else ''}"
    if label:
        return NothingUsable(f"no {label} {message}", f"give a folder of {label} videos as well")
    endings = " ".join(sorted(EXTENSIONS))
    return NothingUsable(f"no {message}", f"looked for files ending in {endings}")
