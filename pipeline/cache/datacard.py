"""The data card: what a cache was made of and what to know about it, in Markdown, for people."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cache import Clip
from pipeline.caveats import caveats
from pipeline.common.files import write_whole
from pipeline.corpus.tables import by_kind, by_split, identities, table

NAME = "datacard.md"


def write_datacard(
    folder: Path,
    clips: Sequence[Clip],
    *,
    extraction: Mapping[str, Any],
    attrs: Mapping[str, Any],
    embedding: Mapping[str, Any] | None = None,
) -> None:
    """Write the data card of a cache beside its index.

    Args:
        folder: of the cache.
        clips: its rows.
        extraction: settings of the extract stage.
        attrs: attributes of the index: ``frames``, ``rejected``, ``versions``, ...
        embedding: settings of the embed stage, if that made the cache.
    """
    text = datacard(clips, extraction=extraction, attrs=attrs, embedding=embedding)
    write_whole(folder / NAME, lambda path: path.write_text(text, encoding="utf-8"))


def datacard(
    clips: Sequence[Clip],
    *,
    extraction: Mapping[str, Any],
    attrs: Mapping[str, Any],
    embedding: Mapping[str, Any] | None = None,
) -> str:
    """The text of the card; arguments as of `write_datacard`."""
    videos = list({clip.video: clip for clip in clips}.values())
    splitting = extraction["splitting"]
    rejected = json.loads(attrs["rejected"])
    known = [caveat[0].upper() + caveat[1:] + "." for caveat in caveats(clips, extraction)]
    sections = [
        "# Data card",
        f"{len(clips)} clips of {attrs['frames']} frames, cut from {len(videos)} videos; "
        f"{extraction['width']}x{extraction['height']} pixels.",
        "## Videos",
        by_kind(videos),
        "Counts are of videos. `-`: its names do not say.",
        "## Who is in them",
        f"{len(identities(videos))} identities; nobody is known in "
        f"{sum(not video.identities for video in videos)} videos.",
        "## Splits",
        by_split(videos, [video.split for video in videos]),
        f"By {_protocol(splitting)}. Nobody, no original, no recording and no file is on two "
        "sides, unless the split is `published`; what would be is dropped.",
        "## Rejected files",
        table(["reason", "files"], sorted(rejected.items())) if rejected else "None.",
        "`rejected.csv` beside the cache of frames and flow names each." if rejected else "",
        "## Caveats",
        "\n".join(f"- {caveat}" for caveat in known) or "None known.",
        "## Settings",
        _settings(extraction) + ("\n\nEmbedding:\n\n" + _settings(embedding) if embedding else ""),
        f"Versions: {_versions(attrs['versions'])}.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _protocol(splitting: Mapping[str, Any]) -> str:
    return (
        f"`{splitting['by']}`: test {splitting['test']:g}, val {splitting['val']:g}, holdout "
        f"{splitting['holdout']} of each label, seed {splitting['seed']}"
    )


def _settings(settings: Mapping[str, Any]) -> str:
    return "\n".join(
        f"- `{key}`: {json.dumps(value)}"
        for key, value in sorted(settings.items())
        if key != "splitting"
    )


def _versions(versions: str) -> str:
    return ", ".join(f"{name} {version}" for name, version in json.loads(versions).items())
