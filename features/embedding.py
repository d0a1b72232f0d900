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
from features.trajectory import Box, Trajectory, column_names
from pipeline.cache import (
    Cache,
    Clip,
    check_same_settings,
    finished_cache,
    read_shard,
    shard_row,
    write_index,
    writing_shard,
)
from pipeline.cache.datacard import write_datacard
from pipeline.cache.in_progress import CacheInProgress, remove_work
from pipeline.cache.layout import HDF5_ERRORS
from pipeline.common.errors import IntegrityError, SettingsError
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
            ``frames``, as an extraction cache stores them; ``faces`` and ``crop`` if it has them.
        backbone: the network.
        options: what to embed.

    Returns:
        Each stream, (T', D) float16, and its mirrored copy, such as ``flow-flip``; ``rows``,
        (T', 2) int64, the first and last flow map of each row, or the frames that they lead to;
        ``motion``, (T-1, K) float32, a row for each map; and if the backbone has depths,
        ``trajectory``, (T', K') float32, see `features.trajectory`.
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
        key: backbone.embed_each(_inputs(of_key, key, backbone, options), options.every)
        for key, of_key in zip(keys, clips_per_key, strict=True)
    }
    for arrays in clips:
        embedded: Arrays = {"rows": backbone.rows(len(arrays["flow"]), options.every)}
        tables = []
        for key, of_clips in embeddings.items():
            vectors, trajectory = next(of_clips)
            embedded[key] = half(vectors)
            tables += [trajectory.table()] if trajectory else []
        embedded["motion"] = motion_descriptors(
            *(arrays[key] for key in ("flow", "flow_range", "timestamps", "camera"))
        )
        if tables:
            embedded["trajectory"] = np.concatenate(tables, axis=1)
        yield embedded


def _inputs(
    clips: Iterable[Mapping[str, npt.NDArray[Any]]],
    key: str,
    backbone: Backbone,
    options: Options,
) -> Iterator[tuple[npt.NDArray[np.uint8], Trajectory | None]]:
    """Yield images of a stream or its mirrored copy, and what takes the maps of the former."""
    stream, _, copy = key.partition("-")
    for arrays in clips:
        images = stream_images(arrays, stream, options)
        if copy == "flip":
            yield np.ascontiguousarray(images[:, :, ::-1]), None
            continue
        yield images, begin_trajectory(arrays, backbone, options) if backbone.depths else None


def begin_trajectory(
    arrays: Mapping[str, npt.NDArray[Any]],
    backbone: Backbone,
    options: Options,
    *,
    keep_cells: bool = False,
) -> Trajectory:
    """Return what `Backbone.embed_each` gives the maps of a clip to."""
    rows = backbone.rows(len(arrays["flow"]), options.every)
    # An image network sees the first image of a row, a video network all of them.
    seen = rows if backbone.kind.window > 1 else rows[:, :1]
    times = arrays["timestamps"][1:][seen].mean(1)
    return Trajectory(times, face_box(arrays), keep_cells=keep_cells)


def face_box(arrays: Mapping[str, npt.NDArray[Any]]) -> Box | None:
    """Return the median face of a clip, in shares of its crop."""
    found = arrays["faces"][:, 1:5] if "faces" in arrays else np.empty((0, 4))
    found = found[(found[:, 2:] > 0).all(1)]
    if not len(found):
        return None
    left, top, width, height = arrays["crop"][:4]
    x, y, w, h = np.median(found, axis=0)
    return (x - left) / width, (y - top) / height, w / width, h / height


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

    A finished cache without trajectories gets those of the backbone's depths, and keeps the rest.
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
    earlier = _without_trajectories(folder, settings)
    if earlier:
        options = dataclasses.replace(options, augment=())  # copies have none
    elif finished := finished_cache(folder, STAGE, settings):
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
                    stored = _stored(folder, name) if earlier else {}
                    with writing_shard(folder, name, attrs={"recipe": recipe}) as writer:
                        for clip, embedded in zip(clips[name], of_shard, strict=True):
                            for key, array in (embedded | stored.get(clip.id, {})).items():
                                writer.begin(clip.id, key, array.shape, array.dtype)
                                writer.append(clip.id, key, array)
                shards.append(shard_row(folder, name))
                for clip in clips[name]:
                    progress.update(clip.id, frames=clip.n_frames)
        attrs = {
            "backbone": f"{backbone.name}, weights {backbone.weights}",
            "dimension": backbone.dimension,
            "motion": json.dumps(NAMES),
            "trajectory": json.dumps(column_names(options.streams, backbone.depths)),
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


def _without_trajectories(folder: Path, settings: Mapping[str, Any]) -> Cache | None:
    """Return the cache in a folder if these settings would add nothing but trajectories to it."""
    try:
        cache = Cache(folder, STAGE, whole=False)
    except (SettingsError, IntegrityError):
        return None
    if "depths" in cache.settings or "depths" not in settings:
        return None
    with_them = cache.settings | {"depths": settings["depths"]}
    check_same_settings(folder, with_them, json.loads(json.dumps(settings)))
    return cache


def _stored(folder: Path, shard: str) -> dict[str, Arrays]:
    try:
        return read_shard(folder, shard)
    except HDF5_ERRORS as error:
        raise IntegrityError(
            f"cannot read {folder / shard}, whose embeddings should stay: {error}",
            "embed into another folder",
        ) from error


def _settings(backbone: Backbone, options: Options, source: Cache) -> dict[str, Any]:
    depths = [depth.number for depth in backbone.depths]
    return (
        dataclasses.asdict(options)
        | ({"depths": depths} if depths else {})
        | {
            "backbone": backbone.name,
            "weights": backbone.weights,
            "weights_sha256": backbone.sha256,
            "mean": backbone.kind.mean,
            "std": backbone.kind.std,
            "precision": backbone.precision,
            "source_sha256": source.sha256,
        }
    )


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
    keys = {"flow", "flow_range", "timestamps", "camera", "faces", "crop"}
    if "frames" in options.streams:
        keys.add("frames")
    held = keys & source.datasets(clips[0]).keys() if clips else keys
    for clip in clips:
        yield {key: source.read(clip, key) for key in held}


def _versions() -> str:
    return json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__})
