"""How good is a partition? Run ``python -m benchmarks.partition``.

1. On corpora with the structure of DFD (28 actors, 363 real videos, 3,068 fakes, each of an ordered
   pair of actors): the share of fakes that is kept, against cuts that deal the actors out at
   random. The pairs of actors are not published as a list, so several ways of pairing are tried.
2. On corpora small enough to try every cut: the distance of the loss from the optimum.
3. The time that 100,000 videos take.
"""

import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence

from pipeline.splits.partition import partition

Corpus = tuple[list[frozenset[str]], list[int]]
ACTORS, REAL, FAKES = 28, 363, 3068


def dfd(partners: int, seed: int) -> Corpus:
    """Make a corpus in which every actor is the target of ``partners`` others."""
    rng = random.Random(seed)
    pairs = [
        (target, source)
        for target in range(ACTORS)
        for source in rng.sample([a for a in range(ACTORS) if a != target], partners)
    ]
    group_keys = [frozenset({f"actor{i % ACTORS}"}) for i in range(REAL)]
    group_keys += [frozenset(f"actor{a}" for a in pairs[i % len(pairs)]) for i in range(FAKES)]
    return group_keys, [0] * REAL + [1] * FAKES


def deal_actors(
    group_keys: Sequence[frozenset[str]], sizes: Sequence[int], seed: int
) -> list[str | None]:
    """Cut naively: ``sizes`` random actors for train, val and test."""
    actors = random.Random(seed).sample(range(ACTORS), ACTORS)
    names = ("train", "val", "test")
    side = {}
    for name, size in zip(names, sizes, strict=True):
        side |= {f"actor{actors.pop()}": name for _ in range(size)}
    return splits_of(group_keys, side)


def splits_of(group_keys: Sequence[frozenset[str]], side: dict[str, str]) -> list[str | None]:
    """Return each video's split from the side of each key, None where it straddles."""
    sides_of_videos = [{side[key] for key in keys} for keys in group_keys]
    return [sides.pop() if len(sides) == 1 else None for sides in sides_of_videos]


def share_kept(splits: Sequence[str | None]) -> float:
    return sum(s is not None for s in splits[REAL:]) / FAKES


def shares(splits: Sequence[str | None], rows: slice) -> str:
    counts = Counter(s for s in splits[rows] if s)
    total = sum(counts.values())
    return "/".join(f"{counts[s] / total:.2f}" for s in ("train", "val", "test"))


def on_dfd() -> None:
    for sizes, fractions in [
        ((22, 0, 6), (0.0, 0.2)),
        ((18, 5, 5), (0.1, 0.1)),
        ((18, 5, 5), (5 / 28, 5 / 28)),
    ]:
        print(f"actors dealt out {sizes}; ours asked for val {fractions[0]:.2f}, ", end="")
        print(f"test {fractions[1]:.2f}")
        for partners in (4, 8, 14, 27):
            ours, naive, better, real, fake = [], [], [], "", ""
            for seed in range(5):
                group_keys, labels = dfd(partners, seed)
                val, test = fractions
                splits = partition(group_keys, labels, seed=seed, val=val, test=test, holdout=0)
                ours.append(share_kept(splits))
                cuts = [share_kept(deal_actors(group_keys, sizes, s)) for s in range(200)]
                naive.append(statistics.median(cuts))
                better.append(sum(cut > ours[-1] for cut in cuts) / len(cuts))
                real, fake = shares(splits, slice(REAL)), shares(splits, slice(REAL, None))
            print(
                f"  {partners:2} partners: fakes kept {min(ours):.2f} to {max(ours):.2f}, "
                f"dealt out {min(naive):.2f} to {max(naive):.2f} "
                f"(better than ours: {statistics.mean(better):.1%} of the cuts); "
                f"shares train/val/test of real {real}, of fake {fake}"
            )


def loss(splits: Sequence[str | None], labels: Sequence[int], test: float) -> float:
    """Compute the loss that the partition minimises, for train and test alone."""
    counts, total = Counter(zip(splits, labels, strict=True)), 0.0
    for label in (0, 1):
        train, tested = counts["train", label], counts["test", label]
        n = train + tested
        total += 1.5 * (1 - n / labels.count(label)) + 2 * abs(tested / max(n, 1) - test)
        total += 10 * ((train == 0) + (tested == 0))
    return total


def against_the_optimum(instances: int = 60) -> None:
    gaps = []
    for seed in range(instances):
        rng = random.Random(seed)
        people = [f"p{i}" for i in range(rng.randint(5, 11))]
        group_keys = [frozenset({p}) for p in people for _ in range(3)]
        labels = [0] * len(group_keys) + [1] * 60
        group_keys += [frozenset(rng.sample(people, 2)) for _ in range(60)]
        best = float("inf")
        for sides in itertools.product(("train", "test"), repeat=len(people)):
            splits = splits_of(group_keys, dict(zip(people, sides, strict=True)))
            best = min(best, loss(splits, labels, 0.2))
        gaps.append(loss(partition(group_keys, labels, holdout=0), labels, 0.2) - best)
    optimal = sum(gap < 1e-9 for gap in gaps)
    print(
        f"{instances} corpora of 5 to 11 actors: {optimal} cut as well as can be, "
        f"the worst {max(gaps):.3f} above the least loss"
    )


def hundred_thousand() -> None:
    rng = random.Random(0)
    cases = {
        "nobody known": [frozenset[str]()] * 100_000,
        "pairs": [frozenset({f"c{i // 10}", f"c{i // 10 + i % 2}"}) for i in range(100_000)],
        "500 linked actors": [
            frozenset(f"a{i}" for i in rng.sample(range(500), 2)) for _ in range(100_000)
        ],
    }
    for name, group_keys in cases.items():
        start = time.process_time()
        splits = partition(group_keys, [i % 2 for i in range(100_000)], val=0.1)
        seconds = time.process_time() - start
        lost = sum(s is None for s in splits) / 100_000
        print(f"100,000 videos, {name}: {seconds:.1f} s of CPU, {lost:.1%} dropped")


if __name__ == "__main__":
    on_dfd()
    against_the_optimum()
    hundred_thousand()
