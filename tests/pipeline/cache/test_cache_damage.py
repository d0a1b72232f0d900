"""Damage to a cache is found wherever it is, and no stranger's cache leads out of its folder."""

import dataclasses
import shutil
from contextlib import suppress

import h5py
import numpy as np
import pytest

from pipeline.cache import Cache, shard_row, write_index
from pipeline.common.errors import IntegrityError, PipelineError
from tests.pipeline.cache.conftest import SETTINGS, arrays, clip, make


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def middle_of(path, dataset):
    """Where in a file the stored bytes of a dataset's first chunk are."""
    with h5py.File(path) as file:
        chunk = file[dataset].id.get_chunk_info(0)
        return chunk.byte_offset + chunk.size // 2


# ----------------------------------------------------------------------------------------- damage


def test_a_sound_cache_verifies(folder):
    names = ["shards/00000.h5", "shards/00001.h5", "index.h5", "SHA256SUMS"]
    assert list(Cache(folder).verify()) == [(name, "") for name in names]


def test_a_flipped_byte_in_the_data_is_found_by_reading_and_by_verifying(folder):
    shard = folder / "shards/00001.h5"
    flip(shard, middle_of(shard, "decaf01/flow"))
    cache = Cache(folder)
    with pytest.raises(IntegrityError, match=r"decaf01/flow.*00001\.h5"):
        cache.read(cache.clips[1], "flow")
    cache.read(cache.clips[0], "flow")
    faults = dict(cache.verify())
    assert not faults["shards/00000.h5"]
    assert faults["shards/00001.h5"]


def test_a_flipped_byte_anywhere_is_found_by_verifying(folder):
    shard = folder / "shards/00000.h5"
    whole = shard.read_bytes()
    cache = Cache(folder)
    for at in np.linspace(0, len(whole) - 1, 30).astype(int).tolist() + list(range(0, 800, 80)):
        shard.write_bytes(whole)
        flip(shard, at)
        assert next(cache.verify())[1], f"byte {at} of {len(whole)}"


def test_reading_around_a_flipped_byte_fails_for_the_user_never_for_the_program(folder):
    shard = folder / "shards/00000.h5"
    whole = shard.read_bytes()
    cache = Cache(folder)
    for at in range(0, 3000, 74):  # the structures of the file: superblock, groups, headers
        shard.write_bytes(whole)
        flip(shard, at)
        for key in arrays():
            with suppress(IntegrityError):
                cache.read(cache.clips[0], key)


def test_a_dataset_that_is_not_there_is_an_error_that_names_it(folder):
    cache = Cache(folder)
    with pytest.raises(IntegrityError, match="c0ffee0/audio"):
        cache.read(cache.clips[0], "audio")


def test_a_missing_shard_is_refused_at_opening(folder):
    (folder / "shards/00001.h5").unlink()
    with pytest.raises(IntegrityError, match=r"00001\.h5 is missing"):
        Cache(folder)


def test_a_short_shard_is_refused_at_opening(folder, cut):
    cut(folder / "shards/00001.h5", 0.5)
    with pytest.raises(IntegrityError, match=r"00001\.h5 has \d+ bytes"):
        Cache(folder)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all\n" * 100], ids=["empty", "text"])
def test_an_index_that_is_not_hdf5_is_damaged(folder, content):
    (folder / "index.h5").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"index\.h5 is damaged"):
        Cache(folder)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_an_index_that_was_cut_is_damaged(folder, cut, share):
    cut(folder / "index.h5", share)
    with pytest.raises(IntegrityError):
        Cache(folder)


@pytest.mark.parametrize("gone", ["clips", "shards"])
def test_an_index_without_its_tables_is_damaged(folder, gone):
    with h5py.File(folder / "index.h5", "r+") as file:
        del file[gone]
    with pytest.raises(IntegrityError):
        Cache(folder)


@pytest.mark.parametrize("gone", ["settings", "stage"])
def test_an_index_without_its_attributes_is_damaged(folder, gone):
    with h5py.File(folder / "index.h5", "r+") as file:
        del file.attrs[gone]
    with pytest.raises(IntegrityError):
        Cache(folder)


def test_settings_that_are_not_json_are_damage(folder):
    with h5py.File(folder / "index.h5", "r+") as file:
        file.attrs["settings"] = "{width: 64}"
    with pytest.raises(IntegrityError):
        Cache(folder)


@pytest.mark.parametrize("table", ["clips", "shards"])
def test_a_table_with_other_columns_is_damage(folder, table):
    with h5py.File(folder / "index.h5", "r+") as file:
        rows = file[table][:]
        del file[table]
        file[table] = rows[[name for name in rows.dtype.names if name != "n_bytes"]].copy()
    with pytest.raises(IntegrityError):
        Cache(folder)


def test_a_column_that_grew_over_the_next_one_is_damage_and_not_read(folder):
    """A float of another exponent bias is a longdouble to h5py, at the offsets of the file."""
    index = folder / "index.h5"
    content = index.read_bytes()
    flip(index, content.index(b"\xff\x03\0\0", content.index(b"duration\0")))
    with pytest.raises(IntegrityError, match="the columns of 'clips' overlap"):
        Cache(folder)


def test_a_flipped_byte_in_the_index_never_fails_the_program(folder):
    index = folder / "index.h5"
    whole = index.read_bytes()
    for at in range(0, len(whole), 107):
        index.write_bytes(whole)
        flip(index, at)
        with suppress(PipelineError):
            Cache(folder)


def test_a_clip_in_no_shard_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match="c0ffee9 is in no shard"):
        Cache(make(tmp_path / "cache", clips=[clip("c0ffee9", "shards/00007.h5")]))


# -------------------------------------------------------------------------------- from strangers


@pytest.mark.parametrize("name", ["../outside.h5", "shards/../../outside.h5", "ABSOLUTE"])
def test_an_index_that_names_a_shard_elsewhere_is_refused(folder, tmp_path, name):
    outside = shutil.copy(folder / "shards/00000.h5", tmp_path / "outside.h5")
    name = str(outside) if name == "ABSOLUTE" else name
    shard = dataclasses.replace(Cache(folder).shards[0], name=name)
    make(folder, clips=[clip("c0ffee0", name)], shards=[shard])
    with pytest.raises(IntegrityError, match="outside itself"):
        Cache(folder)


def test_a_shard_that_is_a_link_is_refused(folder, tmp_path):
    shard = folder / "shards/00000.h5"
    shutil.move(shard, tmp_path / "outside.h5")
    shard.symlink_to(tmp_path / "outside.h5")
    with pytest.raises(IntegrityError, match="outside itself"):
        Cache(folder)


def test_a_folder_of_shards_that_is_a_link_is_refused(folder, tmp_path):
    shutil.move(folder / "shards", tmp_path / "outside")
    (folder / "shards").symlink_to(tmp_path / "outside")
    with pytest.raises(IntegrityError):
        Cache(folder)


def replaced(folder, put):
    """The cache with the flow of its first clip replaced by what ``put(clip group)`` puts there."""
    shard = folder / "shards/00000.h5"
    with h5py.File(shard, "r+") as file:
        del file["c0ffee0/flow"]
        put(file["c0ffee0"])
    write_index(
        folder,
        stage="extract",
        settings=SETTINGS,
        attrs={},
        clips=[clip("c0ffee0", "shards/00000.h5")],
        shards=[shard_row(folder, "shards/00000.h5")],
    )
    return Cache(folder)


@pytest.mark.parametrize("way", ["link", "raw file", "virtual"])
def test_no_dataset_leads_out_of_a_cache(folder, tmp_path, way):
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["flow"] = np.full((5, 48, 64), 42, np.uint8)
    (tmp_path / "outside.raw").write_bytes(bytes([42]) * (5 * 48 * 64))
    shape, kind = (5, 48, 64), np.uint8

    def put(group):
        if way == "link":
            group["flow"] = h5py.ExternalLink(str(tmp_path / "outside.h5"), "flow")
        elif way == "raw file":
            where = [(str(tmp_path / "outside.raw"), 0, h5py.h5f.UNLIMITED)]
            group.create_dataset("flow", shape, kind, external=where)
        else:
            layout = h5py.VirtualLayout(shape, kind)
            layout[:] = h5py.VirtualSource(str(tmp_path / "outside.h5"), "flow", shape, kind)
            group.create_virtual_dataset("flow", layout)

    cache = replaced(folder, put)
    with pytest.raises(IntegrityError):
        cache.read(cache.clips[0], "flow")
    assert [fault for _, fault in cache.verify()] != [""]
