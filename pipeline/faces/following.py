"""One face followed through a clip."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.common.errors import Rejected
from pipeline.faces.detection import Detections
from pipeline.faces.policy import FaceCrop

# A face that moves or grows more between two looks is another one:
MAX_SHIFT = 1.0  # in sizes of the face
MAX_GROWTH = 2.0  # ratio of its sizes
# Other faces count only from here on:
MIN_OTHER_SIZE = 0.5  # of the chosen face's
MIN_OTHER_SHARE = 0.25  # of the looks


@dataclass(frozen=True)
class Look:
    """Faces detected in one frame."""

    time: float  # seconds
    faces: Detections  # in pixels of the upright frame


@dataclass(frozen=True)
class FaceTrack:
    """Positions of one face over a clip."""

    # (M, 7), a row per look: seconds; x, y, width, height in pixels of the upright frame and score,
    # all 0 where it was not found; number of faces.
    table: npt.NDArray[np.float32]

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Whether a look found the face, (M,)."""
        return self.table[:, 5] > 0

    @property
    def boxes(self) -> npt.NDArray[np.float64]:
        """Its places, (n, 4)."""
        return self.table[self.seen, 1:5].astype(np.float64)

    @property
    def share(self) -> float:
        """Share of the looks that found it."""
        return float(self.seen.mean())

    @property
    def n_faces(self) -> int:
        """Largest number of faces in one frame."""
        return int(self.table[:, 6].max())

    def at(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Interpolate its place, (n, 4); it must have been found once."""
        seen_at = self.table[self.seen, 0]
        return np.stack([np.interp(times, seen_at, column) for column in self.boxes.T], axis=1)


@dataclass(eq=False)
class _Track:
    looks: list[int] = field(default_factory=list)
    boxes: list[npt.NDArray[np.float64]] = field(default_factory=list)  # (5,) each

    @property
    def weight(self) -> float:
        """Prominence in the clip: size times score, summed over looks."""
        return float(sum(np.sqrt(box[2] * box[3]) * box[4] for box in self.boxes))

    @property
    def size(self) -> float:
        return float(np.median([np.sqrt(box[2] * box[3]) for box in self.boxes]))


def choose(looks: Sequence[Look], crop: FaceCrop) -> FaceTrack:
    """Return the face with the most size and score over all looks, or none if the crop allows it.

    Raises:
        Rejected: ``no face``, ``several faces`` or ``face leaves``.
    """
    table = np.zeros((len(looks), 7), np.float32)
    table[:, 0] = [look.time for look in looks]
    table[:, 6] = [len(look.faces) for look in looks]
    tracks = _tracks(looks)
    if not tracks:
        if crop.no_face == "reject":
            raise Rejected("no face", f"{crop.detector} looked at {len(looks)} moments")
        return FaceTrack(table)
    chosen = max(tracks, key=lambda track: track.weight)
    others = [
        track
        for track in tracks
        if track is not chosen
        and track.size >= MIN_OTHER_SIZE * chosen.size
        and len(track.looks) >= max(min(2, len(looks)), MIN_OTHER_SHARE * len(looks))
    ]
    if others and crop.several == "reject":
        raise Rejected("several faces", f"{len(others) + 1} that stay")
    if len(chosen.looks) < crop.share * len(looks):
        if crop.no_face == "whole":  # a face that only passes counts as none
            return FaceTrack(table)
        raise Rejected(
            "face leaves",
            f"found at {len(chosen.looks)} of {len(looks)} moments, {crop.share:.0%} are needed",
        )
    table[chosen.looks, 1:6] = chosen.boxes
    return FaceTrack(table)


def _tracks(looks: Sequence[Look]) -> list[_Track]:
    """Join each detection to the nearest face before it."""
    tracks: list[_Track] = []
    for n, look in enumerate(looks):
        free = list(tracks)
        for face in sorted(look.faces, key=lambda face: -face[4]):
            near = [track for track in free if _continues(track.boxes[-1], face)]
            if near:
                track = min(near, key=lambda track: _distance(track.boxes[-1], face))
                free.remove(track)
            else:
                track = _Track()
                tracks.append(track)
            track.looks.append(n)
            track.boxes.append(face)
    return tracks


def _continues(before: npt.NDArray[np.float64], face: npt.NDArray[np.float64]) -> bool:
    growth = float(np.sqrt(face[2] * face[3] / (before[2] * before[3])))
    return _distance(before, face) <= MAX_SHIFT and 1 / MAX_GROWTH <= growth <= MAX_GROWTH


def _distance(before: npt.NDArray[np.float64], face: npt.NDArray[np.float64]) -> float:
    """Return the distance between two centres, in sizes of the first face."""
    shift = (face[:2] + face[2:4] / 2) - (before[:2] + before[2:4] / 2)
    return float(np.hypot(*shift) / max(before[2], before[3]))
