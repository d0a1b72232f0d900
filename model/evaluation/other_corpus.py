"""A run on another corpus than the one it was trained on."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model.evaluation.evaluation import ALL, METRICS, Evaluation, finish, judge, rivals_of
from model.run.per_video_scores import HEADER, OK, PREDICTIONS
from model.run.run import Run, cache_of
from model.run.trained_on import check_unseen
from pipeline.cache import Cache
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.corpus.labelled_video import LABEL_NAMES

# What changes neither a pixel nor an embedding of a video: which videos there are, how they are
# split and stored, and how many frames of each are looked at.
NO_MATTER = {
    "extraction": {
        "corpus",
        "splitting",
        "seed",
        "shard_size",
        "compression",
        "keep_frames",
        "min_frames",
        "frames",
        "clips",
    },
    "embedding": {"source_sha256", "streams", "augment", "weights"},
}


def evaluate_elsewhere(
    run: Run,
    other: Cache,
    *,
    controls: bool = True,
    device: str = "auto",
    allow_leaks: bool = False,
) -> Evaluation:
    """Evaluate a run on all videos of a cache that it was not trained on, whatever their split.

    Temperature and threshold are the run's, and so are the controls: they were trained where it
    was. Writes ``metrics.json``, ``predictions.csv`` and curves into a folder of its own in the
    run's, ``cross/<name of the cache>``.

    Args:
        run: a trained run.
        other: an embedding cache that was made with the same settings.
        controls: heads as controls too, not only two logistic regressions.
        device: on which those are trained that are not kept, if the run's own cache is there.
        allow_leaks: go on where it shares somebody with the training videos; every result then
            says so.

    Raises:
        SettingsError: it was extracted or embedded otherwise.
        IntegrityError: an identity, an original or a file of it was trained on.
    """
    _check_alike(run, other)
    warning = check_unseen(run.folder, other.clips, str(other.folder), allow=allow_leaks)
    evaluation = Evaluation(_folder(run, other))
    evaluation.folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=1, desc="evaluate", unit="step", disable=None) as bar:
        splits = sorted({clip.split for clip in other.clips})
        own = _own_cache(run)
        rivals, evaluation.absent = rivals_of(run, other, own, controls, device, bar)
        # Of its own split nothing is evaluated: what leaks there does not matter here.
        run = dataclasses.replace(run, config=dataclasses.replace(run.config, leak_warning=warning))
        curves = judge(run, other, splits, ALL, rivals, evaluation)
        bar.update()
    finish(run, other, evaluation, curves, f"all of {evaluation.folder.name}")
    rows = [
        [
            *(video.id, video.split, LABEL_NAMES.index(video.label)),
            *(("", video.scored_by) if video.probability is None else (video.probability, OK)),
        ]
        for video in evaluation.videos
    ]
    write_csv(evaluation.folder / PREDICTIONS, HEADER, rows)
    return evaluation


def _own_cache(run: Run) -> Cache | None:
    try:
        return cache_of(run)
    except (SettingsError, IntegrityError):
        return None


def _check_alike(run: Run, other: Cache) -> None:
    pairs: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "extraction": (run.config.extraction, json.loads(other.attrs["source_settings"])),
        "embedding": (run.config.embedding, other.settings),
    }
    differences = [
        f"{name} was {ours.get(name)}, there {theirs.get(name)}"
        for kind, (ours, theirs) in pairs.items()
        for name in sorted((ours.keys() | theirs.keys()) - NO_MATTER[kind])
        if ours.get(name) != theirs.get(name)
    ]
    if differences:
        raise SettingsError(
            f"{other.folder} was not made as the videos that {run.folder} was trained on: "
            + "; ".join(differences),
            "extract and embed it with the settings of the run: they are in its config.json",
        )


def _folder(run: Run, other: Cache) -> Path:
    """Named after the cache, and after its content too where another one took the name."""
    sha256, name = other.sha256, other.folder.resolve().name
    folder = run.folder / "cross" / name
    taken = folder / METRICS
    if taken.is_file() and json.loads(taken.read_text())["cache_sha256"] != sha256:
        return folder.with_name(f"{name}-{sha256[:8]}")
    return folder
