"""What does each backbone cost here? ``python -m benchmarks.backbones > features/backbones.csv``.

Builds every network of torchvision with random weights and times it on all cores: milliseconds for
a picture of 224x224, or of the size it needs, or for a window of 16 of them. The fastest precision
that is precise enough is used. Names may be given to measure those alone.
"""

import sys
import time

import numpy as np

from features.architectures import NAMES, architecture
from features.backbones import checked, load_backbone

SIDE = 224
ROUNDS = 3
BUDGET = 6.0  # seconds for a round, about


def main():
    print("name,dimension,parameters,milliseconds,precision")
    for name in sys.argv[1:] or NAMES:
        kind = architecture(name)
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 200, (2 * kind.window, 7, 7, 3))
        few = np.kron(coarse, np.ones((1, 32, 32, 1))).astype(np.uint8)
        few += rng.integers(0, 56, few.shape).astype(np.uint8)
        backbone = checked(load_backbone(name, "random:0", "cpu", "auto"), few)
        begin = time.perf_counter()
        backbone.embed(few)
        spent = time.perf_counter() - begin
        many = np.concatenate([few] * max(1, min(8, int(BUDGET / spent))))
        n = len(backbone.rows(len(many)))
        seconds = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            backbone.embed(many)
            seconds.append(time.perf_counter() - begin)
        parameters = sum(p.numel() for p in backbone.module.parameters()) / 1e6
        milliseconds = np.median(seconds) / n * 1e3
        print(
            f"{name},{backbone.dimension},{parameters:.1f},{milliseconds:.1f},{backbone.precision}",
            flush=True,
        )


if __name__ == "__main__":
    main()
