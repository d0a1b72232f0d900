"""Training of one head on one fold, and of one head per fold."""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from model.settings import TrainingSettings
from model.statistics.metrics import auc_roc
from model.training.heads import Ensemble, Head, clip_logits, take_crops
from model.training.linear_model import STRENGTHS, fit_path, n_statistics
from model.training.sequences import Sequences
from pipeline.common.files import write_whole
from pipeline.common.prefetch import prefetch

Indices = npt.NDArray[np.int64]
BLOCK_CLIPS = 64  # read together from a mapped file
MIN_IMPROVEMENT = 1e-3  # nats by which the validation loss must fall
MAX_GRADIENT_NORM = 1.0


def save_tensors(path: Path, values: Any) -> None:
    """Write plain values and tensors, whole or not at all."""
    write_whole(path, lambda temporary: _write(temporary, values))


def _write(path: Path, values: Any) -> None:
    image = io.BytesIO()  # PyTorch reports a full disk as an internal error; Python's I/O does not
    torch.save(values, image)
    path.write_bytes(image.getbuffer())


@dataclass(frozen=True)
class Epoch:
    """Class-balanced losses, in nats, and the validation AUC."""

    train_loss: float
    val_loss: float
    val_auc: float


@dataclass(frozen=True)
class Fold:
    """A head trained on one fold, in its state after the best epoch.

    The statistics head has no epochs: its history is over `STRENGTHS`.
    """

    head: Head
    val: Indices  # (V,)
    val_logits: npt.NDArray[np.float64]  # (V,) of the best epoch
    history: list[Epoch]
    best_epoch: int  # from 0

    @property
    def best(self) -> Epoch:
        """The epoch whose weights the head has."""
        return self.history[self.best_epoch]


def train_fold(
    data: Sequences,
    train: Indices,
    val: Indices,
    settings: TrainingSettings,
    *,
    seed: int = 0,
    device: str = "cpu",
    checkpoints: Path | None = None,
) -> Fold:
    """Train a head until the validation loss stops falling, and return its best epoch.

    Each epoch uses one random temporal crop of each training clip. Interrupted training resumes
    from a file in ``checkpoints`` and ends with the same weights.
    """
    if settings.head == "statistics":
        return fit_linear(data, [(train, val)], settings)[0]
    with _one_fast_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        training = _Training(data, train, val, settings, device)
        if checkpoints is not None:
            training.resume(checkpoints, seed)
        while not training.ended:
            training.epoch()
        return training.fold()


def fit_linear(
    data: Sequences,
    folds: Sequence[tuple[Indices, Indices]],
    settings: TrainingSettings,
    *,
    progress: Callable[[], object] = lambda: None,
) -> list[Fold]:
    """Fit the statistics head to each fold, with the strength that is best over all folds."""
    histories, paths = [], []
    with torch.random.fork_rng(devices=[]):
        for train, val in folds:
            path = fit_path(data, train, val, _class_weights(data.labels, train), settings)
            rows = (train, path.train_logits), (val, path.val_logits)
            train_losses, val_losses = (_losses(data.labels, *part) for part in rows)
            aucs = [auc_roc(data.labels[val], logits.numpy()) for logits in path.val_logits]
            histories.append(list(map(Epoch, train_losses, val_losses, aucs)))
            paths.append(path)
            progress()
        best = int(np.argmin(np.mean([[e.val_loss for e in h] for h in histories], axis=0)))
        heads = [path.choose(best, dict(data.widths), settings) for path in paths]
    fitted = []
    for head, (_, val), history in zip(heads, folds, histories, strict=True):
        with torch.no_grad():
            logits = clip_logits(head, data.x, settings.crop_length, torch.from_numpy(val))
        fitted.append(Fold(head, val, logits.numpy(), history, best))
    return fitted


def _losses(labels: npt.NDArray[np.int64], rows: Indices, logits: torch.Tensor) -> list[float]:
    """Return the class-balanced loss of each strength, from logits (S, n)."""
    y = torch.from_numpy(labels[rows])
    weights = _class_weights(labels, rows).double()[y]
    y = y.double().expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, y, weights, reduction="none")
    return losses.mean(1).tolist()  # type: ignore[no-any-return]


@contextlib.contextmanager
def _one_fast_thread() -> Iterator[None]:
    """Compute in one thread, because matrices are small, and flush denormal numbers to zero.

    They appear in gradients once a head is certain of every clip, and slow a processor down.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


class _Training:
    def __init__(
        self, data: Sequences, train: Indices, val: Indices, settings: TrainingSettings, device: str
    ) -> None:
        self._data, self._settings, self._device = data, settings, torch.device(device)
        self._train, self._val = torch.from_numpy(train), torch.from_numpy(val)
        self._y = torch.from_numpy(data.labels).to(self._device, torch.float32)
        self._class_weights = _class_weights(data.labels, train).to(self._device)
        self._val_class_weights = _class_weights(data.labels, val).to(self._device)
        self._head = Head(data.widths, settings)
        self._head.standardise_by(data.x, self._train)
        self._head.to(self._device)
        self._crops = _TemporalCrops(data, settings.crop_length, self._head, self._device)
        self._parameters = list(self._head.parameters())
        self._optimiser = torch.optim.AdamW(
            self._parameters,
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._history: list[Epoch] = []
        self._best_epoch, self._best_logits = -1, torch.zeros(len(val), dtype=torch.float64)
        self._best_state = self._head.state_dict()
        self._checkpoint: Path | None = None

    @property
    def ended(self) -> bool:
        n = len(self._history)
        return n >= self._settings.max_epochs or (
            n > 0 and n - 1 - self._best_epoch >= self._settings.patience
        )

    def epoch(self) -> None:
        self._head.train()
        losses = []
        for rows, x in self._crops.batches(self._train, self._settings.batch_size):
            loss = self._loss(self._logits(x), self._y[rows], self._class_weights)
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM)
            self._optimiser.step()
            losses.append(loss.detach())
        self._head.eval()
        with torch.no_grad():
            logits = clip_logits(
                self._logits, self._crops.x, self._crops.length, self._val, self._device
            )
            y = self._y[self._val.to(self._device)]
            val_loss = self._loss(logits, y, self._val_class_weights).item()
        scores = logits.cpu().double()
        auc = auc_roc(self._data.labels[self._val.numpy()], scores.numpy())
        self._history.append(Epoch(torch.stack(losses).mean().item(), val_loss, auc))
        best_loss = self._history[self._best_epoch].val_loss
        if self._best_epoch < 0 or val_loss < best_loss - MIN_IMPROVEMENT:
            self._best_epoch, self._best_logits = len(self._history) - 1, scores
            self._best_state = {k: v.clone() for k, v in self._head.state_dict().items()}
        if self._checkpoint is not None:
            self._save(self._checkpoint)

    def fold(self) -> Fold:
        self._head.load_state_dict(self._best_state)
        return Fold(
            self._head.cpu(),
            self._val.numpy(),
            self._best_logits.numpy(),
            self._history,
            self._best_epoch,
        )

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        forward = self._head.logits if self._crops.standardised else self._head
        cuda = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=cuda):
            return forward(x).float()

    def _loss(
        self, logits: torch.Tensor, y: torch.Tensor, class_weights: torch.Tensor
    ) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, y, class_weights[y.long()])

    def resume(self, folder: Path, seed: int) -> None:
        """Load the checkpoint of these clips, settings and device, if any; write one per epoch."""
        rows = [seed, self._train.tolist(), self._val.tolist(), str(self._device)]
        clips = [clip.id for clip in self._data.clips]
        text = json.dumps([rows, clips, dataclasses.asdict(self._settings)])
        self._checkpoint = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.pt"
        try:
            state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return  # none, or one damaged by a power cut: the training starts again
        self._history = [Epoch(*values) for values in state["history"]]
        self._best_epoch, self._best_logits = state["best_epoch"], state["best_logits"]
        self._best_state = state["best"]
        self._head.load_state_dict(state["head"])
        self._optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self._device)

    def _save(self, checkpoint: Path) -> None:
        cuda = self._device.type == "cuda"
        state = {
            "history": [dataclasses.astuple(epoch) for epoch in self._history],
            "best_epoch": self._best_epoch,
            "best_logits": self._best_logits,
            "best": self._best_state,
            "head": self._head.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self._device) if cuda else None,
        }
        temporary = checkpoint.with_suffix(f".{os.getpid()}")
        _write(temporary, state)  # without fsync, which would take longer than an epoch
        temporary.replace(checkpoint)


class _TemporalCrops:
    """Random temporal crops in batches; clips that do not fit on the device are read ahead."""

    def __init__(self, data: Sequences, length: int, head: Head, device: torch.device) -> None:
        self._copies = [data.x, *data.copies]
        self._mapped, self._device = data.mapped, device
        self.standardised = not data.mapped and _fits(self._copies, device)
        if self.standardised:
            self._copies = [head.standardised(x.to(device)) for x in self._copies]
        self.x = self._copies[0]  # (N, T-1, D)
        self.length = min(length, self.x.shape[1])

    def batches(
        self, rows: torch.Tensor, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield one crop of each clip in random order: clip indices, and crops (B, length, D)."""
        order = rows[_by_blocks(rows) if self._mapped else torch.randperm(len(rows))]
        starts = torch.randint(0, self.x.shape[1] - self.length + 1, (len(rows), 1))
        steps = starts + torch.arange(self.length)
        copies = torch.randint(0, len(self._copies), (len(rows),))
        drawn = [torch.split(t.to(self.x.device), batch_size) for t in (order, steps, copies)]
        batches = (self._batch(*batch) for batch in zip(*drawn, strict=True))
        return batches if self.standardised else prefetch(batches, 1)

    def _batch(
        self, rows: torch.Tensor, steps: torch.Tensor, copies: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        crops, *others = [take_crops(x, rows, steps) for x in self._copies]
        if others:
            each = torch.arange(len(rows), device=rows.device)
            crops = torch.stack([crops, *others])[copies, each]
        return rows.to(self._device), crops.to(self._device)


def _fits(tensors: Sequence[torch.Tensor], device: torch.device) -> bool:
    # training takes as much again
    n_bytes = sum(tensor.nbytes for tensor in tensors)
    return device.type != "cuda" or 2 * n_bytes < torch.cuda.mem_get_info(device)[0]


def _by_blocks(rows: torch.Tensor) -> torch.Tensor:
    """Return a random order of ascending rows that reads a file a few blocks at a time."""
    n = len(rows)
    blocks = torch.randperm(math.ceil(n / BLOCK_CLIPS))
    order = (blocks[:, None] * BLOCK_CLIPS + torch.arange(BLOCK_CLIPS)).flatten()
    order = order[order < n]
    parts = order.split(4 * BLOCK_CLIPS)  # type: ignore[no-untyped-call]
    return torch.cat([part[torch.randperm(len(part))] for part in parts])


def _class_weights(labels: npt.NDArray[np.int64], rows: Indices) -> torch.Tensor:
    """Return (2,) float32 weights that balance the classes; their mean over the rows is 1."""
    counts = np.bincount(labels[rows], minlength=2)
    return torch.tensor(len(rows) / (2 * np.maximum(counts, 1)), dtype=torch.float32)


@dataclass(frozen=True)
class CrossFit:
    """One trained head per fold."""

    folds: list[Fold]
    settings: TrainingSettings
    out_of_fold: npt.NDArray[np.float64]  # (N,) logits; NaN for clips in no validation fold

    @property
    def strength(self) -> float | None:
        """C of the statistics head, the inverse of its regularisation; None for other heads."""
        if self.settings.head != "statistics":
            return None
        return STRENGTHS[self.folds[0].best_epoch] / n_statistics(self.folds[0].head)

    @property
    def ensemble(self) -> Ensemble:
        """The heads as one model."""
        return Ensemble([fold.head for fold in self.folds], self.settings.crop_length).eval()


def cross_fit(
    data: Sequences,
    folds: Sequence[tuple[Indices, Indices]],
    settings: TrainingSettings,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[], object] = lambda: None,
    checkpoints: Path | None = None,
) -> CrossFit:
    """Train one head per fold, fold n with ``seed + n``; see `train_fold` and `fit_linear`."""
    trained = []
    if settings.head == "statistics":
        trained = fit_linear(data, folds, settings, progress=progress)
    else:
        for n, (train, val) in enumerate(folds):
            fold = train_fold(
                data, train, val, settings, seed=seed + n, device=device, checkpoints=checkpoints
            )
            trained.append(fold)
            progress()
    out_of_fold = np.full(len(data.clips), np.nan)
    for fold in trained:
        out_of_fold[fold.val] = fold.val_logits
    return CrossFit(trained, settings, out_of_fold)
