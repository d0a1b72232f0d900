"""Frozen networks that turn images, which are frames or flow maps, into embeddings."""

import copy
import ctypes
import functools
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from features.architectures import Architecture, architecture, without_classifier
from features.depths import Depth, WithMaps, chosen_depths, find_depths
from features.fusion import folded, fused
from features.settings import PRECISIONS
from features.trajectory import Trajectory
from features.weights import load_model
from pipeline.common.errors import SettingsError

Images = npt.NDArray[np.uint8]  # (N, H, W, 3) RGB or (N, H, W) grey
Windows = npt.NDArray[np.int64]  # (n, window), indices of images

MIN_SIMILARITY = 0.999  # cosine, to float32 embeddings; below it a precision is not used
BATCH_ON_CPU = 16  # images, whose activations stay in the processor's cache
BATCH_ON_GPU = 256  # images
KEEP_FREED = 2**30  # bytes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from <malloc.h>
_log = logging.getLogger(__name__)


def load_backbone(
    name: str,
    weights: str = "imagenet",
    device: str = "auto",
    precision: str = "float32",
    depths: Sequence[int] | None = None,
) -> "Backbone":
    """Build a backbone; on a CPU the process keeps the memory it frees from now on.

    Args:
        name: an image or video classifier of torchvision.
        weights: ``imagenet`` (torchvision's own, downloaded once), the path of a state dict, or
            ``random:SEED``.
        device: a torch device, or ``auto``: CUDA if available, else the CPU.
        precision: of embeddings, one of `PRECISIONS`; ``auto`` is the fastest that the device
            supports, or float32 with depths, whose maps are always float32.
        depths: numbers of the depths whose trajectories `features.embed_clip` describes; by default
            the last four.

    Raises:
        SettingsError: unknown name, device, precision or depth; weights unavailable or unfit.
    """
    kind = architecture(name)
    resolved = torch.device(resolve_device(device))
    if resolved.type == "cpu":
        _keep_freed_memory()
    with torch.random.fork_rng(devices=[]):
        model, source, digest = load_model(kind, weights)
    dimension = without_classifier(model, kind)
    model.eval().requires_grad_(False)
    chosen = (
        ()
        if depths is not None and not depths
        else chosen_depths(find_depths(model, kind), depths, name)
    )

    def placed(module: nn.Module) -> nn.Module:
        return folded(module).to(resolved).to(memory_format=_memory_format(kind))  # type: ignore[call-overload,no-any-return]

    return Backbone(
        name=name,
        weights=source,
        sha256=digest,
        dimension=dimension,
        kind=kind,
        module=placed(model),
        with_maps=placed(WithMaps(model, chosen)) if chosen else None,
        depths=chosen,
        device=resolved,
        precision=_resolve_precision(precision, resolved, with_maps=bool(chosen)),
        batch=max(BATCH_ON_CPU, 2 * kind.window) if resolved.type == "cpu" else BATCH_ON_GPU,
    )


@dataclass
class _PendingClip:
    images: Images
    windows: Windows  # (T', window)
    trajectory: Trajectory | None  # takes the maps, if any
    parts: list[torch.Tensor] = field(default_factory=list)  # (n, D) each, on the device
    n_done: int = 0

    @property
    def n_left(self) -> int:
        return len(self.windows) - self.n_done


@dataclass
class Backbone:
    """A frozen network from images to embeddings."""

    name: str
    weights: str  # imagenet, file or random:SEED
    sha256: str  # of the weights' names, shapes and values
    dimension: int  # D, the length of an embedding
    kind: Architecture = field(repr=False)
    module: nn.Module = field(repr=False)  # without its classifier, in evaluation mode
    device: torch.device
    precision: str = "float32"  # one of `PRECISIONS` but auto
    batch: int = BATCH_ON_CPU  # images
    halvings: int = 0  # of the batch, for want of memory
    with_maps: nn.Module | None = field(default=None, repr=False)  # `module` as a `WithMaps`
    depths: tuple[Depth, ...] = ()  # of its maps

    def rows(self, n: int, every: int = 1) -> npt.NDArray[np.int64]:
        """Return which of n consecutive images each embedding covers.

        Args:
            n: number of images.
            every: sampling step in images; for a video network the step between windows, where 1
                means half a window.

        Returns:
            (T', 2) int64, first and last image. An image network sees only the first.
        """
        window = self.kind.window
        if window == 1:
            first, length = np.arange(0, n, every), every
        else:
            step = every if every > 1 else window // 2
            first, length = np.arange(0, max(n - window, 0) + 1, step)[:n], window
        return np.stack([first, np.minimum(first + length, n) - 1], axis=1)

    def windows(self, n: int, every: int = 1) -> Windows:
        """Return the images seen for each of `rows`: (T', window) int64."""
        first, last = np.split(self.rows(n, every), 2, axis=1)  # (T', 1)
        # An incomplete window repeats its last image.
        return np.minimum(first + np.arange(self.kind.window), last)

    def embed(self, images: Images, every: int = 1) -> npt.NDArray[np.float32]:
        """Embed images, or windows of them.

        Args:
            images: (N, H, W, 3) uint8 RGB, or (N, H, W) uint8 grey.
            every: see `rows`.

        Returns:
            (T', D) float32, a row for each of `rows`.
        """
        ((embeddings, _),) = self.embed_each([(images, None)], every)
        return embeddings

    def embed_each(
        self, clips: Iterable[tuple[Images, Trajectory | None]], every: int = 1
    ) -> Iterator[tuple[npt.NDArray[np.float32], Trajectory | None]]:
        """Embed clips of one size like `embed`, in batches that continue across clips.

        A trajectory that comes with a clip is given the clip's maps at all `depths`.
        """
        pending: deque[_PendingClip] = deque()
        for images, trajectory in clips:
            windows = self.windows(len(images), every)
            pending.append(_PendingClip(images, windows, trajectory))
            yield from self._embed_batches(pending, self._windows_per_batch)
        yield from self._embed_batches(pending, 1)
        yield from map(self._embeddings, pending)

    def _embed_batches(
        self, pending: deque[_PendingClip], min_windows: int
    ) -> Iterator[tuple[npt.NDArray[np.float32], Trajectory | None]]:
        """Embed batches while enough windows are left; yield each clip a batch after its last one.

        A GPU then computes while a clip is fetched from it.
        """
        while sum(clip.n_left for clip in pending) >= min_windows:
            complete = []
            while not pending[0].n_left:
                complete.append(pending.popleft())
            self._embed_batch(pending)
            yield from map(self._embeddings, complete)

    def _embed_batch(self, pending: Iterable[_PendingClip]) -> None:
        windows_per_batch = n_free = self._windows_per_batch
        batch: list[tuple[_PendingClip, Windows]] = []
        for clip in pending:
            if n := min(clip.n_left, n_free):
                batch.append((clip, clip.windows[clip.n_done : clip.n_done + n]))
                n_free -= n
        tracked = self.with_maps is not None and any(clip.trajectory for clip, _ in batch)
        try:
            embeddings, maps = self._forward(*_concatenated(batch), with_maps=tracked)
        except torch.OutOfMemoryError:
            if windows_per_batch == 1:
                raise
            self.halvings += 1
            _log.warning("%s is out of memory: going on with half as much", self.device)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return
        sizes = [len(windows) for _, windows in batch]
        parts = zip(*(torch.split(result, sizes) for result in (embeddings, *maps)), strict=True)
        for (clip, _), (part, *maps_of_clip) in zip(batch, parts, strict=True):
            if tracked and clip.trajectory:
                clip.trajectory.add(maps_of_clip)
            clip.parts.append(part)
            clip.n_done += len(part)

    @property
    def _windows_per_batch(self) -> int:
        return max(1, (self.batch >> self.halvings) // self.kind.window)

    def _embeddings(self, clip: _PendingClip) -> tuple[npt.NDArray[np.float32], Trajectory | None]:
        parts = clip.parts or [torch.empty(0, self.dimension)]
        return torch.cat(parts).cpu().numpy(), clip.trajectory

    @torch.inference_mode()
    def _forward(
        self, images: Images, windows: Windows, *, with_maps: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Embed windows of images: (n, D), and maps, (n, h, w, C), float32 on the device.

        Maps are float32 in any precision: steps between them are small differences, and bfloat16
        turns them by as much as one video's differ from another's.
        """
        x = self.prepare(images, windows)
        cells: list[torch.Tensor] = []
        if with_maps:
            embeddings, *maps = self._inference_with_maps(x)
            cells = [depth.cells(found) for depth, found in zip(self.depths, maps, strict=True)]
        if self.precision != "float32":
            with torch.autocast(self.device.type, getattr(torch, self.precision)):
                embeddings = self._inference_module(x).float()
        elif not with_maps:
            embeddings = self._inference_module(x)
        return embeddings, cells

    @functools.cached_property
    def _inference_with_maps(self) -> nn.Module:
        assert self.with_maps is not None
        return self._for_inference(self.with_maps, torch.float32)

    @functools.cached_property
    def _inference_module(self) -> nn.Module:
        return self._for_inference(self.module, getattr(torch, self.precision))

    def _for_inference(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Return a module with weights cast once and for all, fused, without gradients."""
        if dtype != torch.float32:
            module = copy.deepcopy(module)
            for layer in module.modules():
                if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
                    layer.to(dtype)
        return fused(module, dtype) if self.device.type == "cpu" else module

    def prepare(self, images: Images, windows: Windows) -> torch.Tensor:
        """Resize and normalise some `windows` of images.

        Returns (n, 3, H, W) float32 on the device, or (n, 3, window, H, W) for a video network.
        """
        used, places = np.unique(windows, return_inverse=True)
        x = self._upload(images[used]).to(torch.float32)
        x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
        if size := self.kind.size_for(*x.shape[2:]):
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v, device=self.device) for v in (self.kind.mean, self.kind.std))
        # (x / 255 - mean) / std in one pass; grey becomes three channels.
        x = torch.addcmul(-mean / std, x.permute(0, 2, 3, 1), 1 / (255 * std))
        x = x.permute(0, 3, 1, 2)  # (N, 3, H, W), channels last in memory
        if self.kind.window > 1:
            x = x[torch.from_numpy(places.reshape(windows.shape)).to(self.device)].transpose(1, 2)
        return x.contiguous(memory_format=_memory_format(self.kind))

    def _upload(self, images: Images) -> torch.Tensor:
        """Copy images to the device; a GPU still computes the previous batch meanwhile."""
        tensor = torch.from_numpy(images)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        compute = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(_upload_stream(self.device)):
            uploaded = tensor.pin_memory().to(self.device, non_blocking=True)
        compute.wait_stream(_upload_stream(self.device))
        uploaded.record_stream(compute)
        return uploaded


def _concatenated(batch: Sequence[tuple[_PendingClip, Windows]]) -> tuple[Images, Windows]:
    """Return the images of windows of several clips, and the windows into them."""
    if len(batch) == 1:
        [(clip, windows)] = batch
        return clip.images, windows
    images: list[Images] = []
    renumbered: list[Windows] = []
    n_images = 0
    for clip, windows in batch:
        used, places = np.unique(windows, return_inverse=True)
        images.append(clip.images[used])
        renumbered.append(n_images + places.reshape(windows.shape))
        n_images += len(used)
    return np.concatenate(images), np.concatenate(renumbered)


def checked(backbone: Backbone, images: Images) -> Backbone:
    """Return the backbone, or a float32 one if its precision changes embeddings too much."""
    if backbone.precision == "float32":
        return backbone
    exact = replace(backbone, precision="float32")
    coarse, reference = backbone.embed(images), exact.embed(images)
    lengths = np.linalg.norm(coarse, axis=1) * np.linalg.norm(reference, axis=1)
    similarity = (coarse * reference).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    lowest = float(np.nan_to_num(similarity, nan=-1).min())
    if lowest >= MIN_SIMILARITY:
        return backbone
    _log.warning(
        "%s computes in float32, which is slower: in %s its embeddings are too coarse "
        "(cosine similarity %.4f, %.3f is needed)",
        backbone.name,
        backbone.precision,
        lowest,
        MIN_SIMILARITY,
    )
    return exact


def resolve_device(device: str) -> str:
    """Return a usable torch device; ``auto`` is CUDA if available, else the CPU."""
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


def _resolve_precision(precision: str, device: torch.device, *, with_maps: bool) -> str:
    if precision not in PRECISIONS:
        raise SettingsError(f"no precision {precision!r}", f"there are: {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if with_maps:
        return "float32"
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bfloat16"
    return "float32"


def _keep_freed_memory() -> None:
    """Make glibc keep large freed blocks; fresh pages take 10 to 20% of the time of embedding."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, KEEP_FREED)
        mallopt(M_TRIM_THRESHOLD, KEEP_FREED)


def _memory_format(kind: Architecture) -> torch.memory_format:
    return torch.channels_last if kind.window == 1 else torch.channels_last_3d  # fastest on a CPU


@functools.cache
def _upload_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
