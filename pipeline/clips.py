"""One video → its clips: frames, flow maps, times. Training and prediction both come here."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from pipeline import farneback
from pipeline.cache import CHUNK_BYTES, ShardWriter
from pipeline.decode import Geometry, decode
from pipeline.errors import Rejected
from pipeline.footage import Thumbnails, perceptual_hashes

Item = TypeVar("Item")

CHUNKS = 8  # of frames that are decoded before flow is computed between them
PIECES_AHEAD = 2  # that the decoder may be ahead of the flow


@dataclass(frozen=True)
class ClipFacts:
    """What is known of a clip once it is written."""

    start: float  # seconds into the video
    hashes: npt.NDArray[np.uint8]  # (K, 8), see `pipeline.footage.perceptual_hashes`


@dataclass(frozen=True)
class _Piece:
    """Consecutive frames of one clip."""

    begins_clip: bool
    frames: npt.NDArray[np.uint8]  # (n, H, W, 3), RGB
    grey: npt.NDArray[np.uint8]  # (n, H, W)
    timestamps: npt.NDArray[np.float64]  # (n,), seconds


def extract_clips(
    path: Path,
    shard: ShardWriter,
    name: str,
    geometry: Geometry,
    *,
    rate: float,
    n_frames: int,
    n_clips: int = 1,
    backend: farneback.Backend = "opencv",
    keep_frames: bool = True,
) -> dict[str, ClipFacts]:
    """Cut clips one after the other from the start of a video and write them with their flow.

    Frames stream through: decoding, flow and compression run in a thread each, and memory does not
    depend on the length of the video or of a clip.

    Args:
        path: the video file.
        shard: what to write to: ``frames`` (T, H, W, 3) uint8, RGB; ``flow`` (T-1, H, W) uint8,
            each map min-max scaled; ``flow_range`` (T-1, 2) float32, what 0 and 255 stand for in
            pixels per frame; ``timestamps`` (T,) float64, seconds; and ``thumbnails``.
        name: of the first clip; further ones are called ``name-1``, ``name-2``, ...
        geometry: crop and size.
        rate: frames sampled per second.
        n_frames: T, the frames of each clip.
        n_clips: at most this many; a rest shorter than a clip is left.
        backend: of the flow, as `farneback.resolve` gives it.
        keep_frames: whether to store ``frames``.

    Returns:
        the whole clips by their names. Where damage ended one that was begun, the shard holds some
        of it and cannot be finished (`pipeline.cache.Unfilled`).

    Raises:
        Rejected: the video is damaged, or ends, before the first clip is full. Later damage only
            ends the clips.
    """
    height, width = geometry.height, geometry.width
    clips: dict[str, ClipFacts] = {}
    current, done = name, 0
    stream = farneback.Stream(height, width, backend=backend)
    pictures = Thumbnails()
    start = 0.0
    pieces = _ahead(_pieces(path, geometry, rate, n_frames, n_clips), PIECES_AHEAD)
    while True:
        try:
            piece = next(pieces, None)
        except Rejected:
            if not clips:
                raise
            piece = None
        if piece is None:
            break
        if piece.begins_clip:
            current, done, start = f"{name}-{len(clips)}" if clips else name, 0, piece.timestamps[0]
            stream = farneback.Stream(height, width, backend=backend)
            pictures = Thumbnails()
            if keep_frames:
                shard.begin(current, "frames", (n_frames, height, width, 3), np.uint8)
            shard.begin(current, "flow", (n_frames - 1, height, width), np.uint8)
            shard.begin(current, "flow_range", (n_frames - 1, 2), np.float32)
            shard.begin(current, "timestamps", (n_frames,), np.float64)
        if keep_frames:
            shard.append(current, "frames", piece.frames)
        maps, ranges = stream.magnitude_maps(piece.grey)
        shard.append(current, "flow", maps)
        shard.append(current, "flow_range", ranges)
        shard.append(current, "timestamps", piece.timestamps)
        pictures.add(piece.frames, piece.timestamps)
        done += len(piece.frames)
        if done == n_frames:
            small = pictures.pictures()
            shard.begin(current, "thumbnails", small.shape, small.dtype)
            shard.append(current, "thumbnails", small)
            clips[current] = ClipFacts(float(start), perceptual_hashes(small))
    if not clips:
        raise Rejected("too short", f"{done} frames of {n_frames}")
    return clips


def _pieces(
    path: Path, geometry: Geometry, rate: float, n_frames: int, n_clips: int
) -> Iterator[_Piece]:
    """The frames of a video, some at a time; no piece has frames of two clips."""
    shape = (geometry.height, geometry.width)
    at_once = CHUNKS * max(1, CHUNK_BYTES // (3 * geometry.height * geometry.width))
    decoded = decode(path, geometry, rate)
    for _ in range(n_clips):
        for begin in range(0, n_frames, at_once):
            n = min(at_once, n_frames - begin)
            frames = np.empty((n, *shape, 3), np.uint8)
            grey = np.empty((n, *shape), np.uint8)
            timestamps = np.empty(n)
            filled = 0
            while filled < n and (decoded_frame := next(decoded, None)) is not None:
                timestamps[filled], frames[filled] = decoded_frame
                cv2.cvtColor(frames[filled], cv2.COLOR_RGB2GRAY, dst=grey[filled])
                filled += 1
            if filled:
                yield _Piece(begin == 0, frames[:filled], grey[:filled], timestamps[:filled])
            if filled < n:
                return


def _ahead(items: Iterator[Item], n: int) -> Iterator[Item]:
    """Make items in a thread of their own, up to ``n`` ahead of whoever takes them."""
    pool = ThreadPoolExecutor(1)
    try:
        coming: deque[Any] = deque(pool.submit(next, items, None) for _ in range(n))
        while (item := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
