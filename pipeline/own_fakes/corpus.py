"""A corpus of real videos and own fakes of them: its plan, its files and its list."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache.index import check_same_settings
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import NothingUsable, Rejected, SettingsError
from pipeline.common.files import remove_temporaries, try_lock, write_whole
from pipeline.common.progress import Progress
from pipeline.common.versions import versions
from pipeline.corpus.labelled_video import LABEL_NAMES, OWN, Video
from pipeline.extraction.selection import not_to_be_opened, tally
from pipeline.extraction.time_limits import seconds_to_probe
from pipeline.own_fakes.making import (
    FAKE_FOLDER,
    MASK_FOLDER,
    REAL_FOLDER,
    RECIPES,
    Family,
    Member,
    finished,
    make_family,
    remember,
)
from pipeline.own_fakes.settings import FakeSettings
from pipeline.splits.partition import groups
from pipeline.video.probe import Probe, probe
from pipeline.workers.local import Pool

LIST = "videos.csv"
REJECTED = "rejected.csv"
SETTINGS = "settings.json"
FOLDERS = (REAL_FOLDER, FAKE_FOLDER, MASK_FOLDER, RECIPES)
COLUMNS = (
    *("path", "label", "identity", "split", "source", "manipulation", "original"),
    *("mask", "made_from"),
)
MAKING_VERSION = 1  # rises when the same settings give other fakes


@dataclass(frozen=True)
class FakeCorpus:
    """A finished corpus."""

    folder: Path
    families: dict[str, list[Member]]  # members by the real video's path
    rejected: dict[str, Rejected]  # by path

    @property
    def list(self) -> Path:
        """CSV file that `pipeline.extract` reads."""
        return self.folder / LIST


def make_fakes(
    videos: Sequence[Video], folder: Path, settings: FakeSettings, model: bytes, pool: Pool
) -> FakeCorpus:
    """Make fakes of real videos, or finish what was begun.

    Args:
        videos: real ones, see `pipeline.corpus.reading.read_corpus`.
        folder: receives ``real/``, ``fake/``, ``masks/``, `LIST` and `REJECTED`.
        model: YuNet's file; empty if no kind needs it.

    Raises:
        NothingUsable: no video is left.
        SettingsError: the folder was begun with other settings, or holds something else.
    """
    made_with = dataclasses.asdict(settings) | {"version": MAKING_VERSION}
    with _writing(folder, json.loads(json.dumps(made_with))):
        rejected = not_to_be_opened(videos)
        probes = _probed([v for v in videos if str(v.path) not in rejected], rejected, pool)
        by_path = {str(video.path): video for video in videos}
        families = _plan(probes, by_path, folder, settings, made_with, model)
        made = _made(families, rejected, pool)
        _write_lists(folder, made, rejected, by_path, probes)
        if not made:
            reasons = tally(rejection.reason for rejection in rejected.values())
            raise NothingUsable(
                f"none of {len(videos)} real videos is usable ({reasons})",
                f"{folder / REJECTED} says what is wrong with each",
            )
    return FakeCorpus(folder, made, rejected)


@contextlib.contextmanager
def _writing(folder: Path, settings: Mapping[str, object]) -> Iterator[None]:
    """Lock a folder that is empty or was begun with the same settings."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in folder.iterdir())
    if names and SETTINGS not in names:
        raise SettingsError(
            f"{folder} holds something else than own fakes: {', '.join(names[:5])}",
            "give a new or an empty folder",
        )
    lock = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(lock):
            raise SettingsError(f"another process is writing {folder}", "wait for it to end")
        file = folder / SETTINGS
        if file.is_file():
            check_same_settings(folder, json.loads(file.read_text()), settings)
        else:
            text = json.dumps(settings, indent=1)
            write_whole(file, lambda path: path.write_text(text))
        for name in FOLDERS:
            (folder / name).mkdir(exist_ok=True)
        for name in ("", *FOLDERS):
            remove_temporaries(folder / name)
        yield
    finally:
        os.close(lock)


def _probed(videos: Sequence[Video], rejected: dict[str, Rejected], pool: Pool) -> dict[str, Probe]:
    """Probe videos, and add to ``rejected`` what is no video, or the copy of one."""
    probes: dict[str, Probe] = {}
    with Progress("probe", len(videos)) as progress:
        for path, result in pool.run(probe, [v.path for v in videos], seconds_to_probe):
            if isinstance(result, Rejected):
                rejected[str(path)] = result
            else:
                probes[str(path)] = result
            progress.update(str(path), result)
    first: dict[str, str] = {}
    usable: dict[str, Probe] = {}  # in the order of the videos
    for name in map(str, (video.path for video in videos)):
        if name not in probes:
            continue
        original = first.setdefault(probes[name].sha256, name)
        if original == name:
            usable[name] = probes[name]
        else:
            rejected[name] = Rejected("duplicate", f"same bytes as {original}")
    return usable


def _plan(
    probes: Mapping[str, Probe],
    videos: Mapping[str, Video],
    folder: Path,
    settings: FakeSettings,
    made_with: Mapping[str, object],
    model: bytes,
) -> list[Family]:
    donors = _donors(probes, videos, settings.seed) if "swap" in settings.kinds else {}
    families = []
    for path, video in probes.items():
        donor = donors.get(path)
        donor_sha256 = probes[donor].sha256 if donor else ""
        particulars = [
            *(made_with, video.sha256, donor_sha256, versions()),
            hashlib.sha256(model).hexdigest(),
        ]
        recipe = hashlib.sha256(json.dumps(particulars, sort_keys=True).encode()).hexdigest()
        given = (donor, probes[donor]) if donor else None
        families.append(Family(path, video, str(folder), settings, given, recipe, model))
    return families


def _donors(probes: Mapping[str, Probe], videos: Mapping[str, Video], seed: int) -> dict[str, str]:
    """Return whose face is put into each video.

    People are paired, so that a swap links no more than two of them: a split between people keeps
    most videos. One person is left over if their number is odd, and gets another one's partner.
    """
    paths = list(probes)

    def digest(path: str) -> str:
        return hashlib.sha256(f"{seed} {probes[path].sha256}".encode()).hexdigest()

    people: dict[tuple[str, int], list[str]] = {}  # by split and person
    numbers = groups([{*videos[path].group_keys, f"video {path}"} for path in paths]).tolist()
    for path, number in sorted(zip(paths, numbers, strict=True), key=lambda pair: digest(pair[0])):
        people.setdefault((videos[path].given, number), []).append(path)
    donors: dict[str, str] = {}
    for split in {split for split, _ in people}:
        of_split = [mine for (given, _), mine in people.items() if given == split]
        if len(of_split) < 2:
            continue
        partners = [of_split[n ^ 1] if n ^ 1 < len(of_split) else of_split[n - 1]
                    for n in range(len(of_split))]  # fmt: skip
        for mine, theirs in zip(of_split, partners, strict=True):
            donors |= {path: theirs[n % len(theirs)] for n, path in enumerate(mine)}
    return donors


def _made(
    families: Sequence[Family], rejected: dict[str, Rejected], pool: Pool
) -> dict[str, list[Member]]:
    """Make all families that are not finished, the longest first."""
    made: dict[str, list[Member]] = {}
    left: list[Family] = []
    for family in families:
        before = finished(family)
        if before is None:
            left.append(family)
        elif isinstance(before, Rejected):
            rejected[family.path] = before
        else:
            made[family.path] = before
    left.sort(key=lambda family: -family.time_limit)
    with Progress("make", len(left)) as progress:
        for family, result in pool.run(make_family, left, lambda family: family.time_limit):
            if isinstance(result, Rejected):
                rejected[family.path] = result
                if not result.temporary:
                    remember(family, rejected=result.args)
            else:
                made[family.path] = result
            progress.update(family.path, result)
    return made


def _write_lists(
    folder: Path,
    made: Mapping[str, Sequence[Member]],
    rejected: Mapping[str, Rejected],
    videos: Mapping[str, Video],
    probes: Mapping[str, Probe],
) -> None:
    swapped = {
        video
        for path, members in made.items()
        for member in members
        if member.donor
        for video in (probes[path].sha256[:16], member.donor)
    }
    people = {}  # by id
    for path, video in videos.items():
        if path in probes:
            name = probes[path].sha256[:16]
            people[name] = _people(video, name, named=name in swapped)
    rows = []
    for path in sorted(made, key=lambda path: probes[path].sha256):
        video, members = videos[path], made[path]
        for member in members:
            shown = [*people[probes[path].sha256[:16]], *people.get(member.donor, ())]
            rows.append(
                {
                    "path": member.path,
                    "label": LABEL_NAMES[bool(member.kinds)],
                    "identity": ";".join(dict.fromkeys(shown)),
                    "split": video.given,
                    "source": video.source,
                    "manipulation": OWN + "+".join(member.kinds) if member.kinds else "",
                    "original": members[0].path,
                    "mask": member.mask,
                    "made_from": path,
                }
            )
    write_csv(folder / LIST, COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    write_csv(
        folder / REJECTED,
        ["path", "reason", "detail"],
        [[path, rejected[path].reason, rejected[path].detail] for path in sorted(rejected)],
    )


def _people(video: Video, name: str, *, named: bool) -> tuple[str, ...]:
    """Return who is in a video; if nobody is known, a name only where a swap needs one."""
    unknown = (video.original or f"video:{name}",) if named or video.original else ()
    return video.identities or unknown
