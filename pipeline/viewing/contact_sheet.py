"""A contact sheet: for each clip its crop, and frames above their flow maps."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.cache import Cache, Clip
from pipeline.corpus.labelled_video import LABEL_NAMES

TILE = 112  # pixels, larger side of one image
GAP = 4
MAX_OVERVIEW_WIDTH = 224
HEADING_HEIGHT = 22
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _PAPER = (230, 230, 230), 24
_CROP, _FACE = (255, 200, 0), (0, 220, 255)

Image = npt.NDArray[np.uint8]


def contact_sheet(cache: Cache, clips: Sequence[Clip], columns: int = 10) -> Image:
    """Draw clips, each at some moments, as (height, width, 3) uint8 RGB: frames above flow maps.

    On the left is the first whole frame with the crop in yellow and the followed face in blue.
    """
    return np.concatenate([_clip_rows(cache, clip, columns) for clip in clips])


def _clip_rows(cache: Cache, clip: Clip, columns: int) -> Image:
    flow = cache.read(clip, "flow")  # (T-1, H, W)
    times = cache.read(clip, "timestamps")  # (T,)
    range_ = cache.read(clip, "flow_range")  # (T-1, 2)
    moments = np.unique(np.linspace(0, len(flow) - 1, columns).astype(int))
    has_frames = "frames" in cache.datasets(clip)
    scale = TILE / max(flow.shape[1:])
    size = (max(1, round(flow.shape[2] * scale)), max(1, round(flow.shape[1] * scale)))

    def tile(image: npt.NDArray[np.uint8], caption: str) -> Image:
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        small = small if small.ndim == 3 else cv2.cvtColor(small, cv2.COLOR_GRAY2RGB)
        (width, height), _ = cv2.getTextSize(caption, _FONT, 0.33, 1)
        corner = (width + 6, size[1] - height - 7)
        cv2.rectangle(small, (0, size[1]), corner, (_PAPER,) * 3, cv2.FILLED)
        cv2.putText(small, caption, (3, size[1] - 4), _FONT, 0.33, _INK, 1, cv2.LINE_AA)
        return np.pad(small, ((0, GAP), (0, GAP), (0, 0)), constant_values=_PAPER)

    rows = []
    if has_frames:
        frames = [cache.read(clip, "frames", slice(m, m + 1))[0] for m in moments]
        rows.append([tile(f, f"{times[m]:.2f} s") for f, m in zip(frames, moments, strict=True)])
    rows.append([tile(flow[m], f"max {range_[m, 1]:.1f} px") for m in moments])
    body = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    width = (size[0] + GAP) * columns
    body = np.pad(body, ((0, 0), (0, width - body.shape[1]), (0, 0)), constant_values=_PAPER)
    body = np.concatenate([_overview(cache, clip, body.shape[0]), body], axis=1)
    heading = np.full((HEADING_HEIGHT, body.shape[1], 3), _PAPER, np.uint8)
    label = f"{LABEL_NAMES[clip.label]}  {clip.split or 'no split'}  {clip.id}"
    if clip.face_share:
        label += f"  face at {clip.face_share:.0%} of the moments, {clip.n_faces} seen at most"
    elif "faces" in cache.datasets(clip):
        label += "  no face"
    cv2.putText(heading, label, (3, HEADING_HEIGHT - 7), _FONT, 0.42, _INK, 1, cv2.LINE_AA)
    return np.concatenate([heading, body])


def _overview(cache: Cache, clip: Clip, height: int) -> Image:
    """Draw the crop and the face on the first whole frame."""
    grey = cache.read(clip, "overview")  # (h, w)
    scale = min(MAX_OVERVIEW_WIDTH / grey.shape[1], (height - GAP) / grey.shape[0])
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    image = cv2.cvtColor(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    zoom = np.array(size) / (clip.width, clip.height)
    boxes = [(cache.read(clip, "crop"), _CROP)]
    if "faces" in cache.datasets(clip):
        boxes += [(row[1:5], _FACE) for row in cache.read(clip, "faces") if row[5] > 0]
    for box, colour in reversed(boxes):
        first = np.rint(box[:2] * zoom).astype(int).tolist()
        last = (np.rint((box[:2] + box[2:4]) * zoom).astype(int) - 1).tolist()
        cv2.rectangle(image, first, last, colour, 1)
    below, beside = height - size[1], MAX_OVERVIEW_WIDTH + GAP - size[0]
    return np.pad(image, ((0, below), (0, beside), (0, 0)), constant_values=_PAPER)
