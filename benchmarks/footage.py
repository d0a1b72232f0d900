"""Is the same footage recognised? Run ``python -m benchmarks.footage FOLDER``.

Encodes the start of every video below a folder again in several ways, and counts the copies that
are recognised and the recordings that are confused. Then times the comparison of many clips.
"""

import contextlib
import itertools
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.common.errors import Rejected
from pipeline.corpus.labelled_video import looks_like_video
from pipeline.video.decode import sampled, scaled_frames
from pipeline.video.encode import write_h264
from pipeline.video.fingerprint import (
    MAX_THUMBNAILS,
    THUMBNAIL_SIDE,
    ThumbnailCollector,
    perceptual_hashes,
    same_footage,
)
from pipeline.video.probe import probe
from pipeline.video.resize import Geometry

N_FRAMES = 200
WAYS = {  # constant rate factor, scale, step from frame to frame, grey levels added
    "crf 28": (28, 1, 1, 0),
    "crf 40": (40, 1, 1, 0),
    "crf 51": (51, 1, 1, 0),
    "half the size": (30, 0.5, 1, 0),
    "a quarter": (30, 0.25, 1, 0),
    "enlarged": (30, 1.5, 1, 0),
    "half the rate": (28, 1, 2, 0),
    "brighter": (28, 1, 1, 20),
}


def read(path, geometry):
    """Yield a video's first frames, or those before its damage."""
    with contextlib.suppress(Rejected), sampled(path, probe(path).fps) as (upright, frames):
        yield from scaled_frames(upright, itertools.islice(frames, N_FRAMES), geometry)


def thumbnails_of(path):
    times, _, overviews = zip(*read(path, Geometry()), strict=True)
    collector = ThumbnailCollector()
    collector.add(np.stack(overviews), np.array(times))
    return collector.collected()


def encode_again(path, to, crf, scale, step, brighter):
    video = probe(path)
    geometry = Geometry(video.width // 2 * 2, video.height // 2 * 2)
    size = [int(side * scale) // 2 * 2 for side in (geometry.width, geometry.height)]
    frames = (
        cv2.add(cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA), (brighter,) * 4)
        for frame in itertools.islice(read(path, geometry), 0, None, step)
    )
    write_h264(to, enumerate(frames), round(video.fps / step), crf=crf)
    return to


def groups_of(clips):
    return same_footage([perceptual_hashes(clip) for clip in clips], clips.__getitem__).tolist()


def on_real_clips(folder):
    clips = {}
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, "copy.mp4")
        for path in filter(looks_like_video, sorted(folder.rglob("*"))):
            try:
                copies = {
                    (path.name, way): thumbnails_of(encode_again(path, copy, *options))
                    for way, options in WAYS.items()
                }
                clips |= {(path.name, ""): thumbnails_of(path)} | copies
            except (Rejected, ValueError, av.error.FFmpegError) as error:
                print(f"left out: {path.name}: {error}")
    group = dict(zip(clips, groups_of(list(clips.values())), strict=True))
    originals = {name: clip for (name, way), clip in clips.items() if not way}
    names = list(originals)
    for way in WAYS:
        missed = [name for name in names if group[name, way] != group[name, ""]]
        print(f"  {way:14} {len(names) - len(missed)} of {len(names)} recognised; not:", *missed)
    group = dict(zip(names, groups_of(list(originals.values())), strict=True))
    pairs = list(itertools.combinations(names, 2))
    confused = [(a, b) for a, b in pairs if group[a] == group[b]]
    print(f"taken for the same recording: {len(confused)} of {len(pairs)} pairs", *confused)


def on_many(n):
    """Time n clips of n // 10 recordings of noise."""
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (n // 10, MAX_THUMBNAILS, 4, 4)).astype(np.uint8)
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    clips = [np.stack([cv2.resize(p, size) for p in scene]) for scene in scenes] * 10
    start = time.perf_counter()
    n_found = len(set(groups_of(clips)))
    print(f"{n} clips: {time.perf_counter() - start:.1f} s, {n_found} recordings of {n // 10}")


if __name__ == "__main__":
    on_real_clips(Path(sys.argv[1]))
    on_many(10_000)
    on_many(30_000)
