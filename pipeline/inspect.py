"""The command that shows what is in a cache."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import cloup
import cv2
import numpy as np
from tqdm import tqdm

from pipeline.cache import Cache, Clip, set_aside_damaged
from pipeline.cache.datacard import nobody_known
from pipeline.common.cli import Command
from pipeline.common.errors import IntegrityError
from pipeline.common.files import readable_bytes, write_whole
from pipeline.corpus.labelled_video import FAKE, LABEL_NAMES, REAL
from pipeline.corpus.tables import identities
from pipeline.viewing.browser import MAX_CLIPS, storage, write_browser
from pipeline.viewing.contact_sheet import contact_sheet

MAX_CLIPS_FOR_QUANTILES = 32
MAX_CLIPS_ON_SHEET = 12


@cloup.command(cls=Command)
@cloup.argument("cache", type=click.Path(path_type=Path), help="A cache of either stage.")
@cloup.option_group(
    "Instead of a summary",
    cloup.option("--clip", metavar="ID", help="Show one clip."),
    cloup.option("--verify", is_flag=True, help="Read all files and compare their checksums."),
    cloup.option(
        "--repair",
        is_flag=True,
        help="Verify, and rename damaged files to *.damaged: the command that made the cache then "
        "makes only them again.",
    ),
    cloup.option(
        "--sheet",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write a PNG of frames above their flow maps: of the --clip, or of up to "
        f"{MAX_CLIPS_ON_SHEET} clips.",
    ),
    cloup.option(
        "--html",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write an HTML file to browse clips, rejected files and figures. It holds file names "
        "and faces.",
    ),
    cloup.option(
        "--clips",
        metavar="N",
        type=click.IntRange(1),
        help="With --html: number of clips to show.  "
        f"[default: {MAX_CLIPS} at most, and less than 20 MB]",
    ),
)
def main(
    cache: Path,
    clip: str | None,
    verify: bool,
    repair: bool,
    sheet: Path | None,
    html: Path | None,
    clips: int | None,
) -> None:
    """Show what is in a cache: clips, splits, shapes, sizes, settings, rejected files.

    \b
    Examples:
      python -m pipeline.inspect caches/dfd
      python -m pipeline.inspect caches/dfd --sheet sheet.png
      python -m pipeline.inspect caches/dfd --html dfd.html
      python -m pipeline.inspect caches/dfd --verify
    """
    if sheet and sheet.suffix.lower() != ".png":
        raise click.BadParameter(f"{sheet} does not end in .png", param_hint="--sheet")
    if html and html.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{html} does not end in .html", param_hint="--html")
    if html and (clip or verify or repair or sheet):
        raise click.UsageError("--html goes with --clips alone")
    if clips and not html:
        raise click.UsageError("--clips goes with --html")
    if repair:
        click.echo(_repair(cache))
        return
    opened = Cache(cache, "extract" if sheet or html else None)
    chosen = opened.clip(clip) if clip else None
    if verify:
        click.echo(_verify(opened))
    elif sheet:
        rows = [chosen] if chosen else _mixed(opened.clips)[:MAX_CLIPS_ON_SHEET]
        picture = contact_sheet(opened, rows)
        png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
        write_whole(sheet, lambda path: path.write_bytes(png))
        click.echo(f"{sheet}: {len(rows)} of {len(opened.clips)} clips")
    elif html:
        click.echo(write_browser(opened, html, clips))
    elif chosen:
        click.echo(describe_clip(opened, chosen))
    else:
        click.echo(describe(opened))


def describe(cache: Cache) -> str:
    """Return a summary of a cache."""
    stored = sum(shard.n_bytes for shard in cache.shards)
    datasets = storage(cache)
    raw = sum(dataset.raw for dataset in datasets)
    n = max(len(cache.clips), 1)
    lines = [f"{cache.folder}  ({cache.stage} stage)", "", "clips"]
    splits = {clip.split for clip in cache.clips}
    for split in [s for s in ("train", "val", "test", "holdout", "") if s in splits]:
        here = [clip for clip in cache.clips if clip.split == split]
        labels = Counter(LABEL_NAMES[clip.label] for clip in here)
        line = f"  {split or 'no split':9} {labels['real']:6} real {labels['fake']:6} fake"
        own = sum(clip.is_own_fake for clip in here)
        lines.append(f"{line}, {own} of them own fakes" if own else line)
    videos = len({clip.video for clip in cache.clips})
    people = len(identities(cache.clips))
    lines.append(f"  {len(cache.clips)} clips of {videos} videos, {people} identities")
    if warning := nobody_known(cache.clips):
        lines.append(f"  {warning}")
    lines += ["", "datasets of a clip, and their mean size on disk"]
    for dataset in datasets:
        size = readable_bytes(dataset.stored / dataset.clips)
        lines.append(f"  {dataset.name:11} {dataset.shape:>18} {dataset.dtype:8} {size:>9}")
    lines += [
        "",
        f"on disk       {readable_bytes(stored)} in {len(cache.shards)} shards, "
        f"{readable_bytes(stored / n)} per clip, {raw / max(stored, 1):.2f} times smaller than raw",
    ]
    if cache.stage == "extract":
        lines.append(f"flow maximum  {_flow_quantiles(cache)}")
    for key, value in sorted(cache.attrs.items()):
        if key == "trajectory" and (names := json.loads(value)):
            value = f"{len(names)} columns, {names[0]} to {names[-1]}"
        if key not in ("schema", "stage", "settings"):
            lines.append(f"{key:13} {value}")
    lines.append(f"settings      {json.dumps(cache.settings)}")
    if reasons := Counter(row["reason"] for row in cache.rejected()):
        lines += ["", "rejected files"]
        lines += [f"  {count:6} {reason}" for reason, count in reasons.most_common()]
        lines.append(f"  each with its cause in {cache.folder / 'rejected.csv'}")
    return "\n".join(lines)


def describe_clip(cache: Cache, clip: Clip) -> str:
    """Return all metadata of a clip."""
    lines = [
        f"{name:13} {value}"
        for name, value in dataclasses.asdict(clip).items()
        if name not in ("label", "identities")
    ]
    lines.insert(2, f"label         {LABEL_NAMES[clip.label]}")
    lines.append(f"identities    {', '.join(clip.identities) or 'unknown'}")
    if file := cache.names().get(clip.video):
        lines.append(f"file          {file}")
    for name, (shape, dtype, size) in cache.datasets(clip).items():
        lines.append(
            f"  {name:11} {'x'.join(map(str, shape)):>18} {dtype!s:8} {readable_bytes(size):>9}"
        )
    if cache.stage == "extract":
        range_ = cache.read(clip, "flow_range")  # (T-1, 2)
        lines.append(
            f"flow maximum  median {np.median(range_[:, 1]):.2f}, largest {range_[:, 1].max():.2f} "
            "px/frame"
        )
    return "\n".join(lines)


def _verify(cache: Cache) -> str:
    faults, n = [], 0
    for name, fault in tqdm(cache.verify(), desc="verify", unit="file", disable=None):
        n += 1
        if fault:
            faults.append(f"{name}: {fault}")
    if faults:
        click.echo("\n".join(faults), err=True)
        raise IntegrityError(
            f"{len(faults)} of {n} files of {cache.folder} are damaged",
            "--repair sets them aside, so that the command that made this cache makes them again",
        )
    size = sum(shard.n_bytes for shard in cache.shards)
    return (
        f"{cache.folder}: {len(cache.shards)} shards, {readable_bytes(size)}, "
        "every checksum is right"
    )


def _repair(folder: Path) -> str:
    faults = set_aside_damaged(folder)
    if not faults:
        return f"{folder}: nothing is damaged"
    return "\n".join(
        [
            f"{folder}: set aside or missing are",
            *(f"  {name}: {fault}" for name, fault in faults.items()),
            "Run the command that made this cache again: it makes these files again, no others.",
        ]
    )


def _mixed(clips: Sequence[Clip]) -> list[Clip]:
    """Return real and fake clips in turn."""
    real = [clip for clip in clips if clip.label == REAL]
    fake = [clip for clip in clips if clip.label == FAKE]
    both = min(len(real), len(fake))
    pairs = [clip for pair in zip(real, fake, strict=False) for clip in pair]
    return pairs + real[both:] + fake[both:]


def _flow_quantiles(cache: Cache) -> str:
    """Describe the largest motion per map of the first clips, whose order is shuffled."""
    clips = cache.clips[:MAX_CLIPS_FOR_QUANTILES]
    if not clips:
        return "no clips"
    largest = np.concatenate([cache.read(clip, "flow_range")[:, 1] for clip in clips])
    low, middle, high = np.quantile(largest, [0.05, 0.5, 0.95])
    return (
        f"5% {low:.2f}, median {middle:.2f}, 95% {high:.2f} px/frame "
        f"(of the maps of {len(clips)} clips)"
    )


if __name__ == "__main__":
    main()
