"""The cache browser: one HTML file of clips, rejected files and figures, with filters."""

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
from pipeline.common.csv_files import Row
from pipeline.common.files import readable_bytes
from pipeline.common.html_page import jpeg_uri, write_page
from pipeline.corpus.labelled_video import LABEL_NAMES, SPLITS
from pipeline.corpus.tables import identities
from pipeline.viewing.contact_sheet import TILE

CLIPS = 400  # on a page, unless told otherwise
PICTURE_BYTES = 17e6  # then at most, so that a page stays below 20 MB
REJECTED = 2000  # files listed
MOMENTS = 4  # of each clip
COMMON = 4  # values named before "and N more"
SLOWEST = 10  # videos named
QUALITY = 70  # of their JPEGs, of 100
_TEMPLATE = Path(__file__).parent / "browser.html"
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Moment:
    """A frame and the flow map from it to the next one; pictures are data URIs of JPEGs."""

    frame: str  # "" in a cache without frames
    flow: str
    seconds: float  # into the video
    largest: float  # px/frame, what white stands for in the map


@dataclass(frozen=True)
class Card:
    """What the page shows of one clip."""

    clip: Clip
    file: str  # "" if nobody knows
    moments: list[Moment]
    median: float  # px/frame, of the largest motion in each map
    largest: float  # px/frame

    @property
    def size(self) -> int:
        """Bytes of its pictures."""
        return sum(len(moment.frame) + len(moment.flow) for moment in self.moments)


@dataclass(frozen=True)
class Stored:
    """One dataset of all clips."""

    name: str
    shape: str  # in the first clip that has it
    dtype: str
    clips: int
    raw: int  # bytes
    stored: int  # bytes


@dataclass(frozen=True)
class Timing:
    """How long extracting took a process, over the videos of which that is known."""

    videos: int
    frames: int
    seconds: float
    ms: tuple[float, float, float]  # a frame, of videos: the 5% quantile, the median, the 95% one
    slowest: list[tuple[str, int, float]]  # file or id, frames, seconds


def write_browser(cache: Cache, path: Path, n_clips: int | None = None) -> str:
    """Write a page to look through a cache; it needs neither network nor any other file.

    Of a large cache it shows some clips of every label, split, source and manipulation, always
    the same ones.

    Args:
        cache: of the extract stage.
        path: of the HTML file.
        n_clips: how many clips to show at most. None: `CLIPS`, and fewer if the page would not
            stay below 20 MB.

    Returns:
        what was written, in a line.

    Raises:
        IntegrityError: the cache is damaged.
        OSError: the file cannot be written.
    """
    cards = _cards(cache, n_clips)
    size = write_page(path, _TEMPLATE, _shown(cache, cards), {"bytes": readable_bytes})
    return f"{path}: {len(cards)} of {len(cache.clips)} clips, {readable_bytes(size)}"


def storage(cache: Cache) -> list[Stored]:
    """What each dataset takes, over all clips, the largest first."""
    clips, raw, stored = Counter[str](), Counter[str](), Counter[str]()
    kinds: dict[str, tuple[str, str]] = {}
    for clip in tqdm(cache.clips, desc="sizes", unit="clip", disable=None):
        for name, (shape, dtype, size) in cache.datasets(clip).items():
            kinds.setdefault(name, ("x".join(map(str, shape)), str(dtype)))
            clips[name] += 1
            raw[name] += int(np.prod(shape)) * dtype.itemsize
            stored[name] += size
    return [Stored(key, *kinds[key], clips[key], raw[key], n) for key, n in stored.most_common()]


def timing(cache: Cache) -> Timing | None:
    """How long extracting took; None if that is not known of any video."""
    known, names = cache.timing(), cache.names()
    if not known:
        return None
    frames, seconds = np.array(list(known.values())).T
    low, median, high = np.quantile(seconds / np.maximum(frames, 1) * 1e3, (0.05, 0.5, 0.95))
    slowest = heapq.nlargest(SLOWEST, known.items(), key=lambda item: item[1][1])
    return Timing(
        len(known),
        int(frames.sum()),
        float(seconds.sum()),
        (float(low), float(median), float(high)),
        [(names.get(video, video), *its) for video, its in slowest],
    )


def some_of_each(
    items: Iterable[_Item], kind: Callable[[_Item], Hashable], n: int
) -> list[tuple[int, _Item]]:
    """Choose n items: the first of each kind, the second of each, and so on.

    Returns:
        the place of each among all items, and the item; in the order of choice.
    """
    return [(place, item) for _, place, item in heapq.nsmallest(n, _in_turn(items, kind), _turn)]


def _in_turn(
    items: Iterable[_Item], kind: Callable[[_Item], Hashable]
) -> Iterator[tuple[int, int, _Item]]:
    seen = Counter[Hashable]()
    for place, item in enumerate(items):
        seen[kind(item)] += 1
        yield seen[kind(item)], place, item


def _turn(counted: tuple[int, int, Any]) -> tuple[int, int]:
    return counted[:2]


def _cards(cache: Cache, n_clips: int | None) -> list[Card]:
    chosen = some_of_each(cache.clips, _kind, n_clips or CLIPS)
    names = cache.names()
    cards, size = {}, 0
    for place, clip in tqdm(chosen, desc="pictures", unit="clip", disable=None):
        card = _card(cache, clip, names.get(clip.video, ""))
        size += card.size
        if n_clips is None and size > PICTURE_BYTES:
            break
        cards[place] = card
    return [cards[place] for place in sorted(cards)]


def _kind(clip: Clip) -> Hashable:
    return clip.label, clip.split, clip.source, clip.manipulation


def _card(cache: Cache, clip: Clip, file: str) -> Card:
    times = cache.read(clip, "timestamps")  # (T,)
    largest = cache.read(clip, "flow_range")[:, 1]  # (T-1,)
    has_frames = "frames" in cache.datasets(clip)
    moments = []
    for at in np.unique(np.linspace(0, len(largest) - 1, MOMENTS).astype(int)).tolist():
        row = slice(at, at + 1)
        frame = _picture(cache.read(clip, "frames", row)[0]) if has_frames else ""
        flow = _picture(cache.read(clip, "flow", row)[0])
        moments.append(Moment(frame, flow, float(times[at]), float(largest[at])))
    return Card(clip, file, moments, float(np.median(largest)), float(largest.max()))


def _picture(pixels: npt.NDArray[np.uint8]) -> str:
    """A small JPEG of (H, W, 3) RGB or (H, W) grey, as a data URI."""
    size = _tile(*pixels.shape[:2])
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return jpeg_uri(np.asarray(small, np.uint8), QUALITY)


def _tile(height: int, width: int) -> tuple[int, int]:
    """Width and height of a picture on the page."""
    scale = TILE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shown(cache: Cache, cards: list[Card]) -> dict[str, Any]:
    """What the page shows, by the names that it has in the template."""
    rejected = cache.rejected()
    listed = [row for _, row in sorted(some_of_each(rejected, _reason, REJECTED), key=_place)]
    width, height = _tile(cache.settings["height"], cache.settings["width"])
    return {
        "name": cache.folder.resolve().name,
        "cards": cards,
        "n_clips": len(cache.clips),
        "labels": LABEL_NAMES,
        "tile": {"width": width, "height": height},
        "moments": MOMENTS,
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


def _reason(row: Row) -> str:
    return row["reason"]


def _place(placed: tuple[int, Any]) -> int:
    return placed[0]


def _figures(cache: Cache) -> dict[str, str]:
    """What there is to say of the whole cache, by name."""
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
    """``25 frames/s (9), 30 frames/s (2)``: the most common values, with how many have them."""
    counted = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    said = [f"{value}{unit} ({n})" for value, n in counted[:COMMON]]
    more = len(counted) - COMMON
    return ", ".join(said) + (f" and {more} more" if more > 0 else "")


def _splits(cache: Cache) -> list[tuple[str, int, int]]:
    """Each split that there is, with its real and fake clips."""
    counted = Counter((clip.split, clip.label) for clip in cache.clips)
    rows = [(split, counted[split, 0], counted[split, 1]) for split in (*SPLITS, "")]
    return [row for row in rows if row[1] or row[2]]


def _filters(cards: list[Card]) -> dict[str, dict[str, int]]:
    """The values that one can filter by, with how many of the clips shown have each."""
    columns = {
        "label": Counter(LABEL_NAMES[card.clip.label] for card in cards),
        "split": Counter(card.clip.split for card in cards),
        "source": Counter(card.clip.source for card in cards),
        "manipulation": Counter(card.clip.manipulation for card in cards),
    }
    return {name: dict(sorted(counted.items())) for name, counted in columns.items()}
