"""What does a crop about a face cost? Run ``python -m benchmarks.faces YUNET.onnx VIDEO...``.

For each video, on one core, for its first frames and both detectors, medians over some rounds:

- milliseconds of processor time a frame to decode, to find faces (scaling included), and to keep
  what is cut out until the box is known, and scale it then;
- extraction with ``--crop face`` against the same without a crop, alternating, both whole:
  decoding, flow, camera, compression;
- in all of the video, cut into clips of 23 frames: how many have a face, and at which share of
  their moments it was found. Whether it is a face, ``pipeline.inspect --sheet`` shows.

The last lines name, for each detector, the video where finding is the largest share of decoding.
"""

import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import h5py
import numpy as np

from pipeline import farneback
from pipeline.cache import writing_shard
from pipeline.common.errors import Rejected
from pipeline.extraction.clips import (
    clip_sources,
    extract_clips,
    frames_between_looks,
    read_metadata,
)
from pipeline.extraction.frame_buffer import FrameBuffer
from pipeline.faces import FaceCrop, Search, find_model
from pipeline.settings import Settings
from pipeline.video.decode import sampled
from pipeline.video.probe import probe
from pipeline.video.resize import Geometry

FRAMES = 300
SIZE = 224
CLIP = 23  # frames
ROUNDS = 5
GEOMETRY = Geometry(SIZE, SIZE)


def main():
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    cv2.setNumThreads(1)
    farneback.resolve("auto")
    models = [find_model(sys.argv[1]), find_model("haar")]
    worst = {model.detector: (0.0, "") for model in models}
    for path in map(Path, sys.argv[2:]):
        video = probe(path)
        n = min(FRAMES, video.n_samples)
        print(f"{path.name}, {video.width}x{video.height}, {video.fps:.3g} frames/s, {n} frames")
        for model in models:
            crop = FaceCrop(detector=model.detector, detector_sha256=model.sha256)
            parts = np.median(
                [stages(path, video.fps, n, crop, model) for _ in range(ROUNDS)], axis=0
            )
            decode, detect, keep = parts
            worst[model.detector] = max(worst[model.detector], (detect / decode, path.name))
            print(
                f"  {model.detector}: decode {decode:.2f} ms a frame, find {detect:.2f} "
                f"({detect / decode:.0%}), keep {keep:.2f} ({keep / decode:.0%})"
            )
            ratios, outcome = [], ""
            for _ in range(ROUNDS):
                plain, _ = whole(path, video.fps, n)
                cropped, outcome = whole(path, video.fps, n, crop, model.content)
                ratios.append(cropped / plain)
            ratio = np.median(ratios)
            print(f"    all of extraction: {ratio:.2f} times that without a crop; {outcome}")
            n_clips, shares, reason = found(path, crop, model)
            at = f"at {np.mean(shares):.0%} of their moments" if shares else reason
            print(f"    a face in {len(shares)} of {n_clips} clips, {at}")
    for detector, (share, name) in worst.items():
        print(f"{detector}: finding takes {share:.0%} of decoding at worst, in {name}")


def stages(path, rate, n, crop, model):
    """Milliseconds a frame to decode, to find faces, to keep and scale what is cut out."""
    clock = time.process_time()
    with sampled(path, rate) as (upright, frames):
        frames = list(itertools.islice(frames, n))
        decoded = time.process_time() - clock
        search = Search(upright, GEOMETRY, crop, model.content, frames_between_looks(rate))
        clock = time.process_time()
        parts = []
        for seen in frames:
            search.see(*seen)
            parts.append(search.part)
        detected = time.process_time() - clock
        with FrameBuffer(upright) as spool:
            look_over = np.zeros((1, 1), np.uint8)
            clock = time.process_time()
            for (moment, frame), part in zip(frames, parts, strict=True):
                spool.add(moment, frame, look_over, part)
            for _ in spool.pictures(parts[-1], SIZE, SIZE):
                pass
            kept = time.process_time() - clock
    return [seconds / len(frames) * 1e3 for seconds in (decoded, detected, kept)]


def found(path, crop, model):
    """Clips with a face, of how many, and at which share of their moments it was found."""
    video = probe(path)
    n_clips = max(1, video.n_samples // CLIP)
    settings = Settings(SIZE, SIZE, crop)
    how = {"rate": video.fps, "n_frames": CLIP, "n_clips": n_clips, "model": model.content}
    try:
        faces = [source.face for source in clip_sources(path, settings, **how)]
    except Rejected as rejected:
        return n_clips, [], str(rejected)
    return n_clips, [face.share for face in faces], ""


def whole(path, rate, n, crop=None, model=b""):
    """Seconds to extract a clip, and what came of it."""
    clock = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            with writing_shard(Path(folder), "shards/00000.h5", attrs={}) as shard:
                settings = Settings(SIZE, SIZE, crop, flow_backend="cpu")
                extract_clips(path, shard, "clip", settings, rate=rate, n_frames=n, model=model)
            with h5py.File(Path(folder, "shards/00000.h5")) as stored:
                clip = read_metadata(stored["clip"])
            outcome = f"box {clip.crop}, found at {clip.face_share:.0%}"
        except Rejected as rejected:
            outcome = str(rejected)
    return time.perf_counter() - clock, outcome


if __name__ == "__main__":
    main()
