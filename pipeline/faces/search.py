"""Finding the face of a clip while its frames are decoded, in a fifth of the time that takes."""

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt

from pipeline.faces import costs
from pipeline.faces.detection import Detections, detector_of
from pipeline.faces.following import Followed, Look, choose
from pipeline.faces.policy import FaceCrop, steady_box
from pipeline.video.resize import Box, Geometry, Scale, Size, Upright, shrunk

Part = tuple[int, int, int, int]  # left, top, right, bottom
Place = npt.NDArray[np.float64]  # (5,) of a face: x, y, width, height, score

SHARE = 0.2  # of the time to decode that finding faces may take
AHEAD = 2  # looks at all of the picture, in all sizes, that it may be ahead of that for a while
AROUND = 3.5  # sizes of a known face in which it is looked for where nothing is left
ROOM = 0.5  # sizes of the first box that are kept around it, for a face that moves on
GRID = 16  # pixels: what is kept begins and ends on whole samples of colour


class _View(NamedTuple):
    """A `View` of this video: the size of all of the picture, in pixels, and the part of that."""

    size: Size
    scale: Scale
    part: Part


class Search:
    """Looks for faces in the frames of one window after the other.

    Finding faces may take `SHARE` of the time that decoding takes, as `costs` counts it, so that a
    video gives the same looks on any machine. However short a window is, it is looked at until a
    face was found or all of the picture was searched once. A known face is looked for around the
    place where it was last; else the detector's views come one after the other, one at a moment.

    Args:
        upright: the video's pictures.
        geometry: the size that the face's box will have.
        faces: how a face is to be found.
        model: the file of its detector.

    Attributes:
        part: what to keep of the frame that was seen last, and of those that follow.
        looks: at the window's frames.
    """

    def __init__(self, upright: Upright, geometry: Geometry, faces: FaceCrop, model: bytes) -> None:
        self._upright, self._geometry, self._faces = upright, geometry, faces
        self._detect = detector_of(faces, model)
        self._size = upright.width, upright.height
        shown = round(upright.width * upright.pixel_aspect), upright.height
        self._views = self._all_views(shown)
        self.overview = upright.scaler(upright.whole, *upright.overview_size(), "gray")
        self._earned = SHARE * costs.decoding(upright.stream)  # by a frame that is decoded
        self._scaling = costs.SCALING * upright.width * upright.height
        self._costs = [self._cost(view.part) for view in self._views]
        self._unused = 0.0  # of what was earned
        self._last: tuple[int, Place] | None = None  # in which view a face was, and where
        self.start(1, 1)

    def start(self, every: int, n_frames: int) -> None:
        """Begin with another window.

        Args:
            every: its first frame is looked at, then one of so many may be.
            n_frames: how many it has.
        """
        self._every, self._n_seen, self._n_frames = every, 0, n_frames
        self._next = 0  # the view to be searched next
        self.looks: list[Look] = []
        self.part = self._upright.whole

    def see(self, time: float, frame: av.VideoFrame) -> None:
        """Take notice of a window's next frame; look for faces in it if that is due."""
        self._unused += self._earned
        if self._n_seen % self._every == 0:
            look = self._look(time, frame)
            if look is not None:
                self.looks.append(look)
                if len(look.faces) and self.part == self._upright.whole:
                    self.part = self._roomy(look.faces)
        self._n_seen += 1

    def choose(self) -> tuple[Box, Followed]:
        """The box of the window, and the face that it is about.

        Raises:
            Rejected: no face will do.
        """
        face = choose(self.looks, self._faces)
        if not face.seen.any():
            whole = replace(self._geometry, crop=None)
            return whole.box(*self._size, self._upright.pixel_aspect), face
        return self._box(face.boxes), face

    def _all_views(self, shown: Size) -> list[_View]:
        scalers, views = {}, {}
        for longest, (left, top, right, bottom) in self._detect.views(max(shown)):
            w, h = size = shrunk(*shown, round(longest))
            if size not in scalers:
                scalers[size] = self._upright.scaler(self._upright.whole, *size, "bgr24")
            part = round(left * w), round(top * h), round(right * w), round(bottom * h)
            views[size, part] = _View(size, scalers[size], part)
        return list(views.values())

    def _look(self, time: float, frame: av.VideoFrame) -> Look | None:
        """What is found in a frame; None if nothing may be spent on it."""
        must = not any(look.whole or len(look.faces) for look in self.looks)
        look = None
        if self._last is not None:
            look = self._follow(time, frame, must, *self._last)
            if look is not None and len(look.faces):
                return look
        n = self._next if must else self._due()
        if n is None:
            return look
        self._next = (n + 1) % len(self._views)
        return self._look_at(n, time, frame)

    def _look_at(self, n: int, time: float, frame: av.VideoFrame) -> Look:
        view = self._views[n]
        return Look(time, self._find(n, frame, view.part), whole=view.part == (0, 0, *view.size))

    def _follow(
        self, time: float, frame: av.VideoFrame, must: bool, n: int, last: Place
    ) -> Look | None:
        """Look for a known face where it was last, or in all of a view if that has been saved."""
        if self._unused >= self._costs[n]:
            look = self._look_at(n, time, frame)
            if not len(look.faces):
                self._last = None
            return look
        near = self._around(n, last)
        if must or self._may_spend(self._cost(near)):
            return Look(time, self._find(n, frame, near), whole=False)
        return None

    def _due(self) -> int | None:
        """The view that is to be searched now, if any."""
        cost = self._costs[self._next]
        if self._may_spend(cost):
            return self._next
        soon = cost <= self._unused + self._to_come()
        return 0 if not soon and self._may_spend(self._costs[0]) else None

    def _to_come(self) -> float:
        """What the rest of the window will earn."""
        return self._earned * (self._n_frames - self._n_seen - 1)

    def _may_spend(self, cost: float) -> bool:
        return cost <= self._unused + min(AHEAD * sum(self._costs), self._to_come())

    def _cost(self, part: Part) -> float:
        left, top, right, bottom = part
        return self._detect.cost(right - left, bottom - top) + self._scaling

    def _around(self, n: int, face: Place) -> Part:
        """What is searched around a known face in a view."""
        size = self._views[n].size
        x, y, w, h = face[:4] * np.tile(size, 2) / np.tile(self._size, 2)
        reach = -(-AROUND * max(w, h) // self._detect.step) * self._detect.step / 2
        left, right = np.clip((x + w / 2 - reach, x + w / 2 + reach), 0, size[0])
        top, bottom = np.clip((y + h / 2 - reach, y + h / 2 + reach), 0, size[1])
        return round(left), round(top), round(right), round(bottom)

    def _find(self, n: int, frame: av.VideoFrame, part: Part) -> Detections:
        """The faces in a part of one of the views, in pixels of the upright picture."""
        left, top, right, bottom = part
        self._unused -= self._cost(part)
        picture = self._views[n].scale(frame)[top:bottom, left:right]
        found = self._detect(np.ascontiguousarray(picture))
        found[:, :2] += left, top
        found[:, :4] *= np.tile(self._size, 2) / np.tile(self._views[n].size, 2)
        if len(found):
            self._last = n, max(found, key=lambda face: face[2] * face[3])
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

    def _roomy(self, faces: Detections) -> Box:
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
