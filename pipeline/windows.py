"""The windows of a video that become clips: so many frames each, and the part of them to keep."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import av

from pipeline.common.errors import Rejected
from pipeline.extraction.frame_buffer import Spool
from pipeline.faces import FaceCrop, Followed, Search
from pipeline.video.decode import Picture, converting, pictures, sampled
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
            with Spool(upright) as spool:
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


def _fill(spool: Spool, search: Search, frames: Iterator[tuple[float, av.VideoFrame]]) -> None:
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
