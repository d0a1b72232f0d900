"""Training one head on one fold, and one head per fold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from model.heads import Ensemble, HeadSettings, LSTMHead, Pooling, clip_logits
from model.metrics import auc_roc
from model.sequences import Sequences

Indices = npt.NDArray[np.int64]
Head = Literal["lstm", "gru", "tcn", "transformer", "mean"]


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides a trained head, given the data and the seed."""

    learning_rate: float = 1e-3
    batch_size: int = 8
    sequence_length: int = 32
    weight_decay: float = 1e-3
    dropout: float = HeadSettings.dropout
    hidden: int = HeadSettings.hidden
    layers: int = HeadSettings.layers
    bidirectional: bool = HeadSettings.bidirectional
    pooling: Pooling = HeadSettings.pooling
    max_epochs: int = 60
    patience: int = 12
    head: Head = "lstm"
    streams: tuple[str, ...] = ("flow", "motion")
    fusion: Literal["early", "late"] = "early"

    @property
    def head_settings(self) -> HeadSettings:
        """The shape of the head."""
        return HeadSettings(
            self.hidden, self.layers, self.bidirectional, self.pooling, self.dropout
        )


@dataclass(frozen=True)
class Epoch:
    """Losses are balanced between the classes, in nats."""

    train_loss: float
    val_loss: float
    val_auc: float


@dataclass(frozen=True)
class Fold:
    """A head trained on one fold: the state after its best epoch, which validation chose."""

    head: LSTMHead
    val: Indices  # rows of the validation clips
    val_logits: npt.NDArray[np.float64]  # of the best epoch
    history: list[Epoch]

    @property
    def best(self) -> Epoch:
        """The epoch that was kept."""
        return min(self.history, key=lambda epoch: epoch.val_loss)


def train_fold(
    data: Sequences,
    train: Indices,
    val: Indices,
    settings: TrainingSettings,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> Fold:
    """Train a head until the validation loss stops falling, and keep the best epoch.

    Args:
        data: N clips.
        train: rows to learn from; each epoch sees one random window of each.
        val: rows that decide when to stop; no identity of theirs is among the others.
        settings: of the head and its training.
        seed: of initial weights, order and windows.
        device: as torch names it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these matrices are too small to share out
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _train(data, train, val, settings, device)
    finally:
        torch.set_num_threads(threads)


def _train(
    data: Sequences, train: Indices, val: Indices, settings: TrainingSettings, device: str
) -> Fold:
    x = data.x.to(device)  # (N, L, D)
    seen = torch.stack([x, *(copy.to(device) for copy in data.copies)])  # (1 + copies, N, L, D)
    y = torch.from_numpy(data.labels).to(device, torch.float32)
    weight = _class_weights(data.labels, train).to(device)
    val_weight = _class_weights(data.labels, val).to(device)
    head = LSTMHead(x.shape[-1], settings.head_settings).to(device)
    head.standardise_by(x[train])
    optimiser = torch.optim.AdamW(
        head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    window = min(settings.sequence_length, x.shape[1])
    history: list[Epoch] = []
    best_state, best_logits, best_epoch = head.state_dict(), np.zeros(len(val)), -1
    for number in range(settings.max_epochs):
        head.train()
        losses = []
        order = torch.from_numpy(train)[torch.randperm(len(train))]
        for rows in torch.split(order, settings.batch_size):  # type: ignore[no-untyped-call]
            starts = torch.randint(0, x.shape[1] - window + 1, (len(rows), 1))
            steps = starts + torch.arange(window)  # (B, L)
            which = torch.randint(0, len(seen), (len(rows), 1)) if len(seen) > 1 else 0
            logits = head(seen[which, rows[:, None], steps])
            loss = F.binary_cross_entropy_with_logits(logits, y[rows], weight[y[rows].long()])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.item())
        head.eval()
        with torch.no_grad():
            logits = clip_logits(head, x[val], window)
            val_loss = F.binary_cross_entropy_with_logits(
                logits, y[val], val_weight[y[val].long()]
            ).item()
        scores = logits.cpu().double().numpy()
        history.append(Epoch(float(np.mean(losses)), val_loss, auc_roc(data.labels[val], scores)))
        if best_epoch < 0 or val_loss < history[best_epoch].val_loss:
            best_epoch, best_logits = number, scores
            best_state = {key: value.clone() for key, value in head.state_dict().items()}
        if number - best_epoch >= settings.patience:
            break
    head.load_state_dict(best_state)
    return Fold(head.cpu(), val, best_logits, history)


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
) -> CrossFit:
    """Train one head per fold.

    Args:
        data: the clips of the training split.
        folds: pairs of rows to train on and rows to validate on.
        settings: the same for all folds.
        seed: fold n uses ``seed + n``.
        device: as torch names it.
        progress: called after each fold.
    """
    trained = []
    out_of_fold = np.full(len(data.clips), np.nan)
    for n, (train, val) in enumerate(folds):
        fold = train_fold(data, train, val, settings, seed=seed + n, device=device)
        out_of_fold[val] = fold.val_logits
        trained.append(fold)
        progress()
    return CrossFit(trained, settings, out_of_fold)
