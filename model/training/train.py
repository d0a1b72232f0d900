"""Training one head on one fold, and one head per fold."""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from model.settings import TrainingSettings
from model.statistics.metrics import auc_roc
from model.training.heads import Ensemble, Head, clip_logits, moments
from model.training.sequences import Sequences
from pipeline.common.files import write_whole

Indices = npt.NDArray[np.int64]
BLOCK = 64  # clips that lie side by side in a file, and are read together
LEAST = 1e-3  # nats by which the validation loss must fall for an epoch to count as better


def save_tensors(path: Path, values: Any) -> None:
    """Write plain values and tensors, whole or not at all."""
    write_whole(path, lambda temporary: _write(temporary, values))


def _write(path: Path, values: Any) -> None:
    image = io.BytesIO()  # in memory, because PyTorch answers a full disk as if it were a bug
    torch.save(values, image)
    path.write_bytes(image.getbuffer())


@dataclass(frozen=True)
class Epoch:
    """Losses are balanced between the classes, in nats."""

    train_loss: float
    val_loss: float
    val_auc: float


@dataclass(frozen=True)
class Fold:
    """A head trained on one fold: the state after its best epoch, which validation chose."""

    head: Head
    val: Indices  # rows of the validation clips
    val_logits: npt.NDArray[np.float64]  # of the best epoch
    history: list[Epoch]
    best_epoch: int  # of the history

    @property
    def best(self) -> Epoch:
        """The epoch that was kept."""
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
    """Train a head until the validation loss stops falling, and keep the best epoch.

    Args:
        data: N clips, with the streams of the settings.
        train: rows to learn from; each epoch sees one random window of each.
        val: rows that decide when to stop; no identity of theirs is among the others.
        settings: of the head and its training.
        seed: of initial weights, order and windows.
        device: as torch names it.
        checkpoints: a folder with a file for each training, written after each epoch. One that is
            there is gone on with, and ends with the same weights; if it had ended, it has.
    """
    with _one_fast_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        training = _Training(data.of(settings.streams), train, val, settings, device)
        if checkpoints is not None:
            training.keep_in(checkpoints, seed)
        while not training.ended:
            training.epoch()
        return training.fold()


@contextlib.contextmanager
def _one_fast_thread() -> Iterator[None]:
    """As small matrices want it: not shared out, and what is nearly zero is zero.

    A head that is sure of every clip has gradients below 1e-38, with which a processor computes
    many times as slowly.
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
    """One head on its way through the epochs."""

    def __init__(
        self, data: Sequences, train: Indices, val: Indices, settings: TrainingSettings, device: str
    ) -> None:
        self._data, self._settings, self._device = data, settings, torch.device(device)
        self._train, self._val = torch.from_numpy(train), torch.from_numpy(val)
        self._y = torch.from_numpy(data.labels).to(self._device, torch.float32)
        self._weight = _class_weights(data.labels, train).to(self._device)
        self._val_weight = _class_weights(data.labels, val).to(self._device)
        self._head = Head(data.widths, settings.shape)
        self._head.standardise_by(data.x, self._train)
        self._head.to(self._device)
        self._windows = _Windows(data, settings.sequence_length, self._head, self._device)
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
        """Whether the validation loss has stopped falling, or there were enough epochs."""
        n = len(self._history)
        return n >= self._settings.max_epochs or (
            n > 0 and n - 1 - self._best_epoch >= self._settings.patience
        )

    def epoch(self) -> None:
        """See one window of each training clip; then validate, and remember the best."""
        self._head.train()
        losses = []
        for rows, x in self._windows.batches(self._train, self._settings.batch_size):
            y = self._y[rows]
            loss = self._loss(self._forward(x), y, self._weight)
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._optimiser.step()
            losses.append(loss.detach())
        self._head.eval()
        with torch.no_grad():
            logits = clip_logits(
                lambda x: self._forward(self._windows.standardised(x)),
                self._windows.x,
                self._windows.length,
                self._val,
                self._device,
            )
            y = self._y[self._val.to(self._device)]
            val_loss = self._loss(logits, y, self._val_weight).item()
        scores = logits.cpu().double()
        auc = auc_roc(self._data.labels[self._val.numpy()], scores.numpy())
        self._history.append(Epoch(torch.stack(losses).mean().item(), val_loss, auc))
        if self._best_epoch < 0 or val_loss < self._history[self._best_epoch].val_loss - LEAST:
            self._best_epoch, self._best_logits = len(self._history) - 1, scores
            self._best_state = {k: v.clone() for k, v in self._head.state_dict().items()}
        if self._checkpoint is not None:
            self._keep(self._checkpoint)

    def fold(self) -> Fold:
        """What came of it."""
        self._head.load_state_dict(self._best_state)
        return Fold(
            self._head.cpu(),
            self._val.numpy(),
            self._best_logits.numpy(),
            self._history,
            self._best_epoch,
        )

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        cuda = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=cuda):
            return self._head.logits(x).float()

    def _loss(self, logits: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, y, weight[y.long()])

    def keep_in(self, folder: Path, seed: int) -> None:
        """Write a file after each epoch; go on with the one of this very training."""
        told = [seed, self._train.tolist(), self._val.tolist(), str(self._device)]
        clips = [clip.id for clip in self._data.clips]
        text = json.dumps([told, clips, dataclasses.asdict(self._settings)])
        self._checkpoint = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.pt"
        try:
            state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return
        self._history = [Epoch(*values) for values in state["history"]]
        self._best_epoch, self._best_logits = state["best_epoch"], state["best_logits"]
        self._best_state = state["best"]
        if self.ended:
            return
        self._head.load_state_dict(state["head"])
        self._optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self._device)

    def _keep(self, checkpoint: Path) -> None:
        """Replace it. One that a power cut spoils is not read: the training begins anew."""
        temporary = checkpoint.with_suffix(f".{os.getpid()}")
        _write(temporary, self._state())
        temporary.replace(checkpoint)

    def _state(self) -> dict[str, Any]:
        cuda = self._device.type == "cuda"
        result = {
            "history": [dataclasses.astuple(epoch) for epoch in self._history],
            "best_epoch": self._best_epoch,
            "best_logits": self._best_logits,
            "best": self._best_state,
        }
        if self.ended:
            return result
        return result | {
            "head": self._head.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self._device) if cuda else None,
        }


class _Windows:
    """Random windows of clips, standardised, in batches, on a device.

    What fits on it lies there, standardised once, and a batch is one indexing. The rest is gathered
    in a thread while the batch before is computed.
    """

    def __init__(self, data: Sequences, length: int, head: Head, device: torch.device) -> None:
        tensors = [data.x, *data.copies]
        self._in_file = data.mapped
        self._head, self._device = head, device
        self._resident = not data.mapped and _fits(tensors, device)
        if self._resident:
            tensors = [head.standardised(tensor.to(device)) for tensor in tensors]
        self._tensors = tensors
        self.x = tensors[0]
        self.length = min(length, self.x.shape[1])

    def standardised(self, x: torch.Tensor) -> torch.Tensor:
        """Some of `x`, on the device."""
        return x if self._resident else self._head.standardised(x)

    def batches(
        self, rows: torch.Tensor, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One window of each of these rows: the rows, and (B, length, D) of them."""
        order = rows[_by_blocks(rows) if self._in_file else torch.randperm(len(rows))]
        starts = torch.randint(0, self.x.shape[1] - self.length + 1, (len(rows), 1))
        steps = starts + torch.arange(self.length)
        which = torch.randint(0, len(self._tensors), (len(rows),))
        where = self._device if self._resident else torch.device("cpu")
        drawn = [torch.split(t.to(where), batch_size) for t in (order, steps, which)]
        if self._resident:
            for batch in zip(*drawn, strict=True):
                yield batch[0], self._gather(*batch)
            return
        with ThreadPoolExecutor(1) as ahead:
            waiting = None
            for batch in zip(*drawn, strict=True):
                following = batch[0], ahead.submit(self._bring, *batch)
                if waiting is not None:
                    yield waiting[0].to(self._device), waiting[1].result()
                waiting = following
            if waiting is not None:
                yield waiting[0].to(self._device), waiting[1].result()

    def _gather(self, rows: torch.Tensor, steps: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        parts = [moments(tensor, rows, steps) for tensor in self._tensors]
        if len(parts) == 1:
            return parts[0]
        return torch.stack(parts)[which, torch.arange(len(rows), device=rows.device)]

    def _bring(self, *batch: torch.Tensor) -> torch.Tensor:
        gathered = self._gather(*batch)
        if self._device.type == "cuda":
            gathered = gathered.pin_memory()
        return self._head.standardised(gathered.to(self._device, non_blocking=True))


def _fits(tensors: Sequence[torch.Tensor], device: torch.device) -> bool:
    """Whether a device has room for them, and as much again twice."""
    if device.type != "cuda":
        return True
    return (
        2 * sum(t.numel() * t.element_size() for t in tensors) < torch.cuda.mem_get_info(device)[0]
    )


def _by_blocks(rows: torch.Tensor) -> torch.Tensor:
    """A random order of ascending rows in which neighbours stay near one another."""
    n = len(rows)
    blocks = torch.randperm(math.ceil(n / BLOCK))
    order = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
    order = order[order < n]
    parts = order.split(4 * BLOCK)  # type: ignore[no-untyped-call]
    return torch.cat([part[torch.randperm(len(part))] for part in parts])


def _class_weights(labels: npt.NDArray[np.int64], rows: Indices) -> torch.Tensor:
    """(2,) weights with which both classes count alike and clips count 1 on average."""
    counts = np.bincount(labels[rows], minlength=2)
    return torch.tensor(len(rows) / (2 * np.maximum(counts, 1)), dtype=torch.float32)


@dataclass(frozen=True)
class CrossFit:
    """A head per fold, and the logits that each clip got from the head that never saw it."""

    folds: list[Fold]
    settings: TrainingSettings
    out_of_fold: npt.NDArray[np.float64]  # (N,), NaN for clips in no validation fold

    @property
    def ensemble(self) -> Ensemble:
        """The heads as one model."""
        return Ensemble([fold.head for fold in self.folds], self.settings.sequence_length).eval()

    @property
    def loss(self) -> float:
        """The mean of the folds' best validation losses: what tuning minimises."""
        return float(np.mean([fold.best.val_loss for fold in self.folds]))


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
    """Train one head per fold.

    Args:
        data: the clips of the training split.
        folds: pairs of rows to train on and rows to validate on.
        settings: the same for all folds.
        seed: fold n uses ``seed + n``.
        device: as torch names it.
        progress: called after each fold.
        checkpoints: as of `train_fold`.
    """
    trained = []
    out_of_fold = np.full(len(data.clips), np.nan)
    for n, (train, val) in enumerate(folds):
        fold = train_fold(
            data, train, val, settings, seed=seed + n, device=device, checkpoints=checkpoints
        )
        out_of_fold[val] = fold.val_logits
        trained.append(fold)
        progress()
    return CrossFit(trained, settings, out_of_fold)
