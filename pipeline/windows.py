"""The windows of a video that become clips: so many frames each, and the part of them to keep."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from pipeline.decode import Picture, converting, pictures, sampled
from pipeline.errors import Rejected
from pipeline.faces import Detections, FaceCrop, Followed, choose, detector_of, steady_box
from pipeline.scaling import Box, Geometry, Size, Upright, shrunk
from pipeline.spool import Spool

LOOKS, FEWEST_FRAMES = 2.0, 10  # for faces: so often a second, and so many frames apart at least
# Faces are looked for in a picture of a quarter of the size; where none is found, at twice that.
COARSE, LARGEST = 0.25, 640  # pixels at most
ROOM = 0.5  # sizes of the first box that are kept around it, for a face that moves on
GRID = 16  # pixels: what is kept begins and ends on whole samples of colour


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
                    search.fill(spool, islice(frames, n_frames), frames_between_looks(rate))
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


def _again(path: Path, geometry: Geometry, rate: float, start: int, end: int) -> Iterator[Picture]:
    """Some frames of a video, decoded anew."""
    with sampled(path, rate) as (upright, frames):
        yield from pictures(upright, islice(frames, start, end), geometry)


def frames_between_looks(rate: float) -> int:
    """How many frames lie between two in which faces are looked for."""
    return max(FEWEST_FRAMES, round(rate / LOOKS))


class Search:
    """Looks for faces while the frames of a window are spooled."""

    def __init__(self, upright: Upright, geometry: Geometry, faces: FaceCrop, model: bytes) -> None:
        self._upright, self._geometry, self._faces = upright, geometry, faces
        self._detect = detector_of(faces, model)
        self._size = upright.width, upright.height
        shown = round(upright.width * upright.pixel_aspect), upright.height
        longest = round(min(max(COARSE * max(shown), self._detect.smallest), LARGEST))
        sizes = dict.fromkeys(shrunk(*shown, n * longest) for n in (1, 2))
        self._looks = [(size, upright.scaler(upright.whole, *size, "bgr24")) for size in sizes]
        self._over = upright.scaler(upright.whole, *upright.overview_size(), "gray")
        self._times: list[float] = []
        self._found: list[Detections] = []

    def fill(self, spool: Spool, frames: Iterator[tuple[float, av.VideoFrame]], every: int) -> None:
        """Keep a window's frames, and look for faces in every so many of them."""
        self._times, self._found = [], []
        part = self._upright.whole
        for n, (time, frame) in enumerate(frames):
            with converting():
                if n % every == 0:
                    self._times.append(time)
                    self._found.append(self.look(frame))
                    if part == self._upright.whole and len(self._found[-1]):
                        part = self.roomy(self._found[-1])
                spool.add(time, frame, self._over(frame), part)

    def choose(self) -> tuple[Box, Followed]:
        """The box of the window, and the face that it is about.

        Raises:
            Rejected: no face will do.
        """
        face = choose(self._times, self._found, self._faces)
        if not face.seen.any():
            whole = replace(self._geometry, crop=None)
            return whole.box(*self._size, self._upright.pixel_aspect), face
        return self._box(face.boxes), face

    def look(self, frame: av.VideoFrame) -> Detections:
        """All faces in a decoded frame, (N, 5), in pixels of the upright picture."""
        found = np.zeros((0, 5))
        for (width, height), scale in self._looks:
            found = self._detect(np.ascontiguousarray(scale(frame)))
            if len(found):
                zoom = np.array(self._size) / (width, height)
                return found * np.array([*zoom, *zoom, 1])
        return found

    def _box(self, faces: npt.NDArray[np.float64]) -> Box:
        geometry = self._geometry
        return steady_box(
            faces,
            *self._size,
            margin=self._faces.margin,
            aspect=Fraction(geometry.width, geometry.height),
            pixel_aspect=self._upright.pixel_aspect,
        )

    def roomy(self, faces: Detections) -> Box:
        """What to keep, judging by the faces at one moment: the box of the largest, and room."""
        largest = faces[np.argmax(faces[:, 2] * faces[:, 3])]
        x, y, w, h = self._box(largest[None, :4])
        room_x, room_y = round(ROOM * w), round(ROOM * h)
        left, top = max(0, x - room_x) // GRID * GRID, max(0, y - room_y) // GRID * GRID
        right, bottom = (
            min(-(-(end + room) // GRID) * GRID, most)
            for end, room, most in zip((x + w, y + h), (room_x, room_y), self._size, strict=True)
        )
        return left, top, right - left, bottom - top
