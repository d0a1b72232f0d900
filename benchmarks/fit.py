"""How fast is training? ``python -m benchmarks.fit [--device cuda]``.

The same head is trained on random embeddings, from the same weights and on the same batches, by
`model.training.train` and by the usual loop: a ``Dataset`` that opens the HDF5 file for each item,
and a ``DataLoader`` with and without workers. That loop is also fed from memory, as no data loading
can be faster. Epochs alternate; ratios are medians; losses must agree to 1e-5.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from data.clips import made_up_clip, write_shard
from features.motion import NAMES
from model.settings import TrainingSettings
from model.training.heads import Head, clip_logits
from model.training.sequences import load_sequences
from model.training.train import _class_weights, _Training
from pipeline.cache import Cache, write_index
from pipeline.settings import Settings

DIMENSION = 512
CORPORA = {  # training clips, validation clips, flow maps
    "the notebook's": (26, 6, 304),
    "400 clips": (320, 80, 64),
}
EPOCHS = 6
CLIPS_PER_SHARD = 32


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    torch.set_num_threads(1)
    for name, (n_train, n_val, n_maps) in CORPORA.items():
        with tempfile.TemporaryDirectory() as folder:
            cache = make_cache(Path(folder) / "cache", n_train + n_val, n_maps)
            print(f"{name}: {n_train} + {n_val} clips of {n_maps} maps, {device}")
            rows = np.arange(n_train), np.arange(n_train, n_train + n_val)
            for head in ("lstm", "mean"):
                settings = TrainingSettings(streams=("flow", "motion"), head=head)
                for workers in (0, 2):
                    compare(cache, rows, settings, device, workers)


def compare(cache, rows, settings, device, workers):
    train, val = rows
    begin = time.perf_counter()
    data = load_sequences(cache, settings.streams, ("train",))
    loading = time.perf_counter() - begin
    torch.manual_seed(0)
    ours = _Training(data, train, val, settings, device)
    torch.manual_seed(0)
    theirs = Usual(cache, data, train, val, settings, device, workers)
    torch.manual_seed(0)
    fed = Fed(cache, data, train, val, settings, device, workers=0)
    seconds, losses = [], []
    for epoch in range(EPOCHS + 1):  # the first warms up
        spent = []
        for side in (ours, theirs, fed):
            torch.manual_seed(epoch)
            if side is fed:
                fed.load()
            begin = time.perf_counter()
            side.epoch()
            if device != "cpu":
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - begin)
        seconds.append(spent)
        own = ours._history[-1].train_loss, ours._history[-1].val_loss
        losses.append([own, theirs.losses, fed.losses])
    gap = np.ptp(losses, axis=1).max()
    a, b, c = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs, _ in seconds[1:])
    most = statistics.median(theirs / fed for _, theirs, fed in seconds[1:])
    print(
        f"  {settings.head}: {1 / a:.1f} epochs/s, DataLoader with {workers} workers {1 / b:.2f}, "
        f"ratio {ratio:.1f}; fed from memory that loop does {1 / c:.1f}, ratio {most:.1f}; "
        f"losses differ by {gap:.0e}; reading all at the start {loading:.2f} s",
        flush=True,
    )


class PerItem(Dataset):
    """Dataset that opens the file for each item; its indices are (clip, start, length)."""

    def __init__(self, cache, clips):
        self.path, self.ids = cache.folder / "index.h5", [clip.id for clip in clips]
        self.labels = [clip.label for clip in clips]

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        n, start, length = index
        with h5py.File(self.path) as file:
            clip = file["data"][self.ids[n]]
            part = slice(start, start + length)
            flow, motion = clip["flow"][part], clip["motion"][part]
        x = np.concatenate([flow.astype(np.float32), motion], axis=1)
        return torch.from_numpy(x), float(self.labels[n])


class Usual:
    """The usual training loop, on the batches that `model.training.train` draws."""

    def __init__(self, cache, data, train, val, settings, device, workers):
        self.items = PerItem(cache, data.clips)
        self.train, self.val, self.settings, self.device = train, val, settings, device
        self.length, self.workers = data.x.shape[1], workers
        self.crop_length = min(settings.sequence_length, self.length)
        self.weight = _class_weights(data.labels, train).to(device)
        self.val_weight = _class_weights(data.labels, val).to(device)
        self.head = Head(data.widths, settings)
        self.head.standardise_by(data.x, torch.from_numpy(train))
        self.head.to(device)
        self.optimiser = torch.optim.AdamW(
            self.head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.plan, self.whole = [], []
        self.loader = self._load(self.plan)
        self.val_loader = self._load(self.whole)
        whole = [(n, 0, self.length) for n in val.tolist()]
        size = settings.batch_size
        self.whole += [whole[n : n + size] for n in range(0, len(whole), size)]

    def _load(self, batches):
        return DataLoader(
            self.items,
            batch_sampler=batches,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            generator=torch.Generator(),
        )

    def _draw(self):
        """Draw the batches of an epoch with the same random numbers in the same order."""
        n = len(self.train)
        order = torch.from_numpy(self.train)[torch.randperm(n)].tolist()
        starts = torch.randint(0, self.length - self.crop_length + 1, (n, 1)).flatten().tolist()
        torch.randint(0, 1, (n,))
        crops = [(row, start, self.crop_length) for row, start in zip(order, starts, strict=True)]
        size = self.settings.batch_size
        self.plan[:] = [crops[k : k + size] for k in range(0, n, size)]

    def _loss(self, logits, y, weight):
        return F.binary_cross_entropy_with_logits(logits, y, weight[y.long()])

    def epoch(self):
        """Train, then validate."""
        self._draw()
        self._epoch(self.loader, self.val_loader)

    def _epoch(self, batches, val_batches):
        self.head.train()
        losses = []
        for x, y in batches:
            x, y = x.to(self.device), y.to(self.device, torch.float32)
            loss = self._loss(self.head(x), y, self.weight)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
            self.optimiser.step()
            losses.append(loss.item())
        self.head.eval()
        with torch.no_grad():
            parts = [
                (clip_logits(self.head, x.to(self.device), self.crop_length), y.to(self.device))
                for x, y in val_batches
            ]
        logits, y = (torch.cat(part) for part in zip(*parts, strict=True))
        val_loss = self._loss(logits, y.to(torch.float32), self.val_weight).item()
        self.losses = (float(np.mean(losses)), val_loss)


class Fed(Usual):
    """The usual loop over batches that were loaded before."""

    def load(self):
        """Load the batches of the next epoch."""
        self._draw()
        self._loaded = list(self.loader), list(self.val_loader)

    def epoch(self):
        """Train, then validate."""
        self._epoch(*self._loaded)


def make_cache(folder, n_clips, n_maps):
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(n_maps)[:, None], 2, axis=1)
    clips, shards = [], []
    for first in range(0, n_clips, CLIPS_PER_SHARD):
        name, content = f"shards/{first // CLIPS_PER_SHARD:05d}.h5", {}
        for n in range(first, min(first + CLIPS_PER_SHARD, n_clips)):
            clips.append(made_up_clip(n, n % 2, shard=name, n_frames=n_maps + 1))
            content[clips[-1].id] = {
                "flow": rng.normal(size=(n_maps, DIMENSION)).astype(np.float16),
                "motion": rng.normal(size=(n_maps, len(NAMES))).astype(np.float32),
                "rows": rows,
            }
        shards.append(write_shard(folder, name, content, attrs={"settings": "random"}))
    write_index(
        folder,
        stage="embed",
        settings={"streams": ["flow"], "augment": []},
        attrs={
            "backbone": "none",
            "dimension": DIMENSION,
            "motion": json.dumps(NAMES),
            "source_settings": json.dumps(dataclasses.asdict(Settings())),
            "rejected": "{}",
            "frames": n_maps + 1,
            "versions": "{}",
        },
        clips=clips,
        shards=shards,
    )
    return Cache(folder, "embed")


if __name__ == "__main__":
    main()
