"""Caches serve other trainers: datasets that survive workers, and a table of clips."""

import itertools
import pickle
import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from features.datasets import ByShard, CacheDataset, clip_table
from features.embedding import embed
from pipeline.common.errors import NothingUsable, SettingsError
from tests.conftest import ROOT


@pytest.mark.parametrize("n_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_loader_gives_every_clip_of_a_split_once_with_its_label(clips, n_workers):
    dataset = CacheDataset(clips.folder, "flow", split="train")
    loader = DataLoader(
        dataset, 2, sampler=ByShard(dataset), num_workers=n_workers,
        multiprocessing_context="spawn" if n_workers else None,
    )  # fmt: skip
    found = [(maps, int(label)) for batch in loader for maps, label in zip(*batch, strict=True)]
    expected = {
        clips.read(clip, "flow").tobytes(): clip.label
        for clip in clips.clips
        if clip.split == "train"
    }
    assert len(found) == len(expected)
    assert {maps.numpy().tobytes(): label for maps, label in found} == expected


def test_embeddings_are_served_in_the_same_way(clips, mobilenet, tmp_path):
    embedded = embed(clips, tmp_path / "out", mobilenet)
    dataset = CacheDataset(embedded, "motion", split="test")
    x, label = dataset[0]
    np.testing.assert_array_equal(x, embedded.read(dataset.clips[0], "motion"))
    assert label == dataset.clips[0].label


def test_parts_of_a_clip_begin_anywhere(clips):
    dataset = CacheDataset(clips, "timestamps", split="train", length=3)
    torch.manual_seed(0)
    starts = {float(dataset[0][0][0]) for _ in range(60)}
    whole = clips.read(dataset.clips[0], "timestamps")
    assert starts == set(whole[:-2].tolist())
    assert len(dataset[0][0]) == 3


def test_a_dataset_survives_pickling(clips):
    dataset = CacheDataset(clips, "flow", split="train")
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[1][0], dataset[1][0])


def test_shards_are_shuffled_and_read_in_one_go(clips):
    dataset = CacheDataset(clips, "flow", split="train")
    for n, clip in enumerate(dataset.clips):
        object.__setattr__(clip, "shard", f"shards/{n // 2:05}.h5")
    sampler = ByShard(dataset, seed=1)
    epochs = [list(sampler) for _ in range(4)]
    assert all(sorted(epoch) == list(range(len(dataset))) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    for epoch in epochs:
        shards = [dataset.clips[n].shard for n in epoch]
        assert len(set(shards)) == 1 + sum(a != b for a, b in itertools.pairwise(shards))
    assert list(ByShard(dataset, seed=1)) == epochs[0]


def test_what_is_not_there_is_refused_with_what_is(clips):
    with pytest.raises(SettingsError, match="has no 'sound'") as caught:
        CacheDataset(clips, "sound", split="train")
    assert "flow_range" in caught.value.hint
    with pytest.raises(NothingUsable, match="in the split 'val'"):
        CacheDataset(clips, "flow", split="val")
    with pytest.raises(SettingsError, match="length 99"):
        CacheDataset(clips, "flow", split="train", length=99)


def test_the_table_has_a_row_a_clip(clips):
    pytest.importorskip("pandas")
    table = clip_table(clips.folder)
    assert list(table.index) == [clip.id for clip in clips.clips]
    assert table.loc[clips.clips[0].id, "label"] == clips.clips[0].label
    assert table.groupby("split").size().sum() == len(clips.clips)


def test_the_lines_in_the_docs_run(clips, mobilenet, tmp_path):
    pytest.importorskip("pandas")
    embedded = embed(clips, tmp_path / "out", mobilenet)
    text = (ROOT / "docs" / "embeddings.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    for written, here in {
        "caches/dfd-resnet18": str(embedded.folder),
        "caches/dfd": str(clips.folder),
        "length=32": "length=3",
        "num_workers=2": "num_workers=0",
    }.items():
        assert written in code
        code = code.replace(written, here)
    names = {}
    exec(code, names)
    assert names["x"].shape[1:] == (3, 64, 64)
    assert len(names["table"]) == len(clips.clips)
    assert names["vectors"][0][0].shape == (8, 1280)
