"""One video → its clips: frames, flow maps, times, camera. Training and prediction come here."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from pipeline import farneback
from pipeline.cache import CHUNK_BYTES, ShardWriter
from pipeline.common.errors import Rejected
from pipeline.common.prefetch import prefetch
from pipeline.extraction.camera import Camera, Mapping, camera_field
from pipeline.extraction.frame_buffer import FrameBuffer
from pipeline.faces import FaceCrop, Followed, Search
from pipeline.video.decode import Picture, converting, pictures, sampled
from pipeline.video.fingerprint import Thumbnails, perceptual_hashes
from pipeline.video.resize import Box, Geometry, Size

LOOKS, FEWEST_FRAMES = 2.0, 10  # for faces: so often a second, and so many frames apart at least


@dataclass(frozen=True)
class Window:
    """One clip to be.

    Attributes:
        picture: width and height of the upright picture.
        box: the part of it that is kept.
        face: that was followed; None where nobody looked for one.
        pictures: its frames.
    """

    picture: Size
    box: Box
    face: Followed | None
    pictures: Iterator[Picture]


def windows(
    path: Path,
    geometry: Geometry,
    faces: FaceCrop | None,
    model: bytes,
    *,
    rate: float,
    n_frames: int,
    n_clips: int,
) -> Iterator[Window]:
    """Cut windows one after the other from the start of a video.

    Args:
        path: the video file.
        geometry: the size, and the crop if it is no face that is to be found.
        faces: how a face is to be found.
        model: the file of its detector.
        rate: frames sampled per second.
        n_frames: T, the frames of each window.
        n_clips: how many windows are looked at, at most; a rest is left.

    Yields:
        windows, whose pictures have to be taken before the next one is asked for. Where no face is
        followed, the last one may have fewer pictures than T, none even.

    Raises:
        Rejected: the video is damaged, or ends; no window has a face that will do.
    """
    if faces is None:
        with sampled(path, rate) as (upright, frames):
            size = upright.width, upright.height
            box = geometry.box(*size, upright.pixel_aspect)
            taken = pictures(upright, frames, geometry)
            for _ in range(n_clips):
                yield Window(size, box, None, islice(taken, n_frames))
        return
    refused: Rejected | None = None
    found = False
    with sampled(path, rate) as (upright, frames):
        with converting():
            search = Search(upright, geometry, faces, model)
        for n in range(n_clips):
            with FrameBuffer(upright) as spool:
                try:
                    search.start(frames_between_looks(rate), n_frames)
                    _fill(spool, search, islice(frames, n_frames))
                    if len(spool) < n_frames:
                        raise Rejected("too short", f"{len(spool)} frames of {n_frames}")
                    box, face = search.choose()
                except Rejected as rejected:
                    refused = refused or rejected
                    if len(spool) < n_frames:
                        break
                    continue
                if spool.holds(box):
                    taken = spool.pictures(box, geometry.width, geometry.height)
                else:  # the face went further than was foreseen
                    part = n * n_frames, (n + 1) * n_frames
                    taken = _again(path, replace(geometry, crop=box), rate, *part)
                yield Window((upright.width, upright.height), box, face, taken)
                found = True
    if refused is not None and not found:
        raise refused


def _fill(
    spool: FrameBuffer, search: Search, frames: Iterator[tuple[float, av.VideoFrame]]
) -> None:
    """Keep a window's frames, and look for faces meanwhile."""
    for time, frame in frames:
        with converting():
            search.see(time, frame)
            spool.add(time, frame, search.overview(frame), search.part)


def _again(path: Path, geometry: Geometry, rate: float, start: int, end: int) -> Iterator[Picture]:
    """Some frames of a video, decoded anew."""
    with sampled(path, rate) as (upright, frames):
        yield from pictures(upright, islice(frames, start, end), geometry)


def frames_between_looks(rate: float) -> int:
    """How many frames lie between two in which faces are looked for."""
    return max(FEWEST_FRAMES, round(rate / LOOKS))


CHUNKS = 8  # of frames that are decoded before flow is computed between them
PIECES_AHEAD = 2  # that the decoder may be ahead of the flow


@dataclass(frozen=True)
class ClipFacts:
    """What is known of a clip once it is written.

    Attributes:
        start: seconds into the video.
        hashes: (K, 8), see `pipeline.video.fingerprint.perceptual_hashes`.
        crop: the part of the upright picture that was kept: x, y, width, height.
        face_share: of the moments looked at, those at which its face was found; 0 if nobody looked.
        n_faces: the most faces that were seen at one moment.
        camera_known: the share of its maps for which the camera's motion is known.
    """

    start: float
    hashes: npt.NDArray[np.uint8]
    crop: Box
    face_share: float = 0.0
    n_faces: int = 0
    camera_known: float = 1.0


@dataclass(frozen=True)
class _Piece:
    """Consecutive frames of one clip."""

    window: Window
    begins_clip: bool
    frames: npt.NDArray[np.uint8]  # (n, H, W, 3), RGB
    grey: npt.NDArray[np.uint8]  # (n, H, W)
    overviews: npt.NDArray[np.uint8]  # (n, h, w), grey: the whole picture
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
    stabilise: bool = False,
    faces: FaceCrop | None = None,
    model: bytes = b"",
) -> dict[str, ClipFacts]:
    """Cut clips one after the other from the start of a video and write them with their flow.

    Frames stream through: decoding, flow and compression run in a thread each, and memory does not
    depend on the length of the video or of a clip.

    Args:
        path: the video file.
        shard: what to write to, the datasets that `docs/cache.md` describes.
        name: of the first clip; further ones are called ``name-1``, ``name-2``, ...
        geometry: crop and size.
        rate: frames sampled per second.
        n_frames: T, the frames of each clip.
        n_clips: at most this many; a rest shorter than a clip is left.
        backend: of the flow, as `farneback.resolve` gives it.
        keep_frames: whether to store ``frames``.
        stabilise: whether the camera's motion is taken out of the flow.
        faces: how a face is found that the crop is about, in place of the geometry's.
        model: the file of the detector of faces.

    Returns:
        the whole clips by their names. Where damage ended one that was begun, the shard holds some
        of it and cannot be finished (`pipeline.cache.Unfilled`).

    Raises:
        Rejected: the video is damaged, or ends, before the first clip is full, or no face will do.
            Later damage only ends the clips.
    """
    clips: dict[str, ClipFacts] = {}
    clip: _ClipInProgress | None = None
    windowed = windows(path, geometry, faces, model, rate=rate, n_frames=n_frames, n_clips=n_clips)
    try:
        for piece in prefetch(_pieces(windowed, geometry, n_frames), PIECES_AHEAD):
            if piece.begins_clip or clip is None:
                called = f"{name}-{len(clips)}" if clips else name
                clip = _ClipInProgress(shard, called, n_frames, backend, keep_frames, stabilise)
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
        backend: farneback.Backend,
        keep_frames: bool,
        stabilise: bool,
    ) -> None:
        self.done = 0
        self._shard, self._name, self._n_frames = shard, name, n_frames
        self._backend, self._keep_frames, self._stabilise = backend, keep_frames, stabilise
        self._thumbnails = Thumbnails()
        self._start = 0.0
        self._before: npt.NDArray[np.uint8] | None = None  # the last frame
        self._unknown = 0  # maps for which the camera's motion is not known

    def add(self, piece: _Piece) -> ClipFacts | None:
        """Write the next frames; what is known of the clip once it is whole."""
        if self.done == 0:
            self._begin(piece)
        shard, name, face = self._shard, self._name, piece.window.face
        if self._keep_frames:
            shard.append(name, "frames", piece.frames)
        found = face is not None and face.seen.any()
        camera = self._camera.motions(
            piece.overviews, face.at(piece.timestamps) if face and found else None
        )
        if self._stabilise:
            maps, ranges = _stabilised(self._flow.flows(piece.grey), camera)
        else:
            maps, ranges = self._flow.magnitude_maps(piece.grey)
        still = self._equal_to_the_one_before(piece.grey)[len(piece.grey) - len(maps) :]
        maps[still], ranges[still] = 0, 0  # where OpenCV's function has up to a pixel at the border
        shard.append(name, "flow", maps)
        shard.append(name, "flow_range", ranges)
        shard.append(name, "camera", camera)
        self._unknown += int(np.isnan(camera[:, 0]).sum())
        shard.append(name, "timestamps", piece.timestamps)
        self._thumbnails.add(piece.overviews, piece.timestamps)
        self.done += len(piece.frames)
        if self.done < self._n_frames:
            return None
        pictures = self._thumbnails.pictures()
        self._whole("thumbnails", pictures)
        return ClipFacts(
            self._start,
            perceptual_hashes(pictures),
            piece.window.box,
            face.share if face else 0.0,
            face.n_faces if face else 0,
            1 - self._unknown / (self._n_frames - 1),
        )

    def _equal_to_the_one_before(self, grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """(n,) of frames (n, H, W)."""
        before: list[Any] = [self._before, *grey[:-1]]
        self._before = grey[-1]
        return np.array([np.array_equal(a, b) for a, b in zip(before, grey, strict=True)])

    def _begin(self, piece: _Piece) -> None:
        self._start = float(piece.timestamps[0])
        T, (height, width) = self._n_frames, piece.grey.shape[1:]
        window = piece.window
        self._flow = farneback.Stream(height, width, backend=self._backend)
        h, w = piece.overviews.shape[1:]
        mapping = Mapping(window.picture, window.box, width, height)
        self._camera = Camera((h, w), mapping, self._backend)
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "frames": ((T, height, width, 3), np.uint8),
            "flow": ((T - 1, height, width), np.uint8),
            "flow_range": ((T - 1, 2), np.float32),
            "camera": ((T - 1, 6), np.float32),
            "timestamps": ((T,), np.float64),
        }
        for key, (shape, dtype) in shapes.items():
            if key != "frames" or self._keep_frames:
                self._shard.begin(self._name, key, shape, dtype)
        self._whole("crop", np.array(window.box, np.int64))
        self._whole("overview", piece.overviews[0])
        if window.face is not None:
            self._whole("faces", window.face.table)

    def _whole(self, key: str, array: npt.NDArray[Any]) -> None:
        self._shard.begin(self._name, key, array.shape, array.dtype)
        self._shard.append(self._name, key, array)


def _stabilised(
    fields: npt.NDArray[np.float32], camera: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Maps of what is left of flow (n, H, W, 2) once the camera's motion (n, 6) is taken out."""
    height, width = fields.shape[1:3]
    maps = np.empty(fields.shape[:3], np.uint8)
    ranges = np.empty((len(fields), 2), np.float32)
    for n, (field, motion) in enumerate(zip(fields, camera, strict=True)):
        left = field - camera_field(motion, height, width)
        # As `pipeline.farneback.opencv` does: the last bits of `cv2.magnitude` vary.
        magnitude: Any = cv2.cartToPolar(*cv2.split(left))[0]
        maps[n], ranges[n] = farneback.scaled(magnitude)
    return maps, ranges


def _pieces(windowed: Iterator[Window], geometry: Geometry, n_frames: int) -> Iterator[_Piece]:
    """The frames of a video, some at a time; no piece has frames of two clips."""
    shape = (geometry.height, geometry.width)
    at_once = CHUNKS * max(1, CHUNK_BYTES // (3 * geometry.height * geometry.width))
    for window in windowed:
        for begin in range(0, n_frames, at_once):
            n = min(at_once, n_frames - begin)
            frames = np.empty((n, *shape, 3), np.uint8)
            grey = np.empty((n, *shape), np.uint8)
            timestamps = np.empty(n)
            overviews = []
            filled = 0
            while filled < n and (picture := next(window.pictures, None)) is not None:
                timestamps[filled], frames[filled] = picture.time, picture.frame
                cv2.cvtColor(frames[filled], cv2.COLOR_RGB2GRAY, dst=grey[filled])
                overviews.append(picture.overview.copy())
                filled += 1
            if filled:
                yield _Piece(
                    window,
                    begin == 0,
                    frames[:filled],
                    grey[:filled],
                    np.stack(overviews),
                    timestamps[:filled],
                )
            if filled < n:
                return
