"""The engine on a device: sequences in batches that fit, transfers beside the computing."""

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

BYTES_PER_PIXEL = 1200  # that a pair may take while it is computed; a generous estimate
SHARE = 0.5  # of the free memory of the device that a batch may take
ON_CPU = 2**28  # bytes for a batch where the device is a CPU

Frames = npt.NDArray[np.uint8]
Batch = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
_log = logging.getLogger(__name__)


def flow(frames: Frames, parameters: Parameters, device: str = "cuda") -> Floats:
    """Optical flow between each frame and the next.

    Args:
        frames: (T, H, W) uint8, grey.
        parameters: as `pipeline.farneback.Stream` covers them.
        device: as torch names it.

    Returns:
        (T-1, H, W, 2) float32: displacement along x and y in pixels. It does not depend on how
        the sequence was cut into batches.
    """
    tables = Tables(frames.shape[1], frames.shape[2], parameters, torch.device(device))

    def batch(part: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (_flow(part, tables).permute(0, 2, 3, 1).contiguous(),)

    out = np.empty((max(len(frames) - 1, 0), *frames.shape[1:], 2), np.float32)
    _in_batches(frames, batch, (out,), device)
    return out


def magnitude_maps(
    frames: Frames, parameters: Parameters, device: str = "cuda"
) -> tuple[Frames, Floats]:
    """Magnitude maps, (T-1, H, W) uint8, and their ranges, (T-1, 2) float32; as `flow`."""
    tables = Tables(frames.shape[1], frames.shape[2], parameters, torch.device(device))

    def batch(part: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch_ops.maps(_flow(part, tables))

    pairs = max(len(frames) - 1, 0)
    maps = np.empty((pairs, *frames.shape[1:]), np.uint8)
    ranges = np.empty((pairs, 2), np.float32)
    _in_batches(frames, batch, (maps, ranges), device)
    return maps, ranges


class Engine:
    """Flow for a sequence that comes in frame by frame; see `pipeline.farneback.Stream`."""

    def __init__(
        self, height: int, width: int, parameters: Parameters, device: str = "cuda"
    ) -> None:
        self._device = torch.device(device)
        self._tables = Tables(height, width, parameters, self._device)
        self._parameters = parameters
        self._previous: list[torch.Tensor] | None = None
        self._last: Frames | None = None  # of the batch before

    def magnitude_maps(self, frames: Frames) -> tuple[Frames, Floats]:
        """Take the next frames, (n, H, W); see `pipeline.farneback.Stream.magnitude_maps`."""
        return magnitude_maps(self._joined(frames), self._parameters, str(self._device))

    def flows(self, frames: Frames) -> Floats:
        """Take the next frames, (n, H, W); see `pipeline.farneback.Stream.flows`."""
        return flow(self._joined(frames), self._parameters, str(self._device))

    def _joined(self, frames: Frames) -> Frames:
        """Frames, with the last of the batch before."""
        before = frames[:0] if self._last is None else self._last[None]
        self._last = frames[-1] if len(frames) else self._last
        return np.concatenate([before, frames])

    def flow(self, frame: Frames) -> Floats | None:
        """Take the next frame; the flow to it, (H, W, 2) float32, None for the first."""
        with torch.inference_mode():
            found = self._advance(frame)
            return None if found is None else found[0].permute(1, 2, 0).contiguous().cpu().numpy()

    def magnitude(self, frame: Frames) -> Floats | None:
        """Take the next frame; the magnitude of the flow to it, (H, W) float32."""
        with torch.inference_mode():
            found = self._advance(frame)
            return None if found is None else (found * found).sum(1).sqrt()[0].cpu().numpy()

    def _advance(self, frame: Frames) -> torch.Tensor | None:
        one = torch.from_numpy(np.ascontiguousarray(frame))[None].to(self._device)
        ops = _operations(self._device)
        previous, self._previous = self._previous, ops.expand(one, self._tables)
        return None if previous is None else ops.flow(previous, self._previous, self._tables)


@functools.cache
def _operations(device: torch.device) -> Any:
    """What computes on a device: our Triton kernels where they work, else plain PyTorch."""
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
    frames: Frames, batch: Batch, out: tuple[npt.NDArray[Any], ...], device: str
) -> None:
    """Compute runs of pairs; a batch that does not fit is tried again at half its size."""
    pairs = len(out[0])
    size = min(_pairs_that_fit(frames.shape[1] * frames.shape[2], device), max(pairs, 1))
    done = 0
    while done < pairs:
        try:
            for start, results in _computed(frames, done, size, batch, device):
                for whole, part in zip(out, results, strict=True):
                    whole[start : start + len(part)] = part
                done = start + len(results[0])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size = max(size // 2, 1)
            _log.warning("the device is out of memory: going on with %d pairs at once", size)
            if torch.device(device).type == "cuda":
                torch.cuda.empty_cache()


def _pairs_that_fit(pixels: int, device: str) -> int:
    free = ON_CPU
    if torch.device(device).type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0] * SHARE)
    return max(free // (BYTES_PER_PIXEL * pixels), 1)


def _computed(
    frames: Frames, begin: int, size: int, batch: Batch, device: str
) -> Iterator[tuple[int, list[npt.NDArray[Any]]]]:
    """Results from pair ``begin`` on, each batch with its first pair."""
    parts = [(n, frames[n : n + size + 1]) for n in range(begin, len(frames) - 1, size)]
    if torch.device(device).type == "cuda":
        yield from _computed_on_gpu(parts, batch, torch.device(device))
        return
    for start, part in parts:
        with torch.inference_mode():
            yield start, [result.numpy() for result in batch(_tensor(part).to(device))]


def _computed_on_gpu(
    parts: Sequence[tuple[int, Frames]], batch: Batch, device: torch.device
) -> Iterator[tuple[int, list[npt.NDArray[Any]]]]:
    """While a batch is computed, the next one comes up and the one before goes down."""
    up, down = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]

    def upload(part: Frames) -> torch.Tensor:
        with torch.cuda.stream(up):
            return _tensor(part).pin_memory().to(device, non_blocking=True)

    compute = torch.cuda.current_stream(device)
    waiting: tuple[int, list[torch.Tensor], Any] | None = None
    coming = upload(parts[0][1])
    for number, (start, _) in enumerate(parts):
        compute.wait_stream(up)
        part = coming
        part.record_stream(compute)
        with torch.inference_mode():
            results = batch(part)
            if number + 1 < len(parts):
                coming = upload(parts[number + 1][1])
            down.wait_stream(compute)
            with torch.cuda.stream(down):
                host = [torch.empty(r.shape, dtype=r.dtype, pin_memory=True) for r in results]
                for here, there in zip(host, results, strict=True):
                    here.copy_(there, non_blocking=True)
                    there.record_stream(down)
                ready = down.record_event()
        if waiting is not None:
            yield _collected(waiting)
        waiting = start, host, ready
    if waiting is not None:
        yield _collected(waiting)


def _collected(waiting: tuple[int, list[torch.Tensor], Any]) -> tuple[int, list[npt.NDArray[Any]]]:
    start, host, ready = waiting
    ready.synchronize()
    return start, [result.numpy() for result in host]


def _tensor(part: Frames) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(part))
