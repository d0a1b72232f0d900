"""A run on another corpus than the one it was trained on."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model.evaluation.controls import anomaly_control
from model.evaluation.evaluation import METRICS, Evaluation, finish, judge
from model.run import Run
from model.ties import check_unseen
from pipeline.cache import Cache
from pipeline.errors import SettingsError

ALL = "all"
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


def evaluate_elsewhere(run: Run, other: Cache, *, allow_leaks: bool = False) -> Evaluation:
    """Evaluate a run on all videos of a cache that it was not trained on, whatever their split.

    Temperature and threshold are the run's. Writes ``metrics.json`` and curves into a folder of
    its own in the run's, ``cross/<name of the cache>``. Of the
    controls only the motion anomaly is there: it is part of the run.

    Args:
        run: a trained run.
        other: an embedding cache that was made with the same settings.
        allow_leaks: go on where it shares somebody with the training videos; every result then
            says so.

    Raises:
        SettingsError: it was extracted or embedded otherwise.
        IntegrityError: an identity, an original or a file of it was trained on.
    """
    _check_alike(run, other)
    warning = check_unseen(run.folder, other.clips, str(other.folder), allow=allow_leaks)
    # Of its own split nothing is evaluated: what leaks there does not matter here.
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, leak_warning=warning))
    evaluation = Evaluation(_folder(run, other))
    evaluation.folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=1, desc="evaluate", unit="step", disable=None) as bar:
        splits = sorted({clip.split for clip in other.clips})
        controls = anomaly_control(run, other)
        curves = judge(run, other, splits, ALL, controls, evaluation)
        bar.update()
    finish(run, other, evaluation, curves, f"all of {evaluation.folder.name}")
    return evaluation


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
