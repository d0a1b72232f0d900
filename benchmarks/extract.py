"""Speed and memory of extraction: ``python -m benchmarks.extract VIDEO``.

1. Extraction of a video, enlarged to 1080p H.264, on one core from decoding to the finished shard,
   against

   - a plain OpenCV loop: read, resize to 224x224, Farneback, magnitude, min-max scaling, nothing
     stored;
   - one epoch of a notebook's recipe: write every frame as a full-size JPEG, then read both frames
     of each pair, Farneback at full size, magnitude, resize.

   The three alternate in one process; ratios are medians over neighbouring runs.
2. The command with one and with two processes, if there are two cores.
3. Peak memory of a process that extracts a clip of 100 frames, and of 1,000.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline import farneback
from pipeline.cache import writing_shard
from pipeline.extraction.clips import extract_clips
from pipeline.settings import Settings
from pipeline.video.encode import write_h264
from pipeline.video.probe import probe

FRAMES = 100
SIZE = 224
ROUNDS = 5
NOTEBOOK_FRAMES = 6  # its flow takes half a second per pair
FULL_HD = (1920, 1080)


def main():
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    cv2.setNumThreads(1)
    farneback.resolve("auto")
    with tempfile.TemporaryDirectory() as folder:
        big = full_hd(Path(sys.argv[1]), Path(folder) / "REAL" / "big.mp4")
        against_others(big, Path(folder))
        if len(cores) > 1:
            scaling(big, Path(folder), cores[:2])
        memory(big, Path(folder))


def full_hd(path, to):
    to.parent.mkdir()
    with av.open(str(path)) as source:
        rate = source.streams.video[0].average_rate
        frames = (f.reformat(*FULL_HD).to_ndarray(format="rgb24") for f in source.decode(video=0))
        write_h264(to, enumerate(frames), rate, preset="medium", crf=20)
    print(f"\n{path.name} as 1080p H.264, {to.stat().st_size / 1e6:.1f} MB, on one core:")
    return to


def against_others(path, folder):
    found = probe(path)
    n = min(FRAMES, found.n_packets)
    ours, loop, notebook = [], [], []
    for _ in range(ROUNDS):
        ours.append(timed(lambda: whole(path, folder, found.fps, n)) / n)
        loop.append(timed(lambda: opencv_loop(path, n)) / n)
        notebook.append(sum(notebooks_recipe(path, folder, NOTEBOOK_FRAMES)))
    notebook = np.array(notebook) / NOTEBOOK_FRAMES
    for name, other in (("OpenCV loop", loop), ("notebook, one epoch", notebook)):
        ratio = np.median(np.array(other) / ours)
        print(
            f"  {name}: {1 / np.median(other):.1f} frames/s, ours {1 / np.median(ours):.1f} "
            f"(ratio {ratio:.2f})"
        )


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def whole(path, folder, rate, n):
    with writing_shard(folder, "shards/00000.h5", attrs={}) as shard:
        settings = Settings(SIZE, SIZE, flow_backend="cpu")
        extract_clips(path, shard, "clip", settings, rate=rate, n_frames=n)


def opencv_loop(path, n):
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_N_THREADS, 1)
    before = None
    for _ in range(n):
        frame = cv2.resize(capture.read()[1], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        if before is not None:
            flow = cv2.calcOpticalFlowFarneback(before, grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
            magnitude = cv2.cartToPolar(flow[..., 0], flow[..., 1])[0]
            cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)
        before = grey


def notebooks_recipe(path, folder, n):
    """Return seconds for the JPEGs of n frames, and for the flow maps of their pairs."""
    begun = time.perf_counter()
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_N_THREADS, 1)
    for k in range(n):
        cv2.imwrite(str(folder / f"{k}.jpg"), capture.read()[1])
    written = time.perf_counter()
    for k in range(n - 1):
        pair = [cv2.imread(str(folder / f"{j}.jpg")) for j in (k, k + 1)]
        grey = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in pair]
        flow = cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        magnitude = cv2.cartToPolar(flow[..., 0], flow[..., 1])[0]
        scaled = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)
        cv2.resize(scaled, (SIZE, SIZE))
    return written - begun, time.perf_counter() - written


def scaling(path, folder, cores):
    """Time the command on 12 copies, which differ in a few bytes at their end."""
    content = path.read_bytes()
    (folder / "FAKE").mkdir()
    for k in range(12):
        (folder / ("REAL", "FAKE")[k % 2] / f"{k}.mp4").write_bytes(content + bytes([k] * 8))
    path.unlink()
    seconds = {(1, 1): [], (1, 2): [], (2, 2): []}  # processes, cores
    for round_ in range(ROUNDS):
        for jobs, n_cores in seconds:
            os.sched_setaffinity(0, cores[:n_cores])
            out = folder / f"cache{jobs}{n_cores}{round_}"
            roots = (str(folder / "REAL"), str(folder / "FAKE"))
            command = [sys.executable, "-m", "pipeline.extract", *roots, "-o", str(out)]
            run = [*command, "--jobs", str(jobs), "--test", "0"]
            done = timed(lambda run=run: subprocess.run(run, check=True, capture_output=True))
            seconds[jobs, n_cores].append(done)
    os.sched_setaffinity(0, cores[:1])
    n_frames = 12 * probe(folder / "REAL" / "0.mp4").n_packets
    print("  the whole command, 12 videos:")
    for (jobs, n_cores), spent in seconds.items():
        ratio = np.median(np.array(seconds[1, 1]) / spent)
        rate = n_frames / np.median(spent)
        print(f"    {jobs} processes, {n_cores} cores: {rate:.0f} frames/s, {ratio:.2f} times")
    path.write_bytes(content)


def memory(path, folder):
    """Print the peak memory for a clip and for one ten times as long, each in its own process."""
    with av.open(str(path)) as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    for n in (FRAMES, 10 * FRAMES):
        long = folder / f"{n}.mp4"
        repeated = itertools.islice(itertools.cycle(frames), n)
        write_h264(long, enumerate(repeated), 25, preset="ultrafast")
        code = f"from benchmarks.extract import peak; peak({str(long)!r}, {n})"
        subprocess.run([sys.executable, "-c", code], check=True)


def peak(path, n):
    """Extract one clip and print the peak memory of this process."""
    with tempfile.TemporaryDirectory() as folder:
        cv2.setNumThreads(1)
        whole(Path(path), Path(folder), 25.0, n)
        size = (Path(folder) / "shards/00000.h5").stat().st_size
    status = Path("/proc/self/status").read_text()  # getrusage includes the parent's
    used = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(f"  a clip of {n} frames ({size / 1e6:.0f} MB stored): {used / 1e6:.0f} MB of memory")


if __name__ == "__main__":
    main()
