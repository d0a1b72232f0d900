"""Finding the face of a clip while its frames are decoded, in a fifth of the time that takes."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from pipeline.faces.detection import Detections, detector_of
from pipeline.faces.following import Followed, Look, choose
from pipeline.faces.policy import FaceCrop, steady_box
from pipeline.scaling import Box, Geometry, Upright, shrunk

COARSE, LARGEST = 0.25, 640  # of the picture's size and pixels at most, where faces are looked for
SHARE = 0.2  # of the time to decode that finding faces may take,
AHEAD = 2  # and looks at all of the picture, in all sizes, that it may be ahead of that
AROUND = 3.0  # sizes of a known face in which it is looked for where nothing is left
ROOM = 0.5  # sizes of the first box that are kept around it, for a face that moves on
GRID = 16  # pixels: what is kept begins and ends on whole samples of colour


class Search:
    """Looks for faces in the frames of one window after the other.

    Finding faces may take `SHARE` of the time that decoding takes. Time is counted in pixels, so
    that a video gives the same looks on any machine. Where that is used up, a face is looked for
    around the place where it was last, and if it is not there, in all of the picture less often.

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
        longest = round(min(max(COARSE * max(shown), self._detect.smallest), LARGEST))
        sizes = dict.fromkeys(shrunk(*shown, n * longest) for n in self._detect.zooms)
        self._scalers = [(size, upright.scaler(upright.whole, *size, "bgr24")) for size in sizes]
        self.overview = upright.scaler(upright.whole, *upright.overview_size(), "gray")
        self._unused = 0.0  # pixels that could be decoded in the time that is left for finding
        self._ahead = AHEAD * sum(self._detect.cost(*size) for size in sizes)
        self._last: tuple[int, npt.NDArray[np.float64]] | None = None  # at which size, and where
        self.start(1)

    def start(self, every: int) -> None:
        """Begin with another window: its first frame is looked at, then one of so many may be."""
        self._every, self._n_seen = every, 0
        self.looks: list[Look] = []
        self.part = self._upright.whole

    def see(self, time: float, frame: av.VideoFrame) -> None:
        """Take notice of a window's next frame; look for faces in it if that is due."""
        self._unused += SHARE * self._size[0] * self._size[1]
        affordable = self._n_seen == 0 or self._unused >= -self._ahead
        followed = any(len(look.faces) for look in self.looks)
        if self._n_seen % self._every == 0 and (affordable or followed):
            faces, whole = self._look(frame, affordable)
            self.looks.append(Look(time, faces, whole))
            if len(faces) and self.part == self._upright.whole:
                self.part = self._roomy(faces)
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

    def _look(self, frame: av.VideoFrame, affordable: bool) -> tuple[Detections, bool]:
        """The faces in a frame, in pixels of the upright picture; whether all of it was seen.

        Args:
            frame: as decoded.
            affordable: whether to search all of it for a face that is not where it was last.
        """
        untried = 0
        if self._last is not None:
            level, last = self._last
            whole = self._unused >= 0
            found = self._find(level, frame, None if whole else last)
            if len(found) or not affordable:
                return found, whole
            untried = level + 1 if whole else 0
        found = np.zeros((0, 5))
        for level in range(untried, len(self._scalers)):
            found = self._find(level, frame)
            if len(found):
                break
        return found, True

    def _find(
        self, level: int, frame: av.VideoFrame, near: npt.NDArray[np.float64] | None = None
    ) -> Detections:
        """The faces in a frame as one of the scalers shows it, or in the part around a place."""
        (width, height), scale = self._scalers[level]
        zoom = np.array([*self._size, *self._size]) / (width, height, width, height)
        picture = scale(frame)
        x, y = 0, 0
        if near is not None:
            x, y, right, bottom = _around(near[:4] / zoom, width, height)
            picture = picture[y:bottom, x:right]
        self._unused -= self._detect.cost(picture.shape[1], picture.shape[0])
        found = self._detect(np.ascontiguousarray(picture))
        found[:, :2] += x, y
        found[:, :4] *= zoom
        if len(found):
            self._last = level, max(found, key=lambda face: face[2] * face[3])
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


def _around(face: npt.NDArray[np.float64], width: int, height: int) -> Box:
    """What lies around a face in a picture of this size: left, top, right and bottom."""
    x, y, w, h = face
    reach = AROUND * max(w, h) / 2
    left, right = np.clip((x + w / 2 - reach, x + w / 2 + reach), 0, width).round().astype(int)
    top, bottom = np.clip((y + h / 2 - reach, y + h / 2 + reach), 0, height).round().astype(int)
    return int(left), int(top), int(right), int(bottom)
