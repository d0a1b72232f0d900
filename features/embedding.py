"""A cache of clips → a cache of embeddings; one function embeds a clip, in prediction too."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision

from features.backbones import Backbone
from features.motion import NAMES, motion_descriptors
from pipeline.cache import Cache, Clip, finished_cache, shard_row, write_index, writing_shard
from pipeline.datacard import write_datacard
from pipeline.errors import SettingsError
from pipeline.progress import Progress
from pipeline.resume import CacheInProgress, remove_work

STAGE = "embed"
STREAMS = ("flow", "frames")
LARGEST = float(np.finfo(np.float16).max)  # beyond it an embedding would be infinite


@dataclass(frozen=True)
class Settings:
    """Everything that decides the embeddings of a given cache."""

    backbone: str
    weights: str
    weights_sha256: str
    streams: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: str
    source_sha256: str

    @classmethod
    def of(cls, backbone: Backbone, streams: tuple[str, ...], source: Cache) -> "Settings":
        """The settings that a backbone and a source cache stand for."""
        return cls(
            backbone=backbone.name,
            weights=backbone.weights,
            weights_sha256=backbone.sha256,
            streams=streams,
            mean=tuple(backbone.mean.tolist()),
            std=tuple(backbone.std.tolist()),
            precision="float32",
            source_sha256=source.sha256,
        )


def embed_clip(
    arrays: Mapping[str, npt.NDArray[Any]], backbone: Backbone, streams: tuple[str, ...]
) -> dict[str, npt.NDArray[Any]]:
    """Embed one clip.

    Args:
        arrays: ``flow``, ``flow_range``, ``timestamps``, ``camera`` and, if it is a stream,
            ``frames``.
        backbone: the network.
        streams: what to embed, some of `STREAMS`.

    Returns:
        each stream as (T', D) float16, and ``motion`` as (T-1, K) float32.
    """
    embedded: dict[str, npt.NDArray[Any]] = {
        stream: np.clip(backbone.embed(arrays[stream]), -LARGEST, LARGEST).astype(np.float16)
        for stream in streams
    }
    embedded["motion"] = motion_descriptors(
        *(arrays[key] for key in ("flow", "flow_range", "timestamps", "camera"))
    )
    return embedded


def embed(source: Cache, folder: Path, backbone: Backbone, streams: tuple[str, ...]) -> Cache:
    """Make a cache of embeddings, or finish one that was begun.

    Args:
        source: a cache of the extract stage.
        folder: of the new cache.
        backbone: the network.
        streams: what to embed, some of `STREAMS`.

    Raises:
        SettingsError: the source does not hold a stream, or the folder was begun with other
            settings, weights or clips.
    """
    if "frames" in streams and not source.settings["keep_frames"]:
        raise SettingsError(
            f"{source.folder} was extracted with --no-frames", "embed it with --streams flow"
        )
    settings = dataclasses.asdict(Settings.of(backbone, streams, source))
    if finished := finished_cache(folder, STAGE, settings):
        remove_work(folder)
        return finished
    with CacheInProgress(folder, settings) as work:
        shards = []
        clips: dict[str, list[Clip]] = {}
        for clip in source.clips:
            clips.setdefault(clip.shard, []).append(clip)
        needed = {"flow", "flow_range", "timestamps", "camera", *streams}
        with Progress("embed", len(source.clips), unit="clip") as progress:
            for shard in source.shards:
                recipe = work.recipe(
                    source=shard.sha256, versions=_versions(), device=backbone.device.type
                )
                if not work.has_shard(shard.name, recipe):
                    with writing_shard(folder, shard.name, attrs={"recipe": recipe}) as writer:
                        for clip in clips[shard.name]:
                            arrays = {key: source.read(clip, key) for key in needed}
                            for key, array in embed_clip(arrays, backbone, streams).items():
                                writer.begin(clip.id, key, array.shape, array.dtype)
                                writer.append(clip.id, key, array)
                shards.append(shard_row(folder, shard.name))
                for clip in clips[shard.name]:
                    progress.update(clip.id, frames=clip.n_frames)
        attrs = {
            "backbone": f"{backbone.name}, weights {backbone.weights}",
            "dimension": backbone.dimension,
            "motion": json.dumps(NAMES),
            "source_settings": source.attrs["settings"],
            "frames": source.attrs["frames"],
            "versions": _versions(),
            "rejected": source.attrs["rejected"],
        }
        write_datacard(
            folder,
            source.clips,
            extraction=source.settings,
            attrs=attrs,
            embedding=work.settings,
        )
        write_index(
            folder,
            stage=STAGE,
            settings=work.settings,
            attrs=attrs,
            clips=source.clips,
            shards=shards,
        )
        work.finish(shard.name for shard in shards)
    return Cache(folder, STAGE)


def _versions() -> str:
    """The versions of what decides the bytes of a cache, as JSON."""
    return json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__})


def weights_warning(settings: Mapping[str, Any]) -> str:
    """What to say wherever a result rests on an untrained backbone, or nothing.

    Args:
        settings: of an embedding cache.
    """
    if not str(settings["weights"]).startswith("random:"):
        return ""
    return (
        f"The backbone {settings['backbone']} has {settings['weights']} weights: it was never "
        "trained. Results are for trying out the program only."
    )
