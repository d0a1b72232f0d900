"""Frozen networks from pictures to vectors: torchvision's, as fast as this machine runs them."""

import copy
import ctypes
import functools
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from features.architectures import Architecture, architecture, without_classifier
from features.fusion import folded, fused
from features.settings import PRECISIONS
from features.weights import load_model
from pipeline.common.errors import SettingsError

Precision = Literal["float32", "bfloat16", "float16"]
ALIKE = 0.999  # cosine similarity to float32 embeddings, below which a precision is not used
BATCH = 16  # pictures at once on a CPU: what is computed between layers stays in its cache
BATCH_ON_DEVICE = 256
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as <malloc.h> has them
KEPT = 2**30  # bytes
_log = logging.getLogger(__name__)

Pictures = npt.NDArray[np.uint8]


@dataclass
class _Begun:
    """A clip of which some windows are embedded."""

    pictures: Pictures
    windows: npt.NDArray[np.int64]
    parts: list[torch.Tensor] = field(default_factory=list)
    done: int = 0

    @property
    def left(self) -> int:
        return len(self.windows) - self.done


@dataclass
class Backbone:
    """A frozen network from pictures to vectors.

    Attributes:
        name: torchvision's name.
        weights: where its weights are from: ``imagenet``, ``file`` or ``random:SEED``.
        sha256: of the weights' names, shapes and values; not of any file. Of random weights, as
            they were drawn.
        dimension: D, the length of an embedding.
        kind: what it takes.
        module: the network without its classifier, in evaluation mode.
        device: where it computes.
        precision: that it computes in.
        batch: pictures at once.
        halvings: how often that had to be halved for want of memory.
    """

    name: str
    weights: str
    sha256: str
    dimension: int
    kind: Architecture = field(repr=False)
    module: nn.Module = field(repr=False)
    device: torch.device
    precision: Precision = "float32"
    batch: int = BATCH
    halvings: int = 0

    def rows(self, n: int, every: int = 1) -> npt.NDArray[np.int64]:
        """Which of n pictures in a row each embedding is about.

        Args:
            n: pictures.
            every: embed every so many of them; for a network of videos, so many lie between the
                beginnings of two windows, half a window if this is 1.

        Returns:
            (T', 2) int64: the first and the last picture. A network of single pictures looks at the
            first alone.
        """
        window = self.kind.window
        if window == 1:
            first = np.arange(0, n, every)
            return np.stack([first, np.minimum(first + every, n) - 1], axis=1)
        step = every if every > 1 else window // 2
        first = np.arange(0, max(n - window, 0) + 1, step)
        return np.stack([first, np.minimum(first + window, n) - 1], axis=1)

    def windows(self, n: int, every: int = 1) -> npt.NDArray[np.int64]:
        """The pictures that the network sees for each of `rows`: (T', window) int64."""
        if n == 0:
            return np.zeros((0, self.kind.window), np.int64)
        rows = self.rows(n, every)
        if self.kind.window == 1:
            return rows[:, :1]
        # A window that is not full repeats its last picture.
        return np.minimum(rows[:, :1] + np.arange(self.kind.window), rows[:, 1:])

    def embed(self, pictures: Pictures, every: int = 1) -> npt.NDArray[np.float32]:
        """Embed pictures, or windows of them.

        Args:
            pictures: (N, H, W, 3) uint8 RGB, or (N, H, W) uint8, which become three equal
                channels.
            every: see `rows`.

        Returns:
            (T', D) float32, a row for each of `rows`.
        """
        (embedded,) = self.embed_each([pictures], every)
        return embedded

    def embed_each(
        self, clips: Iterable[Pictures], every: int = 1
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Embed clip after clip, in batches that go on from one clip into the next.

        Args:
            clips: each as `embed` takes it, all of one height and width; they are taken as far
                ahead as a batch needs.
            every: see `rows`.

        Yields:
            (T', D) float32 of each clip, as `embed` gives it.
        """
        begun: deque[_Begun] = deque()
        for pictures in clips:
            begun.append(_Begun(pictures, self.windows(len(pictures), every)))
            yield from self._embed_batches(begun, self._at_once)
        yield from self._embed_batches(begun, 1)
        yield from map(self._embedded, begun)

    def _embed_batches(self, begun: deque[_Begun], least: int) -> Iterator[npt.NDArray[np.float32]]:
        """Embed batches while so many windows wait; yield, during each, what was done before it."""
        while sum(clip.left for clip in begun) >= least:
            done = []
            while not begun[0].left:
                done.append(begun.popleft())
            self._embed_batch(begun)
            yield from map(self._embedded, done)  # a device is waited for once it has more to do

    def _embed_batch(self, begun: Iterable[_Begun]) -> None:
        """Embed the next windows of some clips."""
        batch: list[tuple[_Begun, int]] = []
        room = at_once = self._at_once
        for clip in begun:
            if n := min(clip.left, room):
                batch.append((clip, n))
                room -= n
        parts = [(clip.pictures, clip.windows[clip.done : clip.done + n]) for clip, n in batch]
        try:
            found = self._forward(*(parts[0] if len(parts) == 1 else _joined(parts)))
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
            self.halvings += 1
            _log.warning("%s is out of memory: going on with half as much", self.device)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return
        for (clip, n), part in zip(batch, torch.split(found, [n for _, n in batch]), strict=True):
            clip.parts.append(part)
            clip.done += n

    @property
    def _at_once(self) -> int:
        """Windows in a batch."""
        return max(1, (self.batch >> self.halvings) // self.kind.window)

    def _embedded(self, clip: _Begun) -> npt.NDArray[np.float32]:
        if not clip.parts:
            return np.empty((0, self.dimension), np.float32)
        return torch.cat(clip.parts).cpu().numpy()

    @torch.inference_mode()
    def _forward(self, pictures: Pictures, windows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Embed the windows (n, window) of these pictures: (n, D) float32, on the device."""
        x = self.prepared(pictures, windows)
        if self.precision == "float32":
            return self._fast(x)  # type: ignore[no-any-return]
        with torch.autocast(self.device.type, getattr(torch, self.precision)):
            return self._fast(x).float()  # type: ignore[no-any-return]

    @functools.cached_property
    def _fast(self) -> nn.Module:
        """The network without gradients, as it computes fastest.

        Its weights are in its precision, to which autocast would cast them in each batch.
        """
        module, dtype = self.module, getattr(torch, self.precision)
        if self.precision != "float32":
            module = copy.deepcopy(module)
            for layer in module.modules():
                if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
                    layer.to(dtype)
        return fused(module, dtype) if self.device.type == "cpu" else module

    def prepared(self, pictures: Pictures, windows: npt.NDArray[np.int64]) -> torch.Tensor:
        """What the network is given of some `windows` of pictures.

        Returns:
            (n, 3, H, W) float32 on the device, or (n, 3, window, H, W): scaled and normalised.
        """
        needed, places = np.unique(windows, return_inverse=True)  # windows share half of theirs
        x = self._upload(pictures[needed]).to(torch.float32)
        x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
        if size := self.kind.size_for(*x.shape[2:]):
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v, device=self.device) for v in (self.kind.mean, self.kind.std))
        x = torch.addcmul(-mean / std, x.permute(0, 2, 3, 1), 1 / (255 * std))  # of grey ones too
        x = x.permute(0, 3, 1, 2)  # (N, 3, H, W), channels last in memory
        if self.kind.window > 1:
            x = x[torch.from_numpy(places.reshape(windows.shape)).to(self.device)].transpose(1, 2)
        return x.contiguous(memory_format=_layout(self.kind))

    def _upload(self, pictures: Pictures) -> torch.Tensor:
        """Pictures on the device; they come up while the ones before are computed."""
        tensor = torch.from_numpy(pictures)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        compute = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(_upload_stream(self.device)):
            there = tensor.pin_memory().to(self.device, non_blocking=True)
        compute.wait_stream(_upload_stream(self.device))
        there.record_stream(compute)
        return there


def _joined(
    parts: Iterable[tuple[Pictures, npt.NDArray[np.int64]]],
) -> tuple[Pictures, npt.NDArray[np.int64]]:
    """Some windows of several clips as windows of one clip."""
    pictures: list[Pictures] = []
    windows: list[npt.NDArray[np.int64]] = []
    n = 0
    for of_clip, some in parts:
        needed, places = np.unique(some, return_inverse=True)
        pictures.append(of_clip[needed])
        windows.append(n + places.reshape(some.shape))
        n += len(needed)
    return np.concatenate(pictures), np.concatenate(windows)


def _keep_freed_memory() -> None:
    """Let this process keep large blocks that it frees, for the next batch.

    As glibc comes it gives each back to the system, and to get fresh pages takes a tenth to a fifth
    of the time of embedding (``man mallopt``).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other libraries have none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def _layout(kind: Architecture) -> torch.memory_format:
    """How pictures and weights lie in memory: a CPU's kernels want the channels together."""
    return torch.channels_last if kind.window == 1 else torch.channels_last_3d


@functools.cache
def _upload_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call, no-any-return]


def load_backbone(
    name: str,
    weights: str = "imagenet",
    device: str = "auto",
    precision: str = "float32",
) -> Backbone:
    """Build a backbone and load its weights.

    For a CPU it also lets this process keep the memory that it frees, where the C library can.

    Args:
        name: torchvision's name of a classifier of pictures or videos.
        weights: ``imagenet`` (torchvision's, downloaded once and then cached by torch), the path
            of a state dict for torchvision's model of this name, or ``random:SEED``.
        device: as torch names it, or ``auto``: CUDA where there is a GPU.
        precision: to compute in, some of `PRECISIONS`; ``auto`` is the fastest that this machine
            computes in itself. `checked` says whether it is precise enough.

    Raises:
        SettingsError: unknown name, weights that cannot be had, or that do not fit.
    """
    kind = architecture(name)
    where = torch.device(resolve_device(device))
    if where.type == "cpu":
        _keep_freed_memory()
    with torch.random.fork_rng(devices=[]):  # building a model draws random numbers
        model, source, digest = load_model(kind, weights)
    dimension = without_classifier(model, kind)
    model = folded(model.eval().requires_grad_(False)).to(where)
    model.to(memory_format=_layout(kind))  # type: ignore[call-overload]
    return Backbone(
        name=name,
        weights=source,
        sha256=digest,
        dimension=dimension,
        kind=kind,
        module=model,
        device=where,
        precision=_resolve_precision(precision, where),
        batch=max(BATCH, 2 * kind.window) if where.type == "cpu" else BATCH_ON_DEVICE,
    )


def checked(backbone: Backbone, pictures: Pictures) -> Backbone:
    """A backbone whose embeddings are those of float32: itself, or in float32 if it is too coarse.

    Args:
        backbone: in any precision.
        pictures: a few of those that it is for, as of `Backbone.embed`.
    """
    if backbone.precision == "float32":
        return backbone
    exact = replace(backbone, precision="float32")
    found, right = backbone.embed(pictures), exact.embed(pictures)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(right, axis=1)
    similarity = (found * right).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    worst = float(np.nan_to_num(similarity, nan=-1).min())
    if worst >= ALIKE:
        return backbone
    _log.warning(
        "%s computes in float32, which is slower: in %s its embeddings are too coarse "
        "(cosine similarity %.4f, %.3f is needed)",
        backbone.name,
        backbone.precision,
        worst,
        ALIKE,
    )
    return exact


def resolve_device(device: str) -> str:
    """The device that a name stands for; ``auto`` is CUDA where there is a GPU, else the CPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}",
            "auto takes a GPU where there is one",
        ) from error
    return device


def _resolve_precision(precision: str, device: torch.device) -> Precision:
    if precision not in PRECISIONS:
        raise SettingsError(f"no precision {precision!r}", f"there are: {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision  # type: ignore[return-value]
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bfloat16"
    return "float32"
