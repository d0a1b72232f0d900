"""The engine for a CUDA device: batches that fit its memory, overlapping transfers."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.farneback.cuda import torch_ops
from pipeline.farneback.cuda.torch_ops import Tables
from pipeline.farneback.parameters import Floats, Parameters

BYTES_PER_PIXEL = 1200  # memory of a pair, a generous estimate
MEMORY_SHARE = 0.5  # of the device's free memory, for a batch
CPU_BATCH_BYTES = 2**28  # memory of a batch on a CPU

Frames = npt.NDArray[np.uint8]
Batch = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
_log = logging.getLogger(__name__)


class Engine:
    """Flow of a sequence that comes in pieces, the same however it was cut."""

    def __init__(
        self, height: int, width: int, parameters: Parameters, device: str = "cuda"
    ) -> None:
        self._device = torch.device(device)
        self._tables = Tables(height, width, parameters, self._device)
        self._last = np.empty((0, height, width), np.uint8)  # of the previous piece

    def flows(self, frames: Frames) -> Floats:
        """Take the next frames; see `pipeline.farneback.Stream.flows`."""
        frames = self._joined(frames)
        fields = np.empty((max(len(frames) - 1, 0), *frames.shape[1:], 2), np.float32)

        def batch(part: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (_flow(part, self._tables).permute(0, 2, 3, 1).contiguous(),)

        _in_batches(frames, batch, (fields,), self._device)
        return fields

    def magnitude_maps(self, frames: Frames) -> tuple[Frames, Floats]:
        """Take the next frames; see `pipeline.farneback.Stream.magnitude_maps`."""
        frames = self._joined(frames)
        maps = np.empty((max(len(frames) - 1, 0), *frames.shape[1:]), np.uint8)
        ranges = np.empty((len(maps), 2), np.float32)

        def batch(part: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return torch_ops.maps(_flow(part, self._tables))

        _in_batches(frames, batch, (maps, ranges), self._device)
        return maps, ranges

    def _joined(self, frames: Frames) -> Frames:
        """Put the last frame of the previous piece first."""
        joined = np.concatenate([self._last, frames]) if len(self._last) else frames
        self._last = joined[-1:].copy()
        return joined


@functools.cache
def _operations(device: torch.device) -> Any:
    """Return the module of our Triton kernels where they work, else of plain PyTorch."""
    if device.type != "cuda":
        return torch_ops
    try:
        from pipeline.farneback.cuda import kernels

        tables = Tables(64, 64, Parameters(), device)
        expanded = kernels.expand(torch.zeros(1, 64, 64, dtype=torch.uint8, device=device), tables)
        kernels.flow(expanded, expanded, tables)
    except Exception as error:  # Triton is missing, or finds no C compiler
        _log.warning("flow is computed by plain PyTorch, which is slower: %s", error)
        return torch_ops
    return kernels


def _flow(part: torch.Tensor, tables: Tables) -> torch.Tensor:
    ops = _operations(part.device)
    expanded = ops.expand(part, tables)
    one, two = ([level[s] for level in expanded] for s in (slice(None, -1), slice(1, None)))
    return ops.flow(one, two, tables)  # type: ignore[no-any-return]


def _in_batches(
    frames: Frames, batch: Batch, outputs: tuple[npt.NDArray[Any], ...], device: torch.device
) -> None:
    """Fill the outputs with the results for all pairs; halve a batch that does not fit."""
    pairs = len(outputs[0])
    size = min(_pairs_that_fit(frames.shape[1] * frames.shape[2], device), max(pairs, 1))
    n_done = 0
    while n_done < pairs:
        # Parts have one frame more than pairs; neighbours share it.
        parts = [(n, frames[n : n + size + 1]) for n in range(n_done, pairs, size)]
        try:
            compute = _on_gpu if device.type == "cuda" else _on_cpu
            for start, results in compute(parts, batch, device):
                for output, result in zip(outputs, results, strict=True):
                    output[start : start + len(result)] = result
                n_done = start + len(results[0])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            _log.warning("the device is out of memory: going on with %d pairs at once", size)
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _pairs_that_fit(pixels: int, device: torch.device) -> int:
    n_bytes = CPU_BATCH_BYTES
    if device.type == "cuda":
        n_bytes = int(torch.cuda.mem_get_info(device)[0] * MEMORY_SHARE)
    return max(n_bytes // (BYTES_PER_PIXEL * pixels), 1)


def _on_cpu(
    parts: Sequence[tuple[int, Frames]], batch: Batch, device: torch.device
) -> Iterator[tuple[int, list[npt.NDArray[Any]]]]:
    """Yield the number of the first pair of each part, and the results."""
    for start, part in parts:
        with torch.inference_mode():
            yield start, [result.numpy() for result in batch(_tensor(part))]


def _on_gpu(
    parts: Sequence[tuple[int, Frames]], batch: Batch, device: torch.device
) -> Iterator[tuple[int, list[npt.NDArray[Any]]]]:
    """Do the same while uploading the next part and downloading the previous results."""
    up, down = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]

    def upload(part: Frames) -> torch.Tensor:
        with torch.cuda.stream(up):
            return _tensor(part).pin_memory().to(device, non_blocking=True)

    compute = torch.cuda.current_stream(device)
    downloading: tuple[int, list[torch.Tensor], Any] | None = None
    uploaded = upload(parts[0][1])
    for number, (start, _) in enumerate(parts):
        compute.wait_stream(up)
        part = uploaded
        part.record_stream(compute)
        with torch.inference_mode():
            results = batch(part)
            if number + 1 < len(parts):
                uploaded = upload(parts[number + 1][1])
            down.wait_stream(compute)
            with torch.cuda.stream(down):
                host = [torch.empty(r.shape, dtype=r.dtype, pin_memory=True) for r in results]
                for target, source in zip(host, results, strict=True):
                    target.copy_(source, non_blocking=True)
                    source.record_stream(down)
                ready = down.record_event()
        if downloading is not None:
            yield _downloaded(downloading)
        downloading = start, host, ready
    if downloading is not None:
        yield _downloaded(downloading)


def _downloaded(
    downloading: tuple[int, list[torch.Tensor], Any],
) -> tuple[int, list[npt.NDArray[Any]]]:
    start, host, ready = downloading
    ready.synchronize()
    return start, [result.numpy() for result in host]


def _tensor(part: Frames) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(part))
