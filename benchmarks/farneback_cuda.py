"""Measure the speed of our Farneback on a GPU: ``python -m benchmarks.farneback_cuda``.

Prints pairs per second at three sizes, with frames on the device and with transfers, by our Triton
kernels and by plain PyTorch; and the bandwidth that follows from the byte count in `kernels`, as a
share of the card's copy bandwidth.
"""

import sys
import time

import numpy as np
import torch

from benchmarks.farneback import moving_texture
from pipeline.farneback import cuda
from pipeline.farneback.cuda import engine, torch_ops
from pipeline.farneback.parameters import Parameters

SIZES = {"224x224": (224, 224, 1024), "960x540": (540, 960, 128), "1920x1080": (1080, 1920, 32)}
BYTES = 420  # per pixel and pair


def main():
    if reason := cuda.why_not():
        print(f"error: this benchmark needs a CUDA device: {reason}", file=sys.stderr)
        print("hint: python -m benchmarks.farneback measures the CPU", file=sys.stderr)
        sys.exit(2)
    device = torch.device("cuda")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    bandwidth = copy_bandwidth(device)
    print(f"copies {bandwidth / 1e12:.2f} TB/s (reading and writing)")
    for name, (height, width, n) in SIZES.items():
        few = moving_texture(height, width)
        frames = np.concatenate([few] * (n // len(few) + 1))[: n + 1]
        tables = torch_ops.Tables(height, width, Parameters(), device)
        resident = torch.from_numpy(frames).to(device)
        for ops in (engine._operations(device), torch_ops):

            def pairs(ops=ops, resident=resident, tables=tables):
                with torch.inference_mode():
                    expanded = ops.expand(resident, tables)
                    found = ops.flow([e[:-1] for e in expanded], [e[1:] for e in expanded], tables)
                    torch_ops.maps(found)

            rate = n / seconds(pairs)
            moved = rate * BYTES * height * width / bandwidth
            which = ops.__name__.rsplit(".", 1)[-1]
            print(f"{name}: {which} {rate:,.0f} pairs/s on the device", end="")
            print(f", {moved:.0%} of the copy bandwidth" if ops is not torch_ops else "")
        on_device = engine.Engine(height, width, Parameters())
        rate = n / seconds(lambda f=frames, e=on_device: e.magnitude_maps(f))
        print(f"{name}: {rate:,.0f} pairs/s with transfers, maps only")


def copy_bandwidth(device):
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source))


def seconds(work, rounds=5):
    work()
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    main()
