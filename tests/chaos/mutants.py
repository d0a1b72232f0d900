"""Files that were videos once: flipped bits, lost ranges, lying headers.

``python -m tests.chaos.mutants FOLDER N [SEED]`` writes N of them, half into FOLDER/REAL and half
into FOLDER/FAKE, and FOLDER/recipes.csv, which says what was done to each.
"""

import csv
import os
import struct
import sys
from pathlib import Path

import numpy as np

from tests.conftest import moving_texture, write_video

FRAMES, SIZE = 30, (96, 72)
# codec, ending, pixel format
KINDS = [
    ("libx264", "mp4", "yuv420p"),
    ("libx264", "mkv", "yuv420p"),
    ("libx264", "ts", "yuv420p"),
    ("libx264", "flv", "yuv420p"),
    ("libx264", "h264", "yuv420p"),
    ("libx265", "mp4", "yuv420p"),
    ("mpeg4", "avi", "yuv420p"),
    ("mpeg4", "mov", "yuv420p"),
    ("mpeg2video", "mpg", "yuv420p"),
    ("libvpx", "webm", "yuv420p"),
    ("libvpx-vp9", "webm", "yuv420p"),
    ("libsvtav1", "mp4", "yuv420p"),
    ("mjpeg", "avi", "yuvj420p"),
    ("ffv1", "mkv", "yuv420p"),
    ("prores_ks", "mov", "yuv422p10le"),
    ("qtrle", "mov", "rgb24"),
    ("wmv2", "wmv", "yuv420p"),
    ("flv", "flv", "yuv420p"),
    ("gif", "gif", "rgb8"),
    ("rawvideo", "avi", "yuv420p"),
]
BOXES = (b"moov", b"mdat", b"trak", b"stbl", b"stsd", b"stts", b"stsz", b"stco", b"ftyp", b"tkhd")
PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "url": "https://127.0.0.1/video.mp4\n",
}


def make_mutants(folder, n, seed=0):
    """Write ``n`` files; their recipes by path."""
    rng = np.random.default_rng(seed)
    (folder / "sound").mkdir(parents=True)
    sound = [_sound(folder / "sound", k, kind) for k, kind in enumerate(KINDS)]
    recipes = {}
    for k in range(n):
        path, content = sound[k % len(sound)]
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        changed, recipe = mutation(rng, content, [other for _, other in sound])
        ending = path.suffix
        if mutation is _another_name:
            ending = sound[int(rng.integers(len(sound)))][0].suffix
        out = folder / ("REAL", "FAKE")[k % 2] / f"{k:05}_{path.stem}{ending}"
        out.parent.mkdir(exist_ok=True)
        out.write_bytes(changed)
        recipes[out] = recipe
    for path, _ in sound:
        path.unlink()
    (folder / "sound").rmdir()
    with (folder / "recipes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "recipe"], *recipes.items()])
    return recipes


def _sound(folder, n, kind):
    codec, ending, pix_fmt = kind
    path = folder / f"{codec}.{ending}"
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    write_video(path, moving_texture(FRAMES, *SIZE, seed=n), 25, codec=codec, pix_fmt=pix_fmt)
    # SVT-AV1 makes root's process a real-time one, beside which nothing else gets a processor.
    os.sched_setscheduler(0, policy, priority)
    return path, path.read_bytes()


def _anywhere(rng, content, most=1.0):
    """A range of a file: its beginning and its end."""
    length = int(rng.integers(1, max(2, int(len(content) * most))))
    start = int(rng.integers(0, max(1, len(content) - length)))
    return start, start + length


def _longer(rng, content, others):
    return content + rng.bytes(8), "a few bytes at the end"


def _flipped_bits(rng, content, others):
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 200))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed), "flipped bits"


def _flipped_head(rng, content, others):
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 20))):
        changed[int(rng.integers(min(2000, len(changed))))] ^= 1 << int(rng.integers(8))
    return bytes(changed), "flipped bits in the header"


def _cut_off(rng, content, others):
    return content[: int(rng.integers(0, len(content)))], "cut off"


def _zeroed(rng, content, others):
    start, end = _anywhere(rng, content, 0.3)
    return content[:start] + bytes(end - start) + content[end:], "zeroed range"


def _deleted(rng, content, others):
    start, end = _anywhere(rng, content, 0.3)
    return content[:start] + content[end:], "deleted range"


def _spliced(rng, content, others):
    start, end = _anywhere(rng, content, 0.3)
    other = others[int(rng.integers(len(others)))]
    begin, stop = _anywhere(rng, other, 0.3)
    return content[:start] + other[begin:stop] + content[end:], "spliced in another file"


def _another_name(rng, content, others):
    return content + rng.bytes(8), "another extension"


def _noise_after_head(rng, content, others):
    keep = int(rng.integers(8, 600))
    return content[:keep] + rng.bytes(len(content)), "noise after a sound header"


def _noise(rng, content, others):
    return rng.bytes(int(rng.integers(0, 20_000))), "noise"


def _empty(rng, content, others):
    return b"", "empty"


def _playlist(rng, content, others):
    name = list(PLAYLISTS)[int(rng.integers(len(PLAYLISTS)))]
    return PLAYLISTS[name].encode(), f"a playlist ({name})"


def _lying_box(rng, content, others):
    """MP4: a box of a wrong size."""
    changed = bytearray(content)
    places = [at for box in BOXES if (at := content.find(box)) > 4]
    if not places:
        return _lying_numbers(rng, content, others)
    at = places[int(rng.integers(len(places)))]
    size = (0, 1, 7, 2**31, 2**32 - 1)[int(rng.integers(5))]
    struct.pack_into(">I", changed, at - 4, size)
    return bytes(changed), "lying header: size of a box"


def _lying_numbers(rng, content, others):
    """Sizes, counts and rates that cannot be: 30,000 pixels, 4 billion frames."""
    changed = bytearray(content)
    width, height = SIZE
    lies = [30_000, 65_535, 0, 1]
    done = []
    for pattern in (">HH", "<HH", ">II", "<II"):
        at = content.find(struct.pack(pattern, width, height))
        if at >= 0:
            lie = lies[int(rng.integers(len(lies)))]
            struct.pack_into(pattern, changed, at, lie, lie)
            done.append("picture size")
    for box, offset in ((b"stts", 8), (b"stsz", 8), (b"mdhd", 16), (b"stsc", 8)):
        at = content.find(box)
        if at >= 0 and rng.random() < 0.5:
            struct.pack_into(">I", changed, at + offset, (2**32 - 1, 0, 10**8)[rng.integers(3)])
            done.append("counts")
    if not done:
        return _flipped_head(rng, content, others)
    return bytes(changed), f"lying header: {', '.join(sorted(set(done)))}"


MUTATIONS = [
    _longer,
    _flipped_bits,
    _flipped_bits,
    _flipped_head,
    _cut_off,
    _zeroed,
    _deleted,
    _spliced,
    _another_name,
    _noise_after_head,
    _noise,
    _empty,
    _playlist,
    _lying_box,
    _lying_numbers,
    _lying_numbers,
]

if __name__ == "__main__":
    make_mutants(Path(sys.argv[1]), int(sys.argv[2]), int((sys.argv[3:] or ["0"])[0]))
