"""A whole experiment, from raw videos to the report, against a notebook's recipe.

``python -m benchmarks.notebook FOLDER`` generates 16 real and 16 fake videos of 305 to 1,567
frames, 1080p H.264 at 2 Mbit/s, about that of DFD at c23; FOLDER keeps them for another run. It
prints time, peak memory and disk space of each stage, and the time of the notebook's recipe: a JPEG
for every frame and, in every epoch, both JPEGs of every pair read again and OpenCV's flow at full
size, timed on some pairs and scaled to all cores without loss.

``python -m benchmarks.notebook FOLDER PLOT.png`` plots how time, memory and disk space grow from 8
to 128 videos, of 305 to 340 frames.

ResNet-18 has random weights, which take as long, unless a third argument names a file of weights.
"""

import csv
import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import cv2
import matplotlib as mpl
import numpy as np

from benchmarks.extract import notebooks_recipe
from data.demo import FAKE, REAL, Video, plan_corpus, render_video
from pipeline.workers.local import LocalPool

FULL_HD = (1920, 1080)
RENDERED_SIZE = (480, 270)  # enlarged to full HD
BIT_RATE = 2_000_000
CLIP_FRAMES = 305  # of the shortest video, so of every clip; longer videos repeat these frames
PLOT_RENDERED = 61  # frames rendered, then repeated, for the plot of growth
LENGTHS = (305, 1567)
PLOT_LENGTHS = (305, 340)
PLOT_VIDEOS = (8, 32, 128)
TRIALS = 20
PAIRS_TIMED = 12
EPOCHS = 10  # of a notebook's training, without tuning


def main():
    folder = Path(sys.argv[1])
    plot = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    weights = sys.argv[3] if len(sys.argv) > 3 else "random:0"
    corpora = [(n, PLOT_LENGTHS) for n in PLOT_VIDEOS] if plot else [(32, LENGTHS)]
    results = []
    for n, lengths in corpora:
        table = make_videos(folder / f"up-to-{lengths[1]}-frames", n, lengths)
        results.append(experiment(table, weights))
        report(n, results[-1])
        if not plot:
            notebook(table, sum(results[-1].seconds.values()))
    if plot:
        draw([n for n, _ in corpora], results, plot)


def make_videos(folder, n, lengths):
    """Generate n videos, half of them fake, and return a CSV file of them for extraction."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = []
    for seed in range(-(-n // 32)):
        plan = plan_corpus(seed, FULL_HD, lengths)
        plan = [video for video in plan if video.path.startswith((REAL, FAKE))]
        shortest = plan[-1].target
        for video in plan:
            if video.target == shortest:
                video = dataclasses.replace(video, n_frames=lengths[0])
            chosen.append((seed, video))
    chosen = chosen[::-1][:n]  # starts with groups of one real and one fake
    rows, todo = [], []
    for seed, video in chosen:
        path = folder / f"{seed}-{Path(video.path).name}"
        actors = {video.target, video.source} - {None}
        identity = ";".join(f"{seed}-{actor}" for actor in sorted(actors))
        rows.append([path.name, "real" if video.source is None else "fake", identity])
        if not path.is_file():
            todo.append((path, seed, video, CLIP_FRAMES if lengths == LENGTHS else PLOT_RENDERED))
    for (path, *_), result in LocalPool().run(make_video, todo):
        if isinstance(result, Exception):
            raise RuntimeError(f"{path}: {result}")
    table = folder / f"{n}-videos.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "identity"], *rows])
    return table


def make_video(task: tuple[Path, int, Video, int]):
    """Render the first frames, enlarge and encode them, and repeat the packets."""
    path, seed, video, n_rendered = task
    small = dataclasses.replace(video, n_frames=n_rendered, size=RENDERED_SIZE)
    frames, _ = render_video(small, seed)
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as container:
        options = {"preset": "superfast"}
        stream = container.add_stream("libx264", rate=video.fps, options=options)
        stream.bit_rate = BIT_RATE
        (stream.width, stream.height), stream.pix_fmt = FULL_HD, "yuv420p"
        packets = []
        for frame in frames:
            larger = cv2.resize(frame, FULL_HD, interpolation=cv2.INTER_CUBIC)
            packets += stream.encode(av.VideoFrame.from_ndarray(larger, format="rgb24"))
        packets += stream.encode()
        for n in range(video.n_frames):
            times, which = divmod(n, len(packets))
            encoded = packets[which]
            packet = av.Packet(bytes(encoded))
            packet.stream, packet.time_base = stream, encoded.time_base
            packet.is_keyframe = encoded.is_keyframe
            later = round(times * n_rendered / (video.fps * encoded.time_base))
            packet.pts, packet.dts = encoded.pts + later, encoded.dts + later
            container.mux(packet)
    part.replace(path)


@dataclasses.dataclass(frozen=True)
class Result:
    """Cost of an experiment by stage."""

    seconds: dict[str, float]
    memory: dict[str, int]  # peak bytes of all processes together
    disk: dict[str, int]  # bytes written
    output: str  # of model.fit


def experiment(table, weights):
    with tempfile.TemporaryDirectory(dir=table.parent) as folder:
        cache, embeddings, run = (Path(folder) / name for name in ("cache", "embeddings", "run"))
        network = ["--backbone", "resnet18", "--weights", weights, "--streams", "flow"]
        commands = {
            "extract": ["pipeline.extract", table, "-o", cache],
            "embed": ["features.embed", cache, "-o", embeddings, *network],
            "fit": ["model.fit", embeddings, "-o", run, "--tune", TRIALS, "--jobs", cores()],
        }
        seconds, memory, disk, output = {}, {}, {}, ""
        for (stage, command), out in zip(commands.items(), (cache, embeddings, run), strict=True):
            seconds[stage], memory[stage], output = measured(command)
            disk[stage] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        shutil.copy(run / "report.html", table.parent / "report.html")
        return Result(seconds, memory, disk, output)


def measured(command):
    """Return the seconds, the peak memory in bytes and the output of a command."""
    begun = time.perf_counter()
    arguments = [sys.executable, "-m", *map(str, command)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, text=True)
        peak = [0]
        watcher = threading.Thread(target=watch, args=(process, peak))
        watcher.start()
        output, _ = process.communicate()
        seconds = time.perf_counter() - begun
        watcher.join()
        if process.returncode:
            errors.seek(0)
            sys.exit(errors.read())
    return seconds, peak[0], output


def watch(process, peak):
    """Track the peak memory of a process and its descendants, with shared pages counted once."""
    while process.poll() is None:
        parents = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(status.parent.name)] = int(
                    status.read_text().rsplit(")", 1)[1].split()[1]
                )
            except OSError:
                continue
        family = {process.pid}
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        peak[0] = max(peak[0], sum(map(proportional, family)))
        time.sleep(0.25)


def proportional(pid):
    """Return the proportional set size of a process, in bytes."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(rollup.split("\nPss:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return 0


@functools.cache
def cores():
    return len(os.sched_getaffinity(0))


def report(n, result):
    total = sum(result.seconds.values())
    print(f"\n{n} videos, {cores()} cores: {total:.0f} s from raw videos to report")
    for stage, seconds in result.seconds.items():
        print(
            f"  {stage:8} {seconds:6.1f} s  {seconds / total:4.0%}  "
            f"{result.memory[stage] / 1e9:5.2f} GB of memory  {result.disk[stage] / 1e6:7.1f} MB"
        )
    print("  " + result.output.strip().replace("\n", "\n  "), flush=True)


def notebook(table, ours):
    """Time the notebook's recipe on some frames and scale it to all of them."""
    with table.open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    cv2.setNumThreads(1)
    writing, reading = [], []
    with tempfile.TemporaryDirectory(dir=table.parent) as folder:
        for name in names[:3]:
            spent = notebooks_recipe(table.parent / name, Path(folder), PAIRS_TIMED + 1)
            writing.append(spent[0] / (PAIRS_TIMED + 1))
            reading.append(spent[1] / PAIRS_TIMED)
    n_frames = len(names) * CLIP_FRAMES
    once = n_frames * np.median(writing) / cores()
    epoch = (n_frames - len(names)) * np.median(reading) / cores()
    print(
        f"\nthe notebook's recipe, {len(writing)} x {PAIRS_TIMED} pairs timed and scaled to the "
        f"same {n_frames} frames, on {cores()} cores without loss:\n"
        f"  JPEGs {once:.0f} s, data of one epoch {epoch:.0f} s "
        f"({np.median(reading):.2f} s a pair on one core)\n"
        f"  {EPOCHS} epochs: {(once + EPOCHS * epoch) / 3600:.1f} h, "
        f"{(once + EPOCHS * epoch) / ours:.0f} times ours with {TRIALS} trials of tuning, "
        f"evaluation and report"
    )


def draw(counts, results, path):
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, (title, kind, unit) in zip(
        axes,
        (("time, s", "seconds", 1), ("memory, GB", "memory", 1e9), ("disk, MB", "disk", 1e6)),
        strict=True,
    ):
        for stage in results[0].seconds:
            axis.plot(counts, [getattr(r, kind)[stage] / unit for r in results], "o-", label=stage)
        if kind != "memory":
            total = [sum(getattr(r, kind).values()) / unit for r in results]
            axis.plot(counts, total, "o-", color="black", label="all")
        axis.set(title=title, xlabel="videos", xlim=(0, None), ylim=(0, None))
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.legend()
    figure.savefig(path, dpi=110)
    print(f"\n{path}")


if __name__ == "__main__":
    main()
