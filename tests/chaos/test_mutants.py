"""A thousand broken videos: no crash, no hang, and each is in the cache or rejected with a reason.

``make chaos`` makes many, ``make test-all`` a few. MUTANTS says how many, SEED which.
"""

import os
import time
from collections import Counter, defaultdict

import pytest

from pipeline.cache import Cache
from tests.chaos.mutants import KINDS, make_mutants
from tests.conftest import make_corpus, run_command

MUTANTS = int(os.environ.get("MUTANTS", "60"))
SEED = int(os.environ.get("SEED", time.time_ns() % 10**6))
REASONS = {
    "crop outside the picture",  # never here; the others are what a broken file may be
    "crashed the decoder",
    "duplicate",
    "frame rate too low",
    "no frame decodes",
    "no video stream",
    "not a video",
    "not to be converted",
    "out of memory",
    "timed out",
    "too large",
    "too long",
    "too short",
    "truncated",
    "unreadable",
}


@pytest.mark.slow
def test_every_mutant_is_used_or_rejected_for_a_reason(tmp_path):
    recipes = make_mutants(tmp_path / "videos", MUTANTS, SEED)
    sound = make_corpus(tmp_path / "videos", (30, 31, 32), (30, 31, 32), size=(96, 72))
    size = ("--size", "64x48", "--frames", "16")
    begin = time.monotonic()
    out = tmp_path / "cache"
    folders = (tmp_path / "videos" / "REAL", tmp_path / "videos" / "FAKE")
    done = run_command("pipeline.extract", *folders, "-o", out, *size, timeout=60 + 5 * MUTANTS)
    seconds = time.monotonic() - begin
    assert done.returncode == 0, f"SEED={SEED} {done.stderr}"
    assert done.stderr == "", f"SEED={SEED}"

    cache = Cache(out)
    used = list(cache.names().values())
    rejected = {row["path"]: row["reason"] for row in cache.rejected()}
    assert sorted([*used, *rejected]) == sorted(map(str, [*recipes, *sound.values()]))
    assert {str(path) for path in sound.values()} <= set(used)
    assert set(rejected.values()) <= REASONS
    assert all(fault == "" for _, fault in cache.verify())

    tally = defaultdict(Counter)
    for path, recipe in recipes.items():
        tally[recipe][rejected.get(str(path), "used")] += 1
    print(f"\n{MUTANTS} mutants of {len(KINDS)} kinds, SEED={SEED}, {seconds:.0f} s")
    for recipe, outcomes in sorted(tally.items()):
        counts = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
        print(f"  {recipe}: {counts}")
    for row in cache.rejected():
        if row["reason"] in ("crashed the decoder", "timed out", "out of memory"):
            print(f"  {row['path']}: {row['reason']} {row['detail']}")
