"""How good is a partition? Run ``python -m benchmarks.partition``.

Compares the fakes that are kept of corpora like DFD with those of actors dealt out at random; the
pairs of DFD are not published, so several ways of pairing are tried. Then times 100,000 videos.
``tests/pipeline/splits/test_partition.py`` compares small corpora with the best of all cuts.
"""

import random
import statistics
import time
from collections import Counter

from pipeline.splits.partition import partition

ACTORS, REAL, FAKES = 28, 363, 3068
LABELS = [0] * REAL + [1] * FAKES


def dfd(partners, seed):
    """Return the group keys of a corpus in which every actor is the target of some others."""
    rng = random.Random(seed)
    pairs = [
        (target, source)
        for target in range(ACTORS)
        for source in rng.sample([a for a in range(ACTORS) if a != target], partners)
    ]
    return [{i % ACTORS} for i in range(REAL)] + [set(pairs[i % len(pairs)]) for i in range(FAKES)]


def share_dealt(group_keys, sizes, seed):
    """Return the share of fakes that is kept if actors are dealt out to sides of these sizes."""
    sides = [side for side, size in enumerate(sizes) for _ in range(size)]
    random.Random(seed).shuffle(sides)
    return sum(len({sides[a] for a in actors}) == 1 for actors in group_keys[REAL:]) / FAKES


def on_dfd():
    for sizes, val, test in [
        ((22, 0, 6), 0.0, 0.2),
        ((18, 5, 5), 0.1, 0.1),
        ((18, 5, 5), 5 / 28, 5 / 28),
    ]:
        print(f"asked for val {val:.2f}, test {test:.2f}; actors dealt out {sizes}")
        for partners in (4, 8, 14, 27):
            ours, dealt = [], []
            for seed in range(5):
                group_keys = dfd(partners, seed)
                named = [{f"actor{a}" for a in actors} for actors in group_keys]
                splits = partition(named, LABELS, seed=seed, val=val, test=test, holdout=0)
                counts = Counter(split for split in splits[REAL:] if split)
                ours.append(counts.total() / FAKES)
                deals = [share_dealt(group_keys, sizes, s) for s in range(200)]
                dealt.append(statistics.median(deals))
            shares = [f"{counts[s] / counts.total():.2f}" for s in ("train", "val", "test")]
            print(
                f"  {partners:2} partners: fakes kept {min(ours):.2f} to {max(ours):.2f}, dealt "
                f"out {min(dealt):.2f} to {max(dealt):.2f}; train/val/test {'/'.join(shares)}"
            )


def hundred_thousand():
    rng = random.Random(0)
    n = 100_000
    for name, group_keys in {
        "nobody known": [()] * n,
        "pairs": [{f"c{i // 10}", f"c{i // 10 + i % 2}"} for i in range(n)],
        "500 linked actors": [{f"a{i}" for i in rng.sample(range(500), 2)} for _ in range(n)],
    }.items():
        start = time.process_time()
        splits = partition(group_keys, [i % 2 for i in range(n)], val=0.1)
        seconds = time.process_time() - start
        dropped = splits.count(None) / n
        print(f"100,000 videos, {name}: {seconds:.1f} s of CPU, {dropped:.1%} dropped")


if __name__ == "__main__":
    on_dfd()
    hundred_thousand()
