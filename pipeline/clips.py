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
    clips: dict[str, ClipFacts] = {}
    clip: _ClipInProgress | None = None
    try:
        for piece in _ahead(_pieces(path, geometry, rate, n_frames, n_clips), PIECES_AHEAD):
            if piece.begins_clip or clip is None:
                flow = farneback.Stream(geometry.height, geometry.width, backend=backend)
                called = f"{name}-{len(clips)}" if clips else name
                clip = _ClipInProgress(shard, called, n_frames, flow, keep_frames)
            if facts := clip.add(piece):
                clips[called] = facts
    except Rejected:
        if not clips:
            raise
    if not clips:
        raise Rejected("too short", f"{clip.done if clip else 0} frames of {n_frames}")
    return clips


class _ClipInProgress:
    """Writes one clip as its frames come."""

    def __init__(
        self,
        shard: ShardWriter,
        name: str,
        n_frames: int,
        flow: farneback.Stream,
        keep_frames: bool,
    ) -> None:
        self.done = 0
        self._shard, self._name, self._n_frames = shard, name, n_frames
        self._flow, self._keep_frames = flow, keep_frames
        self._thumbnails = Thumbnails()
        self._start = 0.0

    def add(self, piece: _Piece) -> ClipFacts | None:
        """Write the next frames; what is known of the clip once it is whole."""
        if self.done == 0:
            self._begin(piece)
        shard, name = self._shard, self._name
        if self._keep_frames:
            shard.append(name, "frames", piece.frames)
        maps, ranges = self._flow.magnitude_maps(piece.grey)
        shard.append(name, "flow", maps)
        shard.append(name, "flow_range", ranges)
        shard.append(name, "timestamps", piece.timestamps)
        self._thumbnails.add(piece.frames, piece.timestamps)
        self.done += len(piece.frames)
        if self.done < self._n_frames:
            return None
        pictures = self._thumbnails.pictures()
        shard.begin(name, "thumbnails", pictures.shape, pictures.dtype)
        shard.append(name, "thumbnails", pictures)
        return ClipFacts(self._start, perceptual_hashes(pictures))

    def _begin(self, piece: _Piece) -> None:
        self._start = float(piece.timestamps[0])
        T, (height, width) = self._n_frames, piece.grey.shape[1:]
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "frames": ((T, height, width, 3), np.uint8),
            "flow": ((T - 1, height, width), np.uint8),
            "flow_range": ((T - 1, 2), np.float32),
            "timestamps": ((T,), np.float64),
        }
        for key, (shape, dtype) in shapes.items():
            if key != "frames" or self._keep_frames:
                self._shard.begin(self._name, key, shape, dtype)


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
