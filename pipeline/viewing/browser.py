"""The cache browser: one HTML file with clips, rejected files and figures."""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline.cache import Cache, Clip
from pipeline.cache.datacard import caveats
from pipeline.common.files import readable_bytes
from pipeline.common.html_page import jpeg_uri, write_page
from pipeline.corpus.labelled_video import LABEL_NAMES, SPLITS
from pipeline.corpus.tables import identities
from pipeline.viewing.contact_sheet import TILE

MAX_CLIPS = 400  # by default
MAX_IMAGE_BYTES = 17e6  # by default: a page stays below 20 MB
MAX_REJECTED = 2000
MOMENTS_PER_CLIP = 4
MAX_COMMON_VALUES = 4  # before "and N more"
N_SLOWEST = 10
JPEG_QUALITY = 70
_TEMPLATE = Path(__file__).parent / "browser.html"
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Moment:
    """A frame and the flow map from it to the next one, as data URIs."""

    frame: str  # "" in a cache without frames
    flow: str
    seconds: float
    largest: float  # px/frame


@dataclass(frozen=True)
class Card:
    """A clip on the page."""

    clip: Clip
    file: str  # "" if unknown
    moments: list[Moment]
    median: float  # px/frame, of the largest motion per map
    largest: float  # px/frame


@dataclass(frozen=True)
class StoredDataset:
    """Size of a dataset over all clips."""

    name: str
    shape: str  # in the first clip
    dtype: str
    clips: int
    raw: int  # bytes
    stored: int  # bytes


@dataclass(frozen=True)
class Timing:
    """Time of extraction."""

    videos: int
    frames: int
    seconds: float
    ms: tuple[float, float, float]  # per frame: 5%, 50% and 95% quantile of videos
    slowest: list[tuple[str, int, float]]  # file or id, frames, seconds


def write_browser(cache: Cache, path: Path, n_clips: int | None = None) -> str:
    """Write a page of up to ``n_clips``, or below 20 MB; return a line that describes it.

    It shows some of every label, split, source and manipulation, always the same ones.
    """
    cards = _cards(cache, n_clips)
    size = write_page(path, _TEMPLATE, _template_values(cache, cards), {"bytes": readable_bytes})
    return f"{path}: {len(cards)} of {len(cache.clips)} clips, {readable_bytes(size)}"


def storage(cache: Cache) -> list[StoredDataset]:
    """Return the datasets, the largest first."""
    clips, raw, stored = Counter[str](), Counter[str](), Counter[str]()
    types: dict[str, tuple[str, str]] = {}
    for clip in tqdm(cache.clips, desc="sizes", unit="clip", disable=None):
        for name, (shape, dtype, size) in cache.datasets(clip).items():
            types.setdefault(name, ("x".join(map(str, shape)), str(dtype)))
            clips[name] += 1
            raw[name] += int(np.prod(shape)) * dtype.itemsize
            stored[name] += size
    return [
        StoredDataset(name, *types[name], clips[name], raw[name], n)
        for name, n in stored.most_common()
    ]


def timing(cache: Cache) -> Timing | None:
    """Return the time of extraction, or None if it was not recorded."""
    recorded, names = cache.timing(), cache.names()
    if not recorded:
        return None
    frames, seconds = np.array(list(recorded.values())).T
    low, median, high = np.quantile(seconds / np.maximum(frames, 1) * 1e3, (0.05, 0.5, 0.95))
    slowest = heapq.nlargest(N_SLOWEST, recorded.items(), key=lambda item: item[1][1])
    return Timing(
        len(recorded),
        int(frames.sum()),
        float(seconds.sum()),
        (float(low), float(median), float(high)),
        [(names.get(video, video), *frames_seconds) for video, frames_seconds in slowest],
    )


def some_of_each(
    items: Iterable[_Item], kind: Callable[[_Item], Hashable], n: int
) -> list[tuple[int, _Item]]:
    """Choose n items with their indices: the first of each kind, then the second, and so on."""

    def turns() -> Iterator[tuple[int, int, _Item]]:
        seen = Counter[Hashable]()
        for index, item in enumerate(items):
            seen[kind(item)] += 1
            yield seen[kind(item)], index, item

    chosen = heapq.nsmallest(n, turns(), key=lambda turn: turn[:2])
    return [(index, item) for _, index, item in chosen]


def _cards(cache: Cache, n_clips: int | None) -> list[Card]:
    def kind(clip: Clip) -> Hashable:
        return clip.label, clip.split, clip.source, clip.manipulation

    chosen = some_of_each(cache.clips, kind, n_clips or MAX_CLIPS)
    names = cache.names()
    cards, size = {}, 0
    for index, clip in tqdm(chosen, desc="pictures", unit="clip", disable=None):
        card = _card(cache, clip, names.get(clip.video, ""))
        size += sum(len(moment.frame) + len(moment.flow) for moment in card.moments)
        if n_clips is None and size > MAX_IMAGE_BYTES:
            break
        cards[index] = card
    return [cards[index] for index in sorted(cards)]


def _card(cache: Cache, clip: Clip, file: str) -> Card:
    times = cache.read(clip, "timestamps")  # (T,)
    largest = cache.read(clip, "flow_range")[:, 1]  # (T-1,)
    has_frames = "frames" in cache.datasets(clip)
    moments = []
    for at in np.unique(np.linspace(0, len(largest) - 1, MOMENTS_PER_CLIP).astype(int)).tolist():
        row = slice(at, at + 1)
        frame = _jpeg(cache.read(clip, "frames", row)[0]) if has_frames else ""
        flow = _jpeg(cache.read(clip, "flow", row)[0])
        moments.append(Moment(frame, flow, float(times[at]), float(largest[at])))
    return Card(clip, file, moments, float(np.median(largest)), float(largest.max()))


def _jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    size = _tile_size(*pixels.shape[:2])
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return jpeg_uri(np.asarray(small, np.uint8), JPEG_QUALITY)


def _tile_size(height: int, width: int) -> tuple[int, int]:
    scale = TILE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _template_values(cache: Cache, cards: list[Card]) -> dict[str, Any]:
    rejected = cache.rejected()
    some = some_of_each(rejected, lambda row: row["reason"], MAX_REJECTED)
    listed = [row for _, row in sorted(some, key=lambda indexed: indexed[0])]
    width, height = _tile_size(cache.settings["height"], cache.settings["width"])
    return {
        "name": cache.folder.resolve().name,
        "cards": cards,
        "n_clips": len(cache.clips),
        "labels": LABEL_NAMES,
        "tile": {"width": width, "height": height},
        "moments": MOMENTS_PER_CLIP,
        "figures": _figures(cache),
        "caveats": caveats(cache.clips, cache.settings),
        "splits": _splits(cache),
        "filters": _filters(cards),
        "rejected": listed,
        "n_rejected": len(rejected),
        "reasons": Counter(row["reason"] for row in rejected).most_common(),
        "listed_reasons": Counter(row["reason"] for row in listed),
        "storage": storage(cache),
        "timing": timing(cache),
        "on_disk": sum(shard.n_bytes for shard in cache.shards),
        "settings": json.dumps(cache.settings, indent=1),
    }


def _figures(cache: Cache) -> dict[str, str]:
    clips, settings, attrs = cache.clips, cache.settings, cache.attrs
    videos = len({clip.video for clip in clips})
    fps = settings["fps"]
    stored = sum(shard.n_bytes for shard in cache.shards)
    return {
        "clips": f"{len(clips)} of {videos} videos, {len(identities(clips))} identities",
        "frames of each (T)": str(attrs["frames"]),
        "size of each": f"{settings['width']}x{settings['height']} pixels",
        "sampled at": f"{fps:g} frames/s" if fps else "the rate of each video",
        "rates of videos (clips)": _common((f"{c.fps:.4g}" for c in clips), " frames/s"),
        "sizes of videos (clips)": _common(f"{c.width}x{c.height}" for c in clips),
        "flow": f"Farneback, backend {attrs['flow_backend']}",
        "on disk": f"{readable_bytes(stored)} in {len(cache.shards)} shards",
        "versions": ", ".join(f"{k} {v}" for k, v in json.loads(attrs["versions"]).items()),
        "sha256 of the index": cache.sha256,
    }


def _common(values: Iterable[str], unit: str = "") -> str:
    """Return the most common values: ``25 frames/s (9), 30 frames/s (2)``."""
    counted = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{value}{unit} ({n})" for value, n in counted[:MAX_COMMON_VALUES]]
    more = len(counted) - MAX_COMMON_VALUES
    return ", ".join(listed) + (f" and {more} more" if more > 0 else "")


def _splits(cache: Cache) -> list[tuple[str, int, int]]:
    """Return splits with their numbers of real and fake clips."""
    counted = Counter((clip.split, clip.label) for clip in cache.clips)
    rows = [(split, counted[split, 0], counted[split, 1]) for split in (*SPLITS, "")]
    return [row for row in rows if row[1] or row[2]]


def _filters(cards: list[Card]) -> dict[str, dict[str, int]]:
    """Return column → value → number of shown clips."""
    columns = {
        "label": Counter(LABEL_NAMES[card.clip.label] for card in cards),
        "split": Counter(card.clip.split for card in cards),
        "source": Counter(card.clip.source for card in cards),
        "manipulation": Counter(card.clip.manipulation for card in cards),
    }
    return {name: dict(sorted(counted.items())) for name, counted in columns.items()}
