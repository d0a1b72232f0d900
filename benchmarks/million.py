"""Measure bookkeeping at a million videos: ``python -m benchmarks.million [N]``.

Only the videos are made up: a CSV file lists them, notes of an earlier run have their probes, and
the index has their clips. Each step runs in its own process and prints seconds and peak memory.
"""

import dataclasses
import hashlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

N = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
STEPS = ("listing", "planning", "splitting and indexing", "opening", "reading every row")


def main():
    with tempfile.TemporaryDirectory() as folder:
        write_csv(Path(folder) / "videos.csv")
        for step in STEPS:
            pid = os.fork()
            if pid == 0:
                run(step, Path(folder))
                os._exit(0)
            os.waitpid(pid, 0)
        index = Path(folder) / "cache" / "index.h5"
        print(f"the index has {index.stat().st_size / 1e6:.0f} MB")


def run(step, folder):
    from data.clips import made_up_clip
    from pipeline.cache import Cache, Shard, write_index
    from pipeline.cache.in_progress import CacheInProgress
    from pipeline.corpus.reading import read_corpus
    from pipeline.extraction.extract_corpus import STAGE
    from pipeline.extraction.selection import select
    from pipeline.extraction.shard_tasks import assign_to_shards, plan_shards
    from pipeline.settings import Settings
    from pipeline.splits.protocols import split_clips
    from pipeline.video.probe import Probe
    from pipeline.workers.local import LocalPool

    settings = Settings(frames=100)
    cache = folder / "cache"
    begin = time.perf_counter()
    if step == "listing":
        videos = read_corpus([folder / "videos.csv"])
    elif step == "planning":
        videos = read_corpus([folder / "videos.csv"])
        with CacheInProgress(cache, {}) as work:
            for video in videos:
                work.remember(str(video.path), {"stamp": [0, 0], "probe": probe_of(video, Probe)})
        begin = time.perf_counter()
        with CacheInProgress(cache, {}) as work:
            selection = select(videos, work, settings, LocalPool(1))
            shards = assign_to_shards(selection.usable, settings)
            size = settings.videos_per_shard(N)
            plan = plan_shards(shards, size, selection.n_frames, work, settings)
        assert sum(map(len, plan.values())) == N
    elif step == "splitting and indexing":
        videos = read_corpus([folder / "videos.csv"])
        size = settings.videos_per_shard(N)
        begin = time.perf_counter()
        clips = [
            made_up_clip(
                n,
                video.label,
                "",
                identities=video.identities,
                shard=f"shards/{n // size:05}.h5",
                n_frames=100,
                source=video.source,
            )
            for n, video in enumerate(videos)
        ]
        clips = split_clips(clips, settings.splitting)
        shards = [Shard(f"shards/{n:05}.h5", 1, "0" * 64) for n in range(-(-N // size))]
        everything = dataclasses.asdict(settings)
        write_index(cache, stage=STAGE, settings=everything, attrs={}, clips=clips, shards=shards)
    else:
        opened = Cache(cache, whole=False)
        if step == "opening":
            assert opened.clips[N // 2].n_frames == 100
        else:
            assert sum(clip.label for clip in opened.clips) == N // 2
    seconds = time.perf_counter() - begin
    status = Path("/proc/self/status").read_text()
    used = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(f"{step:24} {seconds:6.1f} s {used / 1e6:6.0f} MB", flush=True)


def write_csv(path):
    """Write a list with 20 videos of each identity, fakes of pairs."""
    rng = random.Random(0)
    with path.open("w") as file:
        file.write("path,label,identity\n")
        for n in range(N):
            person = rng.randrange(N // 20)
            fake = n % 2
            other = f";id{person ^ 1}" if fake else ""
            file.write(f"part{n // 1000:04}/{n:07}.mp4,{fake},id{person}{other}\n")


def probe_of(video, kind):
    digest = hashlib.sha256(str(video.path).encode()).hexdigest()
    facts = kind(digest, 10**6, 1920, 1080, 25.0, 10.0, 8e5, 250, 250, 250)
    return dataclasses.asdict(facts)


if __name__ == "__main__":
    main()
