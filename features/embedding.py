"""A cache of clips → a cache of embeddings; one function embeds a clip, in prediction too."""

import dataclasses
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision

from features.backbones import Backbone, checked
from features.motion import NAMES, motion_descriptors
from features.settings import Options
from pipeline.cache import Cache, Clip, finished_cache, shard_row, write_index, writing_shard
from pipeline.cache.datacard import write_datacard
from pipeline.cache.in_progress import CacheInProgress, remove_work
from pipeline.common.errors import SettingsError
from pipeline.common.prefetch import prefetch
from pipeline.common.progress import Progress

STAGE = "embed"
LARGEST = float(np.finfo(np.float16).max)  # beyond it an embedding would be infinite
CLIPS_AHEAD = 2  # that are read while others are embedded
CLIPS_TRIED = 2  # of a cache, in which a precision is compared with float32
PICTURES_TRIED = 16  # of each of them
BATCHES_TOGETHER = 16  # at least; clips follow one another in them, and a stop undoes no more

Arrays = dict[str, npt.NDArray[Any]]


def _settings_of(backbone: Backbone, options: Options, source: Cache) -> dict[str, Any]:
    """Everything that decides the embeddings of a given cache."""
    return dataclasses.asdict(options) | {
        "backbone": backbone.name,
        "weights": backbone.weights,
        "weights_sha256": backbone.sha256,
        "mean": backbone.kind.mean,
        "std": backbone.kind.std,
        "precision": backbone.precision,
        "source_sha256": source.sha256,
    }


def embed_clip(
    arrays: Mapping[str, npt.NDArray[Any]], backbone: Backbone, options: Options
) -> Arrays:
    """Embed one clip.

    Args:
        arrays: ``flow``, ``flow_range``, ``timestamps``, ``camera`` and, if it is a stream,
            ``frames``.
        backbone: the network.
        options: what to embed.

    Returns:
        each stream as (T', D) float16, and the same of its copies as ``flow-flip``; ``rows``
        (T', 2) int64, the first and last flow map that each row is about, or the frames that they
        lead to; and ``motion`` (T-1, K) float32, a row for each map.
    """
    (embedded,) = embed_clips([arrays], backbone, options)
    return embedded


def embed_clips(
    clips: Iterable[Mapping[str, npt.NDArray[Any]]], backbone: Backbone, options: Options
) -> Iterator[Arrays]:
    """Embed clips of one size as `embed_clip` does, batches going on from one into the next."""
    suffixes = ("", *(f"-{copy}" for copy in options.augment))
    names = [stream + suffix for stream in options.streams for suffix in suffixes]
    *of_names, own = itertools.tee(clips, len(names) + 1)
    embedded = {
        name: backbone.embed_each(_named(some, name, options), options.every)
        for name, some in zip(names, of_names, strict=True)
    }
    for arrays in own:
        found: Arrays = {"rows": backbone.rows(len(arrays["flow"]), options.every)}
        found |= {name: half(next(of_stream)) for name, of_stream in embedded.items()}
        found["motion"] = motion_descriptors(
            *(arrays[key] for key in ("flow", "flow_range", "timestamps", "camera"))
        )
        yield found


def _named(
    clips: Iterable[Mapping[str, npt.NDArray[Any]]], name: str, options: Options
) -> Iterator[npt.NDArray[np.uint8]]:
    """What is embedded of each clip as, for example, ``flow`` or ``flow-flip``."""
    stream, _, flipped = name.partition("-")
    for arrays in clips:
        pictures = stream_pictures(arrays, stream, options)
        yield np.ascontiguousarray(pictures[:, :, ::-1]) if flipped else pictures


def stream_pictures(
    arrays: Mapping[str, npt.NDArray[Any]], stream: str, options: Options
) -> npt.NDArray[np.uint8]:
    """What is embedded of a clip: (T-1, H, W) maps, or (T-1, H, W, 3) frames that they lead to."""
    if stream == "flow":
        return scaled_maps(arrays["flow"], arrays["flow_range"], options.flow_scale)
    return arrays["frames"][1:]  # no map leads to the first


def half(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Embeddings as a cache keeps them."""
    return np.clip(embeddings, -LARGEST, LARGEST).astype(np.float16)


def scaled_maps(
    flow: npt.NDArray[np.uint8], flow_range: npt.NDArray[np.float32], scale: float | None
) -> npt.NDArray[np.uint8]:
    """Flow maps at one scale for all, so that the same grey is the same motion.

    Args:
        flow: (n, H, W) uint8, each map min-max scaled.
        flow_range: (n, 2) float32, what 0 and 255 stand for, in pixels per frame.
        scale: what 255 shall stand for; faster motion is 255 as well. None leaves maps as they are.

    Example:
        >>> two_maps = np.array([[[0, 51, 255]], [[0, 51, 255]]], np.uint8)  # (2, 1, 3)
        >>> up_to = np.array([[0, 10], [0, 20]], np.float32)  # px/frame
        >>> scaled_maps(two_maps, up_to, 10).tolist()
        [[[0, 51, 255]], [[0, 102, 255]]]
    """
    if scale is None:
        return flow
    greys = np.arange(256, dtype=np.float32) / 255
    low, high = flow_range[:, :1], flow_range[:, 1:]
    pixels = low + greys * (high - low)  # (n, 256)
    table = np.rint(np.clip(pixels / scale, 0, 1) * 255).astype(np.uint8)
    return np.stack([of_map[grey] for of_map, grey in zip(table, flow, strict=True)])


def checked_on(backbone: Backbone, source: Cache, options: Options) -> Backbone:
    """The backbone, in float32 if its own precision is too coarse for clips of this cache."""
    rows = slice(0, PICTURES_TRIED)
    for clip in source.clips[:CLIPS_TRIED]:
        for stream in options.streams:
            if stream == "frames" and not source.settings["keep_frames"]:
                continue  # `embed` says so
            pictures = source.read(clip, stream, rows)
            if stream == "flow":
                ranges = source.read(clip, "flow_range", rows)
                pictures = scaled_maps(pictures, ranges, options.flow_scale)
            backbone = checked(backbone, pictures)
    return backbone


def embed(source: Cache, folder: Path, backbone: Backbone, options: Options | None = None) -> Cache:
    """Make a cache of embeddings, or finish one that was begun.

    Args:
        source: a cache of the extract stage.
        folder: of the new cache.
        backbone: the network; `checked_on` says whether its precision is enough.
        options: what to embed.

    Raises:
        SettingsError: the source does not hold a stream, or the folder was begun with other
            settings, weights or clips.
    """
    options = options or Options()
    if "frames" in options.streams and not source.settings["keep_frames"]:
        raise SettingsError(
            f"{source.folder} was extracted with --no-frames", "embed it with --streams flow"
        )
    settings = _settings_of(backbone, options, source)
    if finished := finished_cache(folder, STAGE, settings):
        remove_work(folder)
        return finished
    with CacheInProgress(folder, settings) as work:
        recipes = {
            shard.name: work.recipe(
                source=shard.sha256, versions=_versions(), device=backbone.device.type
            )
            for shard in source.shards
        }
        there = {name for name, recipe in recipes.items() if work.has_shard(name, recipe)}
        clips: dict[str, list[Clip]] = {}
        for clip in source.clips:
            clips.setdefault(clip.shard, []).append(clip)
        groups = [
            group
            for group in _groups(
                [clips[name] for name in recipes], BATCHES_TOGETHER * backbone.batch
            )
            if not there.issuperset(clip.shard for clip in group)
        ]
        to_embed = [clip for group in groups for clip in group]
        reading = prefetch(_read(source, to_embed, options), CLIPS_AHEAD)
        embedded = itertools.chain.from_iterable(
            embed_clips(itertools.islice(reading, len(group)), backbone, options)
            for group in groups
        )
        again = {clip.shard for clip in to_embed}
        shards = []
        with Progress("embed", len(source.clips), unit="clip") as progress:
            for name, recipe in recipes.items():
                of_shard = itertools.islice(embedded, len(clips[name]) if name in again else 0)
                if name in there:
                    deque(of_shard, maxlen=0)  # they only fill the batches that others are in
                else:
                    with writing_shard(folder, name, attrs={"recipe": recipe}) as writer:
                        for clip, arrays in zip(clips[name], of_shard, strict=True):
                            for key, array in arrays.items():
                                writer.begin(clip.id, key, array.shape, array.dtype)
                                writer.append(clip.id, key, array)
                shards.append(shard_row(folder, name))
                for clip in clips[name]:
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


def _groups(shards: Iterable[Sequence[Clip]], maps: int) -> Iterator[list[Clip]]:
    """Clips of shards in a row, so many maps together or more.

    Batches end with a group, so that an embedding is the same to the bit wherever work went on.
    """
    group: list[Clip] = []
    for clips in shards:
        group += clips
        if sum(clip.n_frames - 1 for clip in group) >= maps:
            yield group
            group = []
    if group:
        yield group


def _read(source: Cache, clips: Sequence[Clip], options: Options) -> Iterator[Arrays]:
    """What `embed_clip` needs of each clip."""
    needed = ("flow", "flow_range", "timestamps", "camera", "frames")
    for clip in clips:
        yield {
            key: source.read(clip, key)
            for key in needed
            if key != "frames" or "frames" in options.streams
        }


def _versions() -> str:
    """The versions of what decides the bytes of a cache, as JSON."""
    return json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__})
