"""Where does extraction spend its time? Run ``python -m benchmarks.extract VIDEO...``.

For the first frames of each video, at 224x224 and on one core: milliseconds a frame for probing,
decoding (crop and resize with it), grey pictures, flow, and each kind of compression, with the
bytes that it leaves. Medians of several runs.
"""

import itertools
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from pipeline import farneback
from pipeline.cache import shard_image
from pipeline.decode import Geometry, decode
from pipeline.probe import probe

FRAMES = 100
ROUNDS = 5


def main():
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    cv2.setNumThreads(1)
    backend = farneback.resolve("auto")
    for path in map(Path, sys.argv[1:]):
        runs = [stages(path, backend) for _ in range(ROUNDS)]
        print(f"{path.name}, ms a frame, flow by {backend}:")
        for stage in runs[0]:
            print(f"  {stage:36} {np.median([run[stage] for run in runs]):6.2f}")


def stages(path, backend):
    spent = {}
    clock = time.perf_counter()

    def lap(name):
        nonlocal clock
        now = time.perf_counter()
        spent[name] = (now - clock) * 1e3
        clock = time.perf_counter()

    rate = probe(path).fps
    lap("probe")
    timed = itertools.islice(decode(path, Geometry(224, 224, None), rate), FRAMES)
    times, frames = zip(*timed, strict=True)
    lap("decode")
    frames = np.stack(frames)
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    lap("grey")
    flow, ranges = farneback.magnitude_maps(grey, backend=backend)
    lap("flow")
    arrays = {"frames": frames, "flow": flow, "flow_range": ranges, "timestamps": np.array(times)}
    for compression in ("gzip", "none"):
        image = shard_image({"clip": arrays}, attrs={}, compression=compression)
        lap(f"{compression}, {len(image) / len(frames) / 1e3:.0f} kB a frame")
    return {stage: milliseconds / len(frames) for stage, milliseconds in spent.items()}


if __name__ == "__main__":
    main()
