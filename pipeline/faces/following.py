"""Following one face through a clip: which detections are the same person's."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.common.errors import Rejected
from pipeline.faces.detection import Detections
from pipeline.faces.policy import FaceCrop

NEAR = 1.0  # sizes of the face that it may move between two moments that are looked at
ALIKE = 2.0  # times larger or smaller that it may become meanwhile
BESIDE = 0.5  # another face counts if it is that large, beside the one that is followed,
STAYS = 0.25  # and is there in that share of the moments


@dataclass(frozen=True)
class Look:
    """What was found at one moment.

    Attributes:
        time: in seconds.
        faces: in pixels of the upright picture.
        whole: whether all of the picture was searched; else the surroundings of a known face.
    """

    time: float
    faces: Detections
    whole: bool = True


@dataclass(frozen=True)
class Followed:
    """Where a face was.

    Attributes:
        table: (M, 7) float32, a row for each moment that was looked at: seconds; x, y, width and
            height in pixels of the upright picture, and score of the face, all 0 where it was not
            found; how many faces there were.
    """

    table: npt.NDArray[np.float32]

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Whether the face was found at a moment, (M,)."""
        return self.table[:, 5] > 0

    @property
    def boxes(self) -> npt.NDArray[np.float64]:
        """Where it was found, (n, 4): x, y, width, height."""
        return self.table[self.seen, 1:5].astype(np.float64)

    @property
    def share(self) -> float:
        """Of the moments, those at which it was found."""
        return float(self.seen.mean())

    @property
    def n_faces(self) -> int:
        """The most faces that were seen at one moment."""
        return int(self.table[:, 6].max())

    def at(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Where it was at any times, (n, 4), by linear interpolation; it must have been found."""
        known = self.table[self.seen, 0]
        return np.stack([np.interp(times, known, column) for column in self.boxes.T], axis=1)


@dataclass(eq=False)
class _Track:
    moments: list[int] = field(default_factory=list)
    boxes: list[npt.NDArray[np.float64]] = field(default_factory=list)  # (5,) each

    @property
    def weight(self) -> float:
        """How much it is the clip's subject: its size and score, over all its moments."""
        return float(sum(np.sqrt(box[2] * box[3]) * box[4] for box in self.boxes))

    @property
    def size(self) -> float:
        return float(np.median([np.sqrt(box[2] * box[3]) for box in self.boxes]))


def choose(looks: Sequence[Look], crop: FaceCrop) -> Followed:
    """Follow the faces of a clip, and choose the one that it is about.

    Args:
        looks: what was found at each moment.
        crop: what is to be done with none, with several, and with one that leaves.

    Returns:
        the face with the most size and score over all moments; without any face, if the crop
        allows for that.

    Raises:
        Rejected: ``no face``, ``several faces`` or ``face leaves``.
    """
    table = np.zeros((len(looks), 7), np.float32)
    table[:, 0] = [look.time for look in looks]
    table[:, 6] = [len(look.faces) for look in looks]
    tracks = _tracks([look.faces for look in looks])
    if not tracks:
        if crop.no_face == "reject":
            raise Rejected("no face", f"{crop.detector} looked at {len(looks)} moments")
        return Followed(table)
    chosen = max(tracks, key=lambda track: track.weight)
    n_whole = sum(look.whole for look in looks)
    others = [
        track
        for track in tracks
        if track is not chosen
        and track.size >= BESIDE * chosen.size
        and len(track.moments) >= max(min(2, n_whole), STAYS * n_whole)
    ]
    if others and crop.several == "reject":
        raise Rejected("several faces", f"{len(others) + 1} that stay")
    if len(chosen.moments) < crop.share * len(looks):
        if crop.no_face == "whole":  # a face seen in passing is none
            return Followed(table)
        raise Rejected(
            "face leaves",
            f"found at {len(chosen.moments)} of {len(looks)} moments, {crop.share:.0%} are needed",
        )
    table[chosen.moments, 1:6] = chosen.boxes
    return Followed(table)


def _tracks(found: Sequence[Detections]) -> list[_Track]:
    """Detections by whose they are: each is joined to the nearest face that was there before."""
    tracks: list[_Track] = []
    for moment, faces in enumerate(found):
        free = list(tracks)
        for face in sorted(faces, key=lambda face: -face[4]):
            near = [track for track in free if _continues(track.boxes[-1], face)]
            if near:
                track = min(near, key=lambda track: _distance(track.boxes[-1], face))
                free.remove(track)
            else:
                track = _Track()
                tracks.append(track)
            track.moments.append(moment)
            track.boxes.append(face)
    return tracks


def _continues(before: npt.NDArray[np.float64], face: npt.NDArray[np.float64]) -> bool:
    growth = float(np.sqrt(face[2] * face[3] / (before[2] * before[3])))
    return _distance(before, face) <= NEAR and 1 / ALIKE <= growth <= ALIKE


def _distance(before: npt.NDArray[np.float64], face: npt.NDArray[np.float64]) -> float:
    """Between the middles of two faces, in sizes of the first."""
    apart = (face[:2] + face[2:4] / 2) - (before[:2] + before[2:4] / 2)
    return float(np.hypot(*apart) / max(before[2], before[3]))
