"""What does looking for faces cost? Run ``python -m benchmarks.faces YUNET.onnx VIDEO...``.

For both detectors, on one core: processor time per frame to decode and to look for faces, and in
which videos they find one. ``pipeline.inspect --sheet`` shows whether it is a face.
"""

import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from pipeline.common.errors import Rejected
from pipeline.faces import FaceCrop, Search, find_model, frames_between_looks
from pipeline.video.decode import sampled
from pipeline.video.probe import probe
from pipeline.video.resize import Geometry

ROUNDS = 3


def main():
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    cv2.setNumThreads(1)
    paths = [Path(name) for name in sys.argv[2:]]
    for model in (find_model(sys.argv[1]), find_model("haar")):
        print(f"\n{model.detector}")
        crop = FaceCrop(detector=model.detector, detector_sha256=model.sha256)
        ratios, n_found = [], 0
        for path in paths:
            rounds = [look_through(path, crop, model) for _ in range(ROUNDS)]
            decoding, looking = np.median([seconds for seconds, _ in rounds], axis=0)
            search = rounds[0][1]
            ratios.append(looking / decoding)
            try:
                box, face = search.choose()
                outcome = f"found by {face.share:.0%} of {len(search.looks)} looks, box {box}"
                n_found += 1
            except Rejected as rejected:
                outcome = f"{rejected.reason}, {rejected.detail}"
            print(
                f"  {path.name}: decoding {decoding:.2f} ms a frame, looking {looking:.2f} "
                f"({looking / decoding:.0%}); {outcome}"
            )
        print(
            f"{model.detector}: a face in {n_found} of {len(paths)} videos; looking takes "
            f"{min(ratios):.0%} to {max(ratios):.0%} of decoding, median {np.median(ratios):.0%}"
        )


def look_through(path, crop, model):
    """Milliseconds per frame to decode and to look for faces, and the search of the whole video."""
    rate = probe(path).fps
    seconds = np.zeros(2)
    n_frames = 0
    clock = time.process_time()
    with sampled(path, rate) as (upright, frames):
        search = Search(upright, Geometry(), crop, model.content, frames_between_looks(rate))
        for moment, frame in frames:
            seconds[0] += time.process_time() - clock
            clock = time.process_time()
            search.see(moment, frame)
            seconds[1] += time.process_time() - clock
            clock = time.process_time()
            n_frames += 1
    return 1e3 * seconds / n_frames, search


if __name__ == "__main__":
    main()
