"""Clips of one video, decoded, searched for faces, and written to a shard."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import numpy.typing as npt

from pipeline import farneback
from pipeline.cache import CHUNK_BYTES, ShardWriter
from pipeline.common.errors import Rejected
from pipeline.common.prefetch import prefetch
from pipeline.extraction.camera import Camera, Mapping, camera_field
from pipeline.extraction.frame_buffer import FrameBuffer
from pipeline.faces import FaceCrop, FaceTrack, Search, frames_between_looks
from pipeline.settings import Settings
from pipeline.video.decode import ScaledFrame, converting, sampled, scaled_frames
from pipeline.video.fingerprint import Hashes, ThumbnailCollector, perceptual_hashes
from pipeline.video.resize import Box, Geometry, Size

CHUNKS_PER_BATCH = 8  # HDF5 chunks of frames that are decoded at once
BATCHES_AHEAD = 2  # of the flow


@dataclass(frozen=True)
class ClipMetadata:
    """Metadata of a clip in a shard."""

    start: float  # seconds into the video
    hashes: Hashes  # (K, 8) uint8
    crop: Box  # part of the upright frame
    face_share: float  # share of the looks that found its face; 0 without a face crop
    n_faces: int  # most faces in one frame
    camera_known: float  # share of its flow maps with a known camera motion


def read_metadata(clip: h5py.Group) -> ClipMetadata:
    """Read the metadata of a clip from its group."""
    x, y, width, height = clip["crop"][:].tolist()
    face = FaceTrack(clip["faces"][:]) if "faces" in clip else None
    camera = clip["camera"][:]
    return ClipMetadata(
        start=float(clip["timestamps"][0]),
        hashes=perceptual_hashes(clip["thumbnails"][:]),
        crop=(x, y, width, height),
        face_share=face.share if face else 0.0,
        n_faces=face.n_faces if face else 0,
        camera_known=1 - float(np.isnan(camera[:, 0]).sum()) / len(camera),
    )


def extract_clips(
    path: Path,
    shard: ShardWriter,
    name: str,
    settings: Settings,
    *,
    rate: float,
    n_frames: int,
    n_clips: int = 1,
    model: bytes = b"",
) -> list[str]:
    """Cut consecutive clips ``name``, ``name-1``, ... from the start of a video into a shard.

    Decoding, flow and compression run in one thread each; memory does not grow with the length.

    Args:
        shard: receives the datasets that `docs/cache.md` describes.
        rate: sampling rate, in frames/s.
        n_frames: T.
        n_clips: maximum number of clips.
        model: file of the face detector, if the settings ask for one.

    Returns:
        ids of the complete clips. If a later one breaks off, closing the shard raises
        `pipeline.cache.IncompleteDataset`.

    Raises:
        Rejected: the video is damaged or too short, or no clip has a suitable face.
    """
    sources = _clip_sources(path, settings, rate, n_frames, n_clips, model)
    batches = prefetch(_batches(sources, settings.geometry, n_frames), BATCHES_AHEAD)
    ids: list[str] = []
    n_written = 0
    try:
        for _, clip_batches in groupby(batches, key=lambda batch: batch.clip):
            clip_id = f"{name}-{len(ids)}" if ids else name
            n_written = _write_clip(shard, clip_id, clip_batches, settings, n_frames)
            if n_written == n_frames:
                ids.append(clip_id)
    except Rejected:
        if not ids:
            raise
    if not ids:
        raise Rejected("too short", f"{n_written} frames of {n_frames}")
    return ids


@dataclass(frozen=True)
class _ClipSource:
    size: Size  # of the upright frames
    box: Box  # part of the frames that the clip keeps
    face: FaceTrack | None  # None without a face crop
    frames: Iterator[ScaledFrame]  # at most T


def _clip_sources(
    path: Path, settings: Settings, rate: float, n_frames: int, n_clips: int, model: bytes
) -> Iterator[_ClipSource]:
    """Yield consecutive clips, each to be read before the next; the last may lack frames."""
    if settings.faces is not None:
        yield from _face_sources(path, settings, settings.faces, rate, n_frames, n_clips, model)
        return
    with sampled(path, rate) as (upright, frames):
        size = upright.width, upright.height
        box = settings.geometry.box(*size, upright.pixel_aspect)
        decoded = scaled_frames(upright, frames, settings.geometry)
        for _ in range(n_clips):
            yield _ClipSource(size, box, None, islice(decoded, n_frames))


def _face_sources(
    path: Path,
    settings: Settings,
    faces: FaceCrop,
    rate: float,
    n_frames: int,
    n_clips: int,
    model: bytes,
) -> Iterator[_ClipSource]:
    """Yield each clip with a suitable face."""
    geometry = settings.geometry
    first_rejection: Rejected | None = None
    has_face = False
    with sampled(path, rate) as (upright, frames):
        with converting():
            to_overview = upright.scaler(upright.whole, *upright.overview_size(), "gray")
        for n in range(n_clips):
            with converting():
                search = Search(upright, geometry, faces, model, frames_between_looks(rate))
            with FrameBuffer(upright) as buffer:
                try:
                    for time, frame in islice(frames, n_frames):
                        with converting():
                            search.see(time, frame)
                            buffer.add(time, frame, to_overview(frame), search.part)
                    if len(buffer) < n_frames:
                        raise Rejected("too short", f"{len(buffer)} frames of {n_frames}")
                    box, face = search.choose()
                except Rejected as rejection:
                    first_rejection = first_rejection or rejection
                    if len(buffer) < n_frames:
                        break
                    continue
                if buffer.holds(box):
                    decoded = buffer.scaled_frames(box, geometry.width, geometry.height)
                else:  # the face went further than the buffer foresaw
                    cropped = replace(geometry, crop=box)
                    decoded = _decode_again(path, cropped, rate, n * n_frames, n_frames)
                yield _ClipSource((upright.width, upright.height), box, face, decoded)
                has_face = True
    if first_rejection is not None and not has_face:
        raise first_rejection


def _decode_again(
    path: Path, geometry: Geometry, rate: float, start: int, n: int
) -> Iterator[ScaledFrame]:
    with sampled(path, rate) as (upright, frames):
        yield from scaled_frames(upright, islice(frames, start, start + n), geometry)


@dataclass(frozen=True)
class _Batch:
    clip: int  # position of the source
    source: _ClipSource
    frames: npt.NDArray[np.uint8]  # (n, H, W, 3), RGB
    grey: npt.NDArray[np.uint8]  # (n, H, W)
    overviews: npt.NDArray[np.uint8]  # (n, h, w), grey, of the whole frame
    timestamps: npt.NDArray[np.float64]  # (n,), seconds


def _batches(sources: Iterator[_ClipSource], geometry: Geometry, n_frames: int) -> Iterator[_Batch]:
    """Decode all clips up to the first one with fewer than T frames."""
    shape = (geometry.height, geometry.width)
    size = CHUNKS_PER_BATCH * max(1, CHUNK_BYTES // (3 * geometry.height * geometry.width))
    for clip, source in enumerate(sources):
        for start in range(0, n_frames, size):
            n = min(size, n_frames - start)
            frames = np.empty((n, *shape, 3), np.uint8)
            grey = np.empty((n, *shape), np.uint8)
            timestamps = np.empty(n)
            overviews = []
            for k, frame in enumerate(islice(source.frames, n)):
                timestamps[k], frames[k] = frame.time, frame.rgb
                cv2.cvtColor(frames[k], cv2.COLOR_RGB2GRAY, dst=grey[k])
                overviews.append(frame.overview.copy())
            read = len(overviews)
            if read:
                stacked = np.stack(overviews)
                yield _Batch(clip, source, frames[:read], grey[:read], stacked, timestamps[:read])
            if read < n:
                return


def _write_clip(
    shard: ShardWriter, clip_id: str, batches: Iterator[_Batch], settings: Settings, n_frames: int
) -> int:
    """Write a clip; return its frames, fewer than T if the video ends early."""
    first = next(batches)
    source = first.source
    height, width = first.grey.shape[1:]
    flow = farneback.Stream(height, width, backend=settings.flow_backend)
    h, w = first.overviews.shape[1:]
    mapping = Mapping(source.size, source.box, width, height)
    camera = Camera((h, w), mapping, settings.flow_backend)
    thumbnails = ThumbnailCollector()
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "frames": ((n_frames, height, width, 3), np.uint8),
        "flow": ((n_frames - 1, height, width), np.uint8),
        "flow_range": ((n_frames - 1, 2), np.float32),
        "camera": ((n_frames - 1, 6), np.float32),
        "timestamps": ((n_frames,), np.float64),
    }
    if not settings.keep_frames:
        del shapes["frames"]
    for key, (shape, dtype) in shapes.items():
        shard.begin(clip_id, key, shape, dtype)
    _write_array(shard, clip_id, "crop", np.array(source.box, np.int64))
    _write_array(shard, clip_id, "overview", first.overviews[0])
    if source.face is not None:
        _write_array(shard, clip_id, "faces", source.face.table)
    face = source.face if source.face is not None and source.face.seen.any() else None

    n_written = 0
    previous: npt.NDArray[np.uint8] | None = None
    for batch in chain([first], batches):
        if settings.keep_frames:
            shard.append(clip_id, "frames", batch.frames)
        motions = camera.motions(batch.overviews, face.at(batch.timestamps) if face else None)
        if settings.stabilise:
            maps, ranges = _stabilised(flow.flows(batch.grey), motions)
        else:
            maps, ranges = flow.magnitude_maps(batch.grey)
        repeated = _repeated(previous, batch.grey)[len(batch.grey) - len(maps) :]
        maps[repeated], ranges[repeated] = 0, 0  # OpenCV finds up to a pixel at the border
        previous = batch.grey[-1]
        shard.append(clip_id, "flow", maps)
        shard.append(clip_id, "flow_range", ranges)
        shard.append(clip_id, "camera", motions)
        shard.append(clip_id, "timestamps", batch.timestamps)
        thumbnails.add(batch.overviews, batch.timestamps)
        n_written += len(batch.grey)
    if n_written == n_frames:
        _write_array(shard, clip_id, "thumbnails", thumbnails.collected())
    return n_written


def _write_array(shard: ShardWriter, clip_id: str, key: str, array: npt.NDArray[Any]) -> None:
    shard.begin(clip_id, key, array.shape, array.dtype)
    shard.append(clip_id, key, array)


def _repeated(
    previous: npt.NDArray[np.uint8] | None, grey: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """Return which frames, (n,), equal the one before."""
    before: list[Any] = [previous, *grey[:-1]]
    return np.array([np.array_equal(a, b) for a, b in zip(before, grey, strict=True)])


def _stabilised(
    fields: npt.NDArray[np.float32], motions: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return maps and ranges of flow, (n, H, W, 2), without the camera's, (n, 6)."""
    height, width = fields.shape[1:3]
    maps = np.empty(fields.shape[:3], np.uint8)
    ranges = np.empty((len(fields), 2), np.float32)
    for n, (field, motion) in enumerate(zip(fields, motions, strict=True)):
        remainder = field - camera_field(motion, height, width)
        # As in `pipeline.farneback.opencv`: the last bits of `cv2.magnitude` vary.
        magnitude: Any = cv2.cartToPolar(*cv2.split(remainder))[0]
        maps[n], ranges[n] = farneback.scaled(magnitude)
    return maps, ranges
