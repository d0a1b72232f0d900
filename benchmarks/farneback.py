"""Measure the speed of our Farneback: ``python -m benchmarks.farneback [FOLDER | cuda]``.

On the CPU, comparisons alternate in one process pinned to one core, and print the median ratio of
neighbouring runs. FOLDER holds ``people/asl_book.mkv`` and ``long/big_buck_bunny_720p.mp4``;
without it frames are synthetic.

``cuda`` prints pairs per second on a GPU, by Triton kernels and by plain PyTorch, and the bandwidth
by the byte count in `pipeline.farneback.cuda.kernels` against that of copies.
"""

import os
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from pipeline import farneback
from pipeline.farneback.cpu import engine
from pipeline.farneback.cuda import engine as cuda_engine
from pipeline.farneback.cuda import torch_ops
from pipeline.farneback.parameters import Parameters

STAGES = {  # kernels of the engine
    "blur": "pyramid",
    "shrink": "pyramid",
    "expand": "expansion",
    "enlarge": "upsampling",
    "improve": "iterations",
}
FRAMES = 40
ROUNDS = 5
CUDA_SIZES = ((224, 224, 1024), (540, 960, 128), (1080, 1920, 32))  # height, width, pairs
CUDA_BYTES = 420  # moved per pixel and pair


def main():
    if sys.argv[1:] == ["cuda"]:
        on_cuda()
    else:
        on_cpu()


def on_cpu():
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    cv2.setNumThreads(1)
    farneback.resolve("cpu")
    sequences = dict(real_clips(Path(sys.argv[1]))) if len(sys.argv) > 1 else {}
    sequences["moving texture 1920x1080"] = moving_texture(1080, 1920)
    print("| frames | ours, ms a pair | OpenCV | ratio | mean | p99.9 | largest | maps equal |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, frames in sequences.items():
        against_opencv(name, frames)
    small = next(iter(sequences.values()))
    by_stage(small)
    by_stage(sequences["moving texture 1920x1080"])
    other_methods(small)
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:2])
        two_threads(small)


def against_opencv(name, frames):
    flow, reference = (farneback.flow(frames, backend=b) for b in ("cpu", "opencv"))
    distance = np.sqrt(((flow - reference) ** 2).sum(-1))
    equal = np.mean(maps(frames, "cpu") == maps(frames, "opencv"))
    streams = [farneback.Stream(*frames.shape[1:], backend=b) for b in ("cpu", "opencv")]
    ours, theirs, ratio = alternating(
        *(lambda s=stream: s.magnitude_maps(frames) for stream in streams)
    )
    pairs = len(frames)  # the first one goes with the last of the round before
    print(
        f"| {name} | {ours / pairs * 1e3:.2f} | {theirs / pairs * 1e3:.1f} | {ratio:.1f} | "
        f"{distance.mean():.0e} | {np.quantile(distance, 0.999):.0e} | {distance.max():.2g} | "
        f"{equal:.4%} |"
    )


def by_stage(frames):
    """Print the time of each stage, in nanoseconds per pixel and pair."""
    height, width = frames.shape[1:]
    spent = {}
    kernels = {name: getattr(engine, name) for name in STAGES}
    for name, stage in STAGES.items():
        setattr(engine, name, timed(kernels[name], spent, stage))
    running = engine.Engine(height, width, Parameters())
    running.magnitude(frames[0])
    spent.clear()
    start = time.perf_counter()
    for frame in frames[1:]:
        farneback.scaled(running.magnitude(frame))
    spent["copies and map"] = time.perf_counter() - start - sum(spent.values())
    for name, kernel in kernels.items():
        setattr(engine, name, kernel)
    pixels = frames[1:].size / 1e9
    listed = ", ".join(f"{stage} {seconds / pixels:.2f}" for stage, seconds in spent.items())
    planes = [p for v in running._levels for p in (*v.coefficients, *v.guess, *v.flow)]
    held = sum(plane.nbytes for plane in planes) / (height * width)
    print(f"\n{width}x{height}, ns per pixel and pair: {listed}; {held:.0f} bytes held per pixel")


def timed(function, spent, name):
    def wrapped(*args):
        start = time.perf_counter()
        function(*args)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

    return wrapped


def two_threads(frames):
    """Compare with OpenCV over two sequences at once, in two threads each."""

    def both(backend):
        threads = [threading.Thread(target=maps, args=(frames, backend)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    _, _, ratio = alternating(lambda: both("cpu"), lambda: both("opencv"))
    print(f"two threads, two sequences, against OpenCV in two threads: {ratio:.1f} times")
    one_by_one = lambda: [maps(frames, "cpu") for _ in range(2)]  # noqa: E731
    _, _, ratio = alternating(lambda: both("cpu"), one_by_one)
    print(f"two threads against one: {ratio:.2f} times")


def other_methods(frames):
    """Compare with PyTorch, and with methods that compute something else."""
    from skimage.registration import optical_flow_ilk, optical_flow_tvl1

    few = frames[:3]
    torch.set_num_threads(1)
    torch_engine = cuda_engine.Engine(*few.shape[1:], Parameters(), "cpu")
    _, _, ratio = alternating(
        lambda: maps(few, "cpu"),
        lambda: torch_engine.magnitude_maps(few),
        rounds=3,
    )
    print(f"the same in plain PyTorch on this core: ours is {ratio:.0f} times as fast")
    for method in (optical_flow_ilk, optical_flow_tvl1):
        _, _, ratio = alternating(
            lambda: maps(few, "cpu"),
            lambda method=method: [method(a, b) for a, b in pairwise(few)],
            rounds=3,
        )
        print(f"scikit-image's {method.__name__}: ours is {ratio:.0f} times as fast")


def maps(frames, backend):
    return farneback.magnitude_maps(frames, backend=backend)[0]


def alternating(ours, theirs, rounds=ROUNDS):
    """Return the median seconds of both, and the median of their ratios."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        ours()
        between = time.perf_counter()
        theirs()
        times.append((between - start, time.perf_counter() - between))
    a, b = np.array(times).T
    return np.median(a), np.median(b), np.median(b / a)


def on_cuda():
    farneback.resolve("cuda")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    device = torch.device("cuda")
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() / cuda_seconds(lambda: target.copy_(source))
    print(f"copies {bandwidth / 1e12:.2f} TB/s (reading and writing)")
    for height, width, n in CUDA_SIZES:
        few = moving_texture(height, width)
        frames = np.concatenate([few] * (n // len(few) + 1))[: n + 1]
        tables = torch_ops.Tables(height, width, Parameters(), device)
        resident = torch.from_numpy(frames).to(device)
        for ops in (cuda_engine._operations(device), torch_ops):

            def pairs(ops=ops, resident=resident, tables=tables):
                with torch.inference_mode():
                    expanded = ops.expand(resident, tables)
                    field = ops.flow([e[:-1] for e in expanded], [e[1:] for e in expanded], tables)
                    torch_ops.maps(field)

            rate = n / cuda_seconds(pairs)
            share = rate * CUDA_BYTES * height * width / bandwidth
            print(f"{width}x{height}: {ops.__name__} {rate:,.0f} pairs/s on the device", end="")
            print(f", {share:.0%} of the copy bandwidth" if ops is not torch_ops else "")
        with_transfers = cuda_engine.Engine(height, width, Parameters()).magnitude_maps
        rate = n / cuda_seconds(lambda f=frames, maps=with_transfers: maps(f))
        print(f"{width}x{height}: {rate:,.0f} pairs/s with transfers, maps only")


def cuda_seconds(work):
    work()
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def real_clips(folder):
    book, bunny = folder / "people/asl_book.mkv", folder / "long/big_buck_bunny_720p.mp4"
    yield "asl_book 224x224", read(book, (224, 224))
    yield "asl_book 640x480", read(book)
    yield "big_buck_bunny 1280x720", read(bunny)


def read(path, size=None):
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            grey = frame.to_ndarray(format="gray")
            if size:
                grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
            frames.append(grey)
            if len(frames) == FRAMES:
                break
    return np.stack(frames)


def moving_texture(height, width):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height + 80, width + 80)).astype(np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    moves = [np.float32([[1, 0, -40 - 1.7 * n], [0, 1, -40 + 0.9 * n]]) for n in range(FRAMES)]
    return np.stack([cv2.warpAffine(smooth, move, (width, height)) for move in moves])


if __name__ == "__main__":
    main()
