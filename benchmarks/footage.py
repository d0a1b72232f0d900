"""Is the same footage recognised? Run ``python -m benchmarks.footage FOLDER``.

Encodes every video below a folder again in several ways and asks `pipeline.video.fingerprint` which
of all these files show the same recording: how many pairs are found, per way of encoding, and how
many different recordings are mistaken for each other. Then times it on many clips.
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
from pipeline.video.fingerprint import MOST, SIZE, Thumbnails, perceptual_hashes, same_footage
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
    "MPEG-4": {"codec": "mpeg4"},
    "15 frames/s": {"crf": 28, "fps": 15},
    "brighter": {"crf": 28, "brighter": 20},
}


def pictures_of(path):
    clip = []
    try:
        for timed in itertools.islice(decode(path, GEOMETRY, probe(path).fps), 200):
            clip.append(timed)
    except Rejected:
        pass
    times, _, whole = zip(*clip, strict=True)
    small = Thumbnails()
    small.add(np.stack(whole), np.array(times))
    return small.pictures()


def encode_again(path, to, *, codec="libx264", crf=None, scale=1.0, fps=None, brighter=0):
    _, frames, _ = zip(*decode(path, Geometry(*upright(path), None), probe(path).fps), strict=True)
    rate = probe(path).fps
    if fps:
        frames, rate = frames[:: max(round(rate / fps), 1)], rate / max(round(rate / fps), 1)
    height, width = (int(side * scale) // 2 * 2 for side in frames[0].shape[:2])
    with av.open(str(to), "w") as container:
        options = {"crf": str(crf), "preset": "veryfast"} if crf else {}
        stream = container.add_stream(codec, rate=round(rate), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            small = np.clip(small.astype(int) + brighter, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(small, format="rgb24")))
        container.mux(stream.encode())


def upright(path):
    found = probe(path)
    return found.width // 2 * 2, found.height // 2 * 2


def on_real_clips(folder):
    clips, names = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for path in filter(looks_like_video, sorted(folder.rglob("*"))):
            try:
                original = pictures_of(path)
                copies = []
                for way, options in WAYS.items():
                    to = Path(temporary) / f"{path.stem}.mp4"
                    encode_again(path, to, **options)
                    copies.append((way, pictures_of(to)))
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
        found = len(originals) - len(missed)
        more = f"; not: {', '.join(missed)}" if missed else ""
        print(f"  {way:14} {found} of {len(originals)} recognised{more}")
    mistaken = [
        (a, b) for a, b in itertools.combinations(originals, 2) if number[a, ""] == number[b, ""]
    ]
    pairs = len(originals) * (len(originals) - 1) // 2
    print(f"taken for the same recording: {len(mistaken)} of {pairs} pairs", *mistaken)


def on_many(n):
    """N clips of n // 10 recordings of nothing in particular."""
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (n // 10, MOST, 4, 4)).astype(np.uint8)
    clips = [np.stack([cv2.resize(p, (SIZE, SIZE)) for p in scene]) for scene in scenes] * 10
    start = time.perf_counter()
    found = len(
        set(same_footage([perceptual_hashes(clip) for clip in clips], clips.__getitem__).tolist())
    )
    print(f"{n} clips: {time.perf_counter() - start:.1f} s, {found} recordings of {n // 10}")


if __name__ == "__main__":
    on_real_clips(Path(sys.argv[1]))
    on_many(10_000)
    on_many(30_000)
