"""Search for the face of a clip while its frames are decoded."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from pipeline.faces.detection import Detections, detector_of
from pipeline.faces.following import FaceTrack, Look, choose
from pipeline.faces.policy import FaceCrop, steady_box
from pipeline.video.resize import Box, Geometry, Upright, shrunk

MAX_SIDE = 480  # pixels, the longer side of a frame that is searched
ROOM = 0.5  # sizes of the first box that are kept on each side, as a face may move on
GRID = 16  # pixels; the part that is kept begins and ends on whole samples of chroma


class Search:
    """Searches frames of one clip for faces, beginning with the first."""

    def __init__(
        self,
        upright: Upright,
        geometry: Geometry,
        faces: FaceCrop,
        model: bytes,
        frames_between_looks: int,
    ) -> None:
        self._upright, self._geometry, self._faces = upright, geometry, faces
        self._detect = detector_of(faces, model)
        self._size = upright.width, upright.height
        shown = shrunk(round(upright.width * upright.pixel_aspect), upright.height, MAX_SIDE)
        self._shrink = upright.scaler(upright.whole, *shown, "bgr24")
        self._enlargement = np.tile(np.divide(self._size, shown), 2)  # (4,)
        self._frames_between_looks = frames_between_looks
        self._n_frames = 0
        self.looks: list[Look] = []
        self.part = upright.whole  # to be kept of the last frame, and of those that follow

    def see(self, time: float, frame: av.VideoFrame) -> None:
        """Take the clip's next frame, and search it if that is due."""
        if self._n_frames % self._frames_between_looks == 0:
            faces = self._detect(np.ascontiguousarray(self._shrink(frame)))
            faces[:, :4] *= self._enlargement
            self.looks.append(Look(time, faces))
            if len(faces) and self.part == self._upright.whole:
                self.part = self._roomy(faces)
        self._n_frames += 1

    def choose(self) -> tuple[Box, FaceTrack]:
        """Return the clip's box and face, or raise `Rejected` if no face meets the policy."""
        face = choose(self.looks, self._faces)
        if not face.seen.any():
            whole = replace(self._geometry, crop=None)
            return whole.box(*self._size, self._upright.pixel_aspect), face
        return self._box(face.boxes), face

    def _box(self, faces: npt.NDArray[np.float64]) -> Box:
        return steady_box(
            faces,
            *self._size,
            margin=self._faces.margin,
            aspect=Fraction(self._geometry.width, self._geometry.height),
            pixel_aspect=self._upright.pixel_aspect,
        )

    def _roomy(self, faces: Detections) -> Box:
        """Return the box of a frame's largest face, with room around it."""
        largest = faces[np.argmax(faces[:, 2] * faces[:, 3])]
        corner, size = np.reshape(self._box(largest[None, :4]), (2, 2))
        room = np.rint(ROOM * size).astype(int)
        first = np.maximum(corner - room, 0) // GRID * GRID
        last = np.minimum(-(-(corner + size + room) // GRID) * GRID, self._size)
        x, y, width, height = np.concatenate([first, last - first]).tolist()
        return x, y, width, height
