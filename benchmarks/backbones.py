"""Time of each backbone: ``python -m benchmarks.backbones [NAME...] > features/backbones.csv``.

Milliseconds for an image of 224x224, or of the size that a network needs, or for a window of 16,
on all cores in the fastest precision that is precise enough.
"""

import sys
import time

import numpy as np

from features.architectures import NAMES, architecture
from features.backbones import checked, load_backbone

SIDE = 224
ROUNDS = 3
SECONDS_PER_ROUND = 6.0  # about


def main():
    print("name,dimension,parameters,milliseconds,precision")
    for name in sys.argv[1:] or NAMES:
        kind = architecture(name)
        rng = np.random.default_rng(0)
        blocks = rng.integers(0, 200, (2 * kind.window, 7, 7, 3))
        sample = np.kron(blocks, np.ones((1, 32, 32, 1))).astype(np.uint8)
        sample += rng.integers(0, 56, sample.shape).astype(np.uint8)
        backbone = checked(load_backbone(name, "random:0", "cpu", "auto"), sample)
        begin = time.perf_counter()
        backbone.embed(sample)
        elapsed = time.perf_counter() - begin
        images = np.concatenate([sample] * max(1, min(8, int(SECONDS_PER_ROUND / elapsed))))
        n = len(backbone.rows(len(images)))
        seconds = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            backbone.embed(images)
            seconds.append(time.perf_counter() - begin)
        parameters = sum(p.numel() for p in backbone.module.parameters()) / 1e6
        milliseconds = np.median(seconds) / n * 1e3
        print(
            f"{name},{backbone.dimension},{parameters:.1f},{milliseconds:.1f},{backbone.precision}",
            flush=True,
        )


if __name__ == "__main__":
    main()
