"""The data card of a cache, in Markdown, and the caveats in it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cache.layout import DATACARD
from pipeline.cache.rows import Clip
from pipeline.common.files import write_whole
from pipeline.corpus.labelled_video import FAKE, REAL
from pipeline.corpus.tables import (
    by_kind,
    by_split,
    identities,
    kinds_of_own_fakes,
    own_fakes_by_kind,
    table,
)

MIN_CAMERA_KNOWN = 0.9  # share of a clip's maps
MIXED_RATES = 1.02  # highest frame rate over lowest


def write_datacard(
    folder: Path,
    clips: Sequence[Clip],
    *,
    extraction: Mapping[str, Any],
    attrs: Mapping[str, Any],
    embedding: Mapping[str, Any] | None = None,
) -> None:
    """Write the data card from the settings of both stages and the attributes of the index."""
    videos = list({clip.video: clip for clip in clips}.values())
    splitting = extraction["splitting"]
    own = own_fakes_by_kind(videos)
    rejected = json.loads(attrs["rejected"])
    versions = json.loads(attrs["versions"])
    listed = [f"- {s[0].upper()}{s[1:]}." for s in caveats(clips, extraction)]
    sections = [
        "# Data card",
        f"{len(clips)} clips of {attrs['frames']} frames, cut from {len(videos)} videos; "
        f"{extraction['width']}x{extraction['height']} pixels.",
        "## Videos",
        by_kind(videos),
        "Counts are of videos. `-`: its names do not say.",
        f"Kinds of own fakes, one or several in each: {own}." if own else "",
        "## Who is in them",
        f"{len(identities(videos))} identities; nobody is known in "
        f"{sum(not video.identities for video in videos)} videos.",
        "## Splits",
        by_split(videos, [video.split for video in videos]),
        f"By `{splitting['by']}`: test {splitting['test']:g}, val {splitting['val']:g}, holdout "
        f"{splitting['holdout']} of each label, seed {splitting['seed']}. "
        f"{_train_on(videos, splitting)}Nobody, no original, no "
        "recording and no file is on two sides, unless the split is `published`; what would be is "
        "dropped.",
        "## Rejected files",
        table(["reason", "files"], sorted(rejected.items())) if rejected else "None.",
        "`rejected.csv` beside the cache of frames and flow names each." if rejected else "",
        "## Caveats",
        "\n".join(listed) or "None known.",
        "## Settings",
        _settings(extraction) + ("\n\nEmbedding:\n\n" + _settings(embedding) if embedding else ""),
        f"Versions: {', '.join(map(' '.join, versions.items()))}.",
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    write_whole(folder / DATACARD, lambda path: path.write_text(text, encoding="utf-8"))


def _train_on(videos: Sequence[Clip], splitting: Mapping[str, Any]) -> str:
    """Say which fakes train where there are own and real ones."""
    if len({video.is_own_fake for video in videos if video.label}) < 2:
        return ""
    train = splitting.get("train_on") or "own"
    return f"Fakes that train: {train}; the real ones test, each beside real videos like it. "


def _settings(settings: Mapping[str, Any]) -> str:
    return "\n".join(
        f"- `{key}`: {json.dumps(value)}"
        for key, value in sorted(settings.items())
        if key != "splitting"
    )


def caveats(clips: Sequence[Clip], extraction: Mapping[str, Any]) -> list[str]:
    """Return what to know before training on clips, in sentences without capital and full stop."""
    sentences = [
        _own_fakes(clips),
        nobody_known(clips),
        _mixed_rates(clips, extraction["fps"]),
        _predicts_label(clips, "source"),
        _predicts_label(clips, "compression"),
        _same_footage(clips),
        _moving_camera(clips, extraction["stabilise"]),
        *(_faces(clips) if isinstance(extraction["crop"], dict) else ()),  # cropped to a face
        _label_noise(clips),
    ]
    return [sentence for sentence in sentences if sentence]


def _own_fakes(clips: Sequence[Clip]) -> str:
    """Say which fakes were made here, and what they can tell."""
    fakes = {clip.video: clip for clip in clips if clip.label == FAKE}
    own = [clip for clip in fakes.values() if clip.is_own_fake]
    if not own:
        return ""
    made = f"made of real videos by data.fakes, by: {', '.join(kinds_of_own_fakes(own))}"
    if len(own) == len(fakes):
        return (
            f"all {len(own)} fakes are own fakes, {made}; results on them do not tell how a "
            "detector does on real fakes"
        )
    return f"{len(own)} of {len(fakes)} fakes are own fakes, {made}; results on them are apart"


def nobody_known(clips: Sequence[Clip]) -> str:
    """Return the caveat on videos that do not state who is in them, or ``""``."""
    videos = {clip.video: clip.identities for clip in clips}
    unknown = sum(not identities for identities in videos.values())
    if not unknown:
        return ""
    return (
        f"{unknown} of {len(videos)} videos do not state who is in them, and each counts as a "
        "person of its own; if people recur, results on them are too good to be true"
    )


def _mixed_rates(clips: Sequence[Clip], fps: float | None) -> str:
    rates = sorted(clip.fps for clip in clips)
    if fps is not None or not rates or rates[-1] < MIXED_RATES * rates[0]:
        return ""
    return (
        f"these videos have {rates[0]:.4g} to {rates[-1]:.4g} frames/s, each was sampled at its "
        f"own rate; --fps {rates[0]:.4g} samples all at the same interval"
    )


def _predicts_label(clips: Sequence[Clip], column: str) -> str:
    labels: dict[str, set[int]] = {}
    for clip in clips:
        labels.setdefault(getattr(clip, column), set()).add(clip.label)
    one_label = sorted(value for value, seen in labels.items() if len(seen) == 1)
    if not one_label or len(labels) == 1:
        return ""
    listed = ", ".join(
        f"{value or 'unstated'} has {'fakes' if labels[value] == {FAKE} else 'real videos'} only"
        for value in one_label
    )
    return f"the {column} gives labels away: {listed}; a detector may learn that instead of motion"


def _same_footage(clips: Sequence[Clip]) -> str:
    by_footage: dict[str, dict[str, Clip]] = {}
    for clip in clips:
        if clip.footage:
            by_footage.setdefault(clip.footage, {})[clip.video] = clip
    if not by_footage:
        return ""
    n = sum(map(len, by_footage.values()))
    mixed = sum({c.label for c in same.values()} == {REAL, FAKE} for same in by_footage.values())
    return (
        f"{n} videos show the same footage as another one (recordings: {len(by_footage)}; both "
        f"real and fake: {mixed}), encoded again, resized or manipulated; they are kept on one "
        "side"
    )


def _moving_camera(clips: Sequence[Clip], stabilised: bool) -> str:
    unknown = sum(clip.camera_known < MIN_CAMERA_KNOWN for clip in clips)
    if stabilised and unknown:
        return (
            f"in {unknown} of {len(clips)} clips the background shows too little for the camera's "
            "motion to be known throughout: there it was not taken out"
        )
    if stabilised:
        return ""
    panned = {c.video for c in clips if c.source == "dfd" and "_pan" in c.original}
    if not panned:
        return ""
    return (
        f"the camera moves in {len(panned)} videos (DFD's scenes named _pan): their flow shows the "
        "camera's motion as well as the face's; --stabilise takes it out"
    )


def _faces(clips: Sequence[Clip]) -> list[str]:
    none = sum(clip.face_share == 0 for clip in clips)
    several = sum(clip.n_faces > 1 for clip in clips)
    sentences = []
    if none:
        sentences.append(
            f"no face was found in {none} of {len(clips)} clips: they keep the whole picture"
        )
    if several:
        sentences.append(
            f"several faces were seen in {several} of {len(clips)} clips, and the largest was "
            "followed; if another one is manipulated, the clip does not show it"
        )
    return sentences


def _label_noise(clips: Sequence[Clip]) -> str:
    if not any(clip.source == "dfd" for clip in clips):
        return ""
    return (
        "labels are DFD's own, one per file: it is known for label noise, and nobody has checked "
        "that a face is swapped in every part of every fake"
    )
