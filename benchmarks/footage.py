"""Is the same footage recognised? Run ``python -m benchmarks.footage FOLDER``.

Re-encodes every video below a folder in several ways, and asks `pipeline.video.fingerprint` which
files show the same recording: how many copies are recognised, by way of encoding, and how many
different recordings are confused. Then times it on many clips.
"""

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
from pipeline.video.decode import decode
from pipeline.video.encode import write_h264
from pipeline.video.fingerprint import (
    MAX_THUMBNAILS,
    THUMBNAIL_SIDE,
    Thumbnails,
    perceptual_hashes,
    same_footage,
)
from pipeline.video.probe import probe
from pipeline.video.resize import Geometry

GEOMETRY = Geometry(224, 224, None)
WAYS = {
    "crf 28": {"crf": 28},
    "crf 40": {"crf": 40},
    "crf 51": {"crf": 51},
    "half the size": {"crf": 30, "scale": 0.5},
    "a quarter": {"crf": 30, "scale": 0.25},
    "enlarged": {"crf": 30, "scale": 1.5},
    "15 frames/s": {"crf": 28, "fps": 15},
    "brighter": {"crf": 28, "brighter": 20},
}


def thumbnails_of(path):
    """The thumbnails of a video's first 200 frames, or of those before its damage."""
    frames = []
    try:
        for frame in itertools.islice(decode(path, GEOMETRY, probe(path).fps), 200):
            frames.append(frame)
    except Rejected:
        pass
    times, _, overviews = zip(*frames, strict=True)
    thumbnails = Thumbnails()
    thumbnails.add(np.stack(overviews), np.array(times))
    return thumbnails.pictures()


def encode_again(path, to, *, crf, scale=1.0, fps=None, brighter=0):
    """Write an H.264 copy at another size, rate or brightness."""
    video = probe(path)
    step = max(round(video.fps / fps), 1) if fps else 1
    geometry = Geometry(video.width // 2 * 2, video.height // 2 * 2)
    width, height = (int(side * scale) // 2 * 2 for side in (geometry.width, geometry.height))

    def changed():
        for _, frame, _ in itertools.islice(decode(path, geometry, video.fps), 0, None, step):
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            yield np.clip(small.astype(int) + brighter, 0, 255).astype(np.uint8)

    write_h264(to, enumerate(changed()), round(video.fps / step), crf=crf)


def on_real_clips(folder):
    clips, names = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for path in filter(looks_like_video, sorted(folder.rglob("*"))):
            try:
                original = thumbnails_of(path)
                copies = []
                for way, options in WAYS.items():
                    to = Path(temporary) / f"{path.stem}.mp4"
                    encode_again(path, to, **options)
                    copies.append((way, thumbnails_of(to)))
            except (Rejected, ValueError, av.error.FFmpegError) as error:
                print(f"left out: {path.name}: {error}")
                continue
            for way, pictures in [("", original), *copies]:
                clips.append(pictures)
                names.append((path.name, way))
    groups = same_footage([perceptual_hashes(clip) for clip in clips], clips.__getitem__)
    number = dict(zip(names, groups.tolist(), strict=True))
    originals = [name for name, way in names if not way]
    print(f"{len(originals)} recordings, each encoded in {len(WAYS)} other ways")
    for way in WAYS:
        missed = [name for name in originals if number[name, way] != number[name, ""]]
        n_recognised = len(originals) - len(missed)
        more = f"; not: {', '.join(missed)}" if missed else ""
        print(f"  {way:14} {n_recognised} of {len(originals)} recognised{more}")
    confused = [
        (a, b) for a, b in itertools.combinations(originals, 2) if number[a, ""] == number[b, ""]
    ]
    pairs = len(originals) * (len(originals) - 1) // 2
    print(f"taken for the same recording: {len(confused)} of {pairs} pairs", *confused)


def on_many(n):
    """Time n clips of n // 10 recordings of noise."""
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (n // 10, MAX_THUMBNAILS, 4, 4)).astype(np.uint8)
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    clips = [np.stack([cv2.resize(p, size) for p in scene]) for scene in scenes] * 10
    start = time.perf_counter()
    groups = same_footage([perceptual_hashes(clip) for clip in clips], clips.__getitem__)
    seconds = time.perf_counter() - start
    print(f"{n} clips: {seconds:.1f} s, {len(set(groups.tolist()))} recordings of {n // 10}")


if __name__ == "__main__":
    on_real_clips(Path(sys.argv[1]))
    on_many(10_000)
    on_many(30_000)
