"""What a fake changes in a clip, and its frames."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.own_fakes.clip import REACH, Clip, Floats, Ints, Picture
from pipeline.own_fakes.masks import PIXELS_PER_UNIT, SIDE, Canvas, Region

Part = npt.NDArray[np.float32]  # (h, w, 3), RGB, 0..255: the part of a frame that is changed
Mask = npt.NDArray[np.uint8]  # (H, W), 0..255: share of each pixel that is replaced
Look = Callable[[Part, int, Floats], Part]  # of a part, frame number, and head → part, (3, 3)
Field = Callable[[int], npt.NDArray[np.float32]]  # frame number → displacements, (G, G, 2)

IDENTITY = np.eye(3)


@dataclass(frozen=True)
class Change:
    """What is drawn in place of a face; kinds add to it.

    A pixel of frame t is taken to head coordinates by the head's pose, moved there by the motion
    and the fields, and taken to the source frames by their poses, all in one interpolation.
    """

    region: Region = "face"
    share: float = 1.0  # that the mask replaces at most
    motion: Floats | None = None  # (T, 3, 3), drawn → true head coordinates; None: none
    fields: tuple[Field, ...] = ()  # further displacements, in head coordinates
    sources: tuple[tuple[Ints, Floats], ...] = ()  # frames to take, (T,), and weights; (): frame t
    donor: Clip | None = None  # whose frames these are; None: the clip's own
    looks: tuple[Look, ...] = ()  # of the part, one after the other

    def moved(self, motion: Floats) -> "Change":
        """Add a motion, (T, 3, 3)."""
        return replace(self, motion=motion if self.motion is None else self.motion @ motion)

    def displaced(self, more: Field) -> "Change":
        """Add a field of displacements."""
        return replace(self, fields=(*self.fields, more))

    def seen_as(self, look: Look) -> "Change":
        """Add a look."""
        return replace(self, looks=(*self.looks, look))

    def retimed(self, when: Ints) -> "Change":
        """Show at each frame what would have been shown at another, (T,)."""
        sources = self.sources or ((np.arange(len(when)), np.ones(len(when))),)
        return replace(self, sources=tuple((at[when], weight[when]) for at, weight in sources))

    def averaged(self, whens: list[Ints], weights: list[Floats]) -> "Change":
        """Show at each frame a mean of what would have been shown at others, each (T,)."""
        sources = []
        for when, weight in zip(whens, weights, strict=True):
            sources += [(at, w * weight) for at, w in self.retimed(when).sources]
        return replace(self, sources=tuple(sources))


@dataclass
class Renderer:
    """Draws the frames of a fake."""

    clip: Clip
    change: Change
    mask: Canvas  # (SIDE, SIDE), in head coordinates
    _corners: Floats = field(init=False)  # (3, 4), of what the mask covers, in head coordinates

    def __post_init__(self) -> None:
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        x0, x1 = columns[0] / PIXELS_PER_UNIT - REACH, (columns[-1] + 1) / PIXELS_PER_UNIT - REACH
        y0, y1 = rows[0] / PIXELS_PER_UNIT - REACH, (rows[-1] + 1) / PIXELS_PER_UNIT - REACH
        self._corners = np.array([[x0, x1, x0, x1], [y0, y0, y1, y1], [1, 1, 1, 1]])

    def frames(self) -> Iterator[tuple[Picture, Mask]]:
        """Yield each frame and mask."""
        for t in range(len(self.clip)):
            yield self.frame(t)

    def frame(self, t: int) -> tuple[Picture, Mask]:
        """Draw a frame; where the mask is 0 it is the original's."""
        original = self.clip.frames[t]
        height, width = original.shape[:2]
        whole_mask = np.zeros((height, width), np.uint8)
        share = self.change.share * float(self.clip.presence[t])
        x, y = (self.clip.poses[t] @ self._corners)[:2]
        x0, x1 = int(max(0, np.floor(x.min()))), int(min(width, np.ceil(x.max()) + 1))
        y0, y1 = int(max(0, np.floor(y.min()))), int(min(height, np.ceil(y.max()) + 1))
        if share == 0 or x1 - x0 < 2 or y1 - y0 < 2:
            return original, whole_mask
        to_part = _shift(-x0, -y0) @ self.clip.poses[t]  # head → part
        size = (x1 - x0, y1 - y0)
        mask = self._mask(to_part, size, share)
        whole_mask[y0:y1, x0:x1] = mask
        part = self._drawn(t, to_part, size)
        for look in self.change.looks:
            part = look(part.astype(np.float32, copy=False), t, to_part)
        if part.dtype != np.uint8:
            part = cv2.add(part, 0.0, dtype=cv2.CV_8U)  # rounded and clipped
        picture = original.copy()
        picture[y0:y1, x0:x1] = _blended(part, original[y0:y1, x0:x1], mask)
        return picture, whole_mask

    def _mask(self, to_part: Floats, size: tuple[int, int], share: float) -> Mask:
        if self.change.region == "whole":
            return np.full((size[1], size[0]), round(255 * share), np.uint8)
        from_canvas = to_part @ _from_grid(SIDE)
        mask = cv2.warpAffine(self.mask, from_canvas[:2], size, flags=cv2.INTER_LINEAR)
        return np.rint(mask * (255 * share)).astype(np.uint8)

    def _drawn(self, t: int, to_part: Floats, size: tuple[int, int]) -> Any:
        """Take a part from the source frames, (h, w, 3) uint8 or float32."""
        change, source = self.change, self.change.donor or self.clip
        motion = IDENTITY if change.motion is None else change.motion[t]
        moved = motion @ np.linalg.inv(to_part)  # part → head, as drawn
        displaced = self._displacement(t, to_part, size) if change.fields else None
        how = cv2.INTER_LINEAR if change.region == "whole" else cv2.INTER_CUBIC
        weights: dict[int, float] = {}  # by frame
        for at, weight in change.sources:
            weights[int(at[t])] = weights.get(int(at[t]), 0.0) + float(weight[t])
        total: Any = None
        for n, share in (weights or {t: 1.0}).items():
            pose = source.poses[n]
            taken = _taken(source.frames[n], pose @ moved, pose, displaced, size, how)
            if share == 1:
                return taken
            taken = taken * np.float32(share)
            total = taken if total is None else total + taken
        return total

    def _displacement(self, t: int, to_part: Floats, size: tuple[int, int]) -> Any:
        """Return the sum of all fields at the part's pixels, (h, w, 2), in head coordinates."""
        total = np.sum([one(t) for one in self.change.fields], axis=0)  # (G, G, 2)
        from_grid = to_part @ _from_grid(len(total))
        return cv2.warpAffine(
            total,
            from_grid[:2],
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )


def _taken(
    frame: Picture, from_part: Floats, pose: Floats, displaced: Any, size: tuple[int, int], how: int
) -> Any:
    """Interpolate a part of the given size in a frame; ``displaced`` is in head coordinates."""
    if displaced is None:
        return cv2.warpAffine(
            frame,
            from_part[:2],
            size,
            flags=how | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    width, height = size
    places = cv2.transform(displaced, pose[:2, :2].astype(np.float32))  # (h, w, 2), px
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    for axis in (0, 1):
        a, b, c = from_part[axis].astype(np.float32)
        places[..., axis] += (a * x + c) + (b * y)[:, None]
    return cv2.remap(frame, places, None, how, borderMode=cv2.BORDER_REPLICATE)


def _blended(part: Any, original: Picture, mask: Mask) -> Any:
    if mask.min() == 255:
        return part
    weight = mask * np.float32(1 / 255)
    return cv2.blendLinear(part, np.ascontiguousarray(original), weight, 1 - weight)


def _shift(x: float, y: float) -> Floats:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _from_grid(n: int) -> Floats:
    """Return the map from the indices of a grid over head coordinates, (n, n), to these."""
    step = 2 * REACH / n
    return np.array([[step, 0, step / 2 - REACH], [0, step, step / 2 - REACH], [0, 0, 1]])
