"""Embedding of a cache of clips, and of single clips for prediction."""

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
FLOAT16_MAX = float(np.finfo(np.float16).max)
CLIPS_PREFETCHED = 2
CLIPS_CHECKED = 2  # clips on which a precision is compared with float32
IMAGES_CHECKED = 16  # images of each of them
MIN_BATCHES_PER_GROUP = 16

Arrays = dict[str, npt.NDArray[Any]]


def embed_clip(
    arrays: Mapping[str, npt.NDArray[Any]], backbone: Backbone, options: Options
) -> Arrays:
    """Embed one clip.

    Args:
        arrays: ``flow``, ``flow_range``, ``timestamps``, ``camera`` and, if it is a stream,
            ``frames``, as an extraction cache stores them.
        backbone: the network.
        options: what to embed.

    Returns:
        Each stream, (T', D) float16, and its mirrored copy, such as ``flow-flip``; ``rows``,
        (T', 2) int64, the first and last flow map of each row, or the frames that they lead to;
        ``motion``, (T-1, K) float32, a row for each map.
    """
    (embedded,) = embed_clips([arrays], backbone, options)
    return embedded


def embed_clips(
    clips: Iterable[Mapping[str, npt.NDArray[Any]]], backbone: Backbone, options: Options
) -> Iterator[Arrays]:
    """Embed clips of one size like `embed_clip`, in batches that continue across clips."""
    suffixes = ("", *(f"-{copy}" for copy in options.augment))
    keys = [stream + suffix for stream in options.streams for suffix in suffixes]
    *clips_per_key, clips = itertools.tee(clips, len(keys) + 1)
    embeddings = {
        key: backbone.embed_each(_images(key_clips, key, options), options.every)
        for key, key_clips in zip(keys, clips_per_key, strict=True)
    }
    for arrays in clips:
        embedded: Arrays = {"rows": backbone.rows(len(arrays["flow"]), options.every)}
        embedded |= {key: half(next(of_clips)) for key, of_clips in embeddings.items()}
        embedded["motion"] = motion_descriptors(
            *(arrays[key] for key in ("flow", "flow_range", "timestamps", "camera"))
        )
        yield embedded


def _images(
    clips: Iterable[Mapping[str, npt.NDArray[Any]]], key: str, options: Options
) -> Iterator[npt.NDArray[np.uint8]]:
    stream, _, copy = key.partition("-")
    for arrays in clips:
        images = stream_images(arrays, stream, options)
        yield np.ascontiguousarray(images[:, :, ::-1]) if copy == "flip" else images


def stream_images(
    arrays: Mapping[str, npt.NDArray[Any]], stream: str, options: Options
) -> npt.NDArray[np.uint8]:
    """Return a stream's images: maps (T-1, H, W), or the frames (T-1, H, W, 3) they lead to."""
    if stream == "flow":
        return scaled_maps(arrays["flow"], arrays["flow_range"], options.flow_scale)
    return arrays["frames"][1:]  # no map leads to the first frame


def half(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Convert to float16; larger numbers are clipped."""
    return np.clip(embeddings, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)


def scaled_maps(
    flow: npt.NDArray[np.uint8], flow_range: npt.NDArray[np.float32], scale: float | None
) -> npt.NDArray[np.uint8]:
    """Rescale flow maps to one scale, so that equal grey is equal motion.

    Args:
        flow: maps, each min-max scaled, (n, H, W) uint8.
        flow_range: motion that 0 and 255 stand for, (n, 2) float32, px/frame.
        scale: motion that becomes 255, px/frame; faster motion is clipped. None: as they are.

    Example:
        >>> two_maps = np.array([[[0, 51, 255]], [[0, 51, 255]]], np.uint8)
        >>> up_to = np.array([[0, 10], [0, 20]], np.float32)
        >>> scaled_maps(two_maps, up_to, 10).tolist()
        [[[0, 51, 255]], [[0, 102, 255]]]
    """
    if scale is None:
        return flow
    greys = np.arange(256, dtype=np.float32) / 255
    low, high = flow_range[:, :1], flow_range[:, 1:]
    speeds = low + greys * (high - low)  # (n, 256) px/frame
    tables = np.rint(np.clip(speeds / scale, 0, 1) * 255).astype(np.uint8)
    return np.stack([table[grey] for table, grey in zip(tables, flow, strict=True)])


def checked_on(backbone: Backbone, source: Cache, options: Options) -> Backbone:
    """Return the backbone, or a float32 one if its precision is too coarse for a cache."""
    rows = slice(0, IMAGES_CHECKED)
    for clip in source.clips[:CLIPS_CHECKED]:
        for stream in options.streams:
            if stream == "frames" and not source.settings["keep_frames"]:
                continue
            images = source.read(clip, stream, rows)
            if stream == "flow":
                ranges = source.read(clip, "flow_range", rows)
                images = scaled_maps(images, ranges, options.flow_scale)
            backbone = checked(backbone, images)
    return backbone


def embed(source: Cache, folder: Path, backbone: Backbone, options: Options | None = None) -> Cache:
    """Embed a cache of the extract stage into a folder, or resume an interrupted embedding.

    `checked_on` tests the precision of the backbone beforehand.

    Raises:
        SettingsError: frames are a stream but the source has none, or the folder was begun with
            other settings, weights or clips.
    """
    options = options or Options()
    if "frames" in options.streams and not source.settings["keep_frames"]:
        raise SettingsError(
            f"{source.folder} was extracted with --no-frames", "embed it with --streams flow"
        )
    settings = _settings(backbone, options, source)
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
        finished_shards = {name for name, recipe in recipes.items() if work.has_shard(name, recipe)}
        clips: dict[str, list[Clip]] = {name: [] for name in recipes}
        for clip in source.clips:
            clips[clip.shard].append(clip)
        groups = [
            group
            for group in _groups(clips.values(), MIN_BATCHES_PER_GROUP * backbone.batch)
            if not finished_shards.issuperset(clip.shard for clip in group)
        ]
        to_embed = [clip for group in groups for clip in group]
        arrays_of_clips = prefetch(_read(source, to_embed, options), CLIPS_PREFETCHED)
        embeddings = itertools.chain.from_iterable(
            embed_clips(itertools.islice(arrays_of_clips, len(group)), backbone, options)
            for group in groups
        )
        shards_to_embed = {clip.shard for clip in to_embed}
        shards = []
        with Progress("embed", len(source.clips), unit="clip") as progress:
            for name, recipe in recipes.items():
                n_clips = len(clips[name]) if name in shards_to_embed else 0
                of_shard = itertools.islice(embeddings, n_clips)
                if name in finished_shards:
                    deque(of_shard, maxlen=0)  # they complete batches of others
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
            folder, source.clips, extraction=source.settings, attrs=attrs, embedding=work.settings
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


def _settings(backbone: Backbone, options: Options, source: Cache) -> dict[str, Any]:
    return dataclasses.asdict(options) | {
        "backbone": backbone.name,
        "weights": backbone.weights,
        "weights_sha256": backbone.sha256,
        "mean": backbone.kind.mean,
        "std": backbone.kind.std,
        "precision": backbone.precision,
        "source_sha256": source.sha256,
    }


def _groups(shards: Iterable[Sequence[Clip]], min_maps: int) -> Iterator[list[Clip]]:
    """Yield the clips of consecutive shards in groups of at least `min_maps` flow maps.

    No batch continues across groups, so embeddings are the same to the bit wherever a run resumes.
    """
    group: list[Clip] = []
    for clips in shards:
        group += clips
        if sum(clip.n_frames - 1 for clip in group) >= min_maps:
            yield group
            group = []
    if group:
        yield group


def _read(source: Cache, clips: Sequence[Clip], options: Options) -> Iterator[Arrays]:
    keys = ["flow", "flow_range", "timestamps", "camera"]
    if "frames" in options.streams:
        keys.append("frames")
    for clip in clips:
        yield {key: source.read(clip, key) for key in keys}


def _versions() -> str:
    return json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__})
