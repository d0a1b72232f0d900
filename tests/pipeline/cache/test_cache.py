"""A cache is whole or refused: sound files, readable by anybody, and no way out of its folder."""

import dataclasses
import pickle
import shutil
from contextlib import suppress

import h5py
import numpy as np
import pytest

from data.clips import made_up_clip
from pipeline.cache import (
    CHUNK_BYTES,
    SCHEMA,
    Cache,
    check_same_settings,
    read_shard,
    shard_row,
    write_index,
    write_shard,
)
from pipeline.errors import IntegrityError, PipelineError, SettingsError
from pipeline.files import sha256_of, write_csv, write_whole

SETTINGS = {"width": 64, "crop": None, "fps": 12.5}


def clip(id, shard, **facts):
    known = {"id": id, "video": id, "identities": ("ann", "bo"), "shard": shard, "n_frames": 6}
    return made_up_clip(0, **known | facts)


def arrays(seed=0, size=(48, 64)):
    rng = np.random.default_rng(seed)
    return {
        "frames": rng.integers(0, 256, (6, *size, 3)).astype(np.uint8),
        "flow": rng.integers(0, 256, (5, *size)).astype(np.uint8),
        "flow_range": rng.random((5, 2)).astype(np.float32),
        "timestamps": np.arange(6) / 25,
    }


def make(folder, *, names=("shards/00000.h5", "shards/00001.h5"), clips=None, shards=None):
    """A cache of two clips in two shards."""
    ids = ("c0ffee0", "decaf01")
    written = [
        write_shard(folder, name, {id: arrays(n)}, attrs={"settings": "x"})
        for n, (id, name) in enumerate(zip(ids, names, strict=True))
    ]
    rows = [clip(ids[0], names[0]), clip(ids[1], names[1], label=1, split="", identities=())]
    write_index(
        folder,
        stage="extract",
        settings=SETTINGS,
        attrs={"frames": 6, "made_by": "a test"},
        clips=clips or rows,
        shards=shards or written,
    )
    return folder


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "cache")


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def middle_of(path, dataset):
    """Where in a file the stored bytes of a dataset's first chunk are."""
    with h5py.File(path) as file:
        chunk = file[dataset].id.get_chunk_info(0)
        return chunk.byte_offset + chunk.size // 2


# ------------------------------------------------------------------------------------ round trip


def test_what_is_written_is_read(folder):
    cache = Cache(folder, "extract")
    assert (cache.stage, cache.settings) == ("extract", SETTINGS)
    assert (cache.attrs["frames"], cache.attrs["made_by"]) == (6, "a test")
    first, second = cache.clips
    assert first == clip("c0ffee0", "shards/00000.h5")
    assert (second.label, second.split, second.identities) == (1, "", ())
    for n, row in enumerate(cache.clips):
        for key, expected in arrays(n).items():
            found = cache.read(row, key)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(cache.read(first, "flow", slice(1, 3)), arrays(0)["flow"][1:3])
    assert cache.clip("decaf01") == second


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_every_compression_gives_back_the_same(tmp_path, compression):
    write_shard(tmp_path, "shards/00000.h5", {"a": arrays()}, attrs={}, compression=compression)
    with h5py.File(tmp_path / "shards/00000.h5") as file:
        assert file["a/flow"].compression == (None if compression == "none" else compression)
    for key, found in read_shard(tmp_path, "shards/00000.h5")["a"].items():
        np.testing.assert_array_equal(found, arrays()[key])


def test_the_same_content_gives_the_same_bytes(folder, tmp_path, contents):
    assert contents(folder) == contents(make(tmp_path / "again"))


def test_shapes_and_bytes_on_disk_are_told_without_reading(folder):
    cache = Cache(folder)
    shape, dtype, size = cache.datasets(cache.clips[0])["flow"]
    assert (shape, dtype) == ((5, 48, 64), np.uint8)
    assert 0 < size <= 5 * 48 * 64 * 1.1


def test_a_cache_can_be_sent_to_another_process(folder):
    cache = pickle.loads(pickle.dumps(Cache(folder)))
    assert cache.read(cache.clips[0], "flow").shape == (5, 48, 64)


def test_its_sha256_names_its_content(folder, tmp_path):
    cache = Cache(folder)
    assert cache.sha256 == sha256_of(folder / "index.h5")
    other = [dataclasses.replace(cache.shards[0], sha256="0" * 64), cache.shards[1]]
    assert Cache(make(tmp_path / "other", shards=other)).sha256 != cache.sha256


# ---------------------------------------------------------------------------------------- layout


def test_chunks_are_whole_rows_of_about_a_mebibyte_each_with_a_checksum(tmp_path):
    big = {
        "frames": np.zeros((40, 224, 224, 3), np.uint8),
        "flow": np.zeros((39, 224, 224), np.uint8),
        "flow_range": np.zeros((39, 2), np.float32),
        "timestamps": np.zeros(40),
        "huge": np.zeros((2, 1100, 1100), np.uint8),
    }
    write_shard(tmp_path, "shards/00000.h5", {"a": big}, attrs={})
    with h5py.File(tmp_path / "shards/00000.h5") as file:
        for key, dataset in file["a"].items():
            rows, *rest = dataset.chunks
            assert tuple(rest) == big[key].shape[1:]
            row = big[key][0].nbytes
            assert rows == 1 or rows * row <= CHUNK_BYTES
            assert rows == len(big[key]) or (rows + 1) * row > CHUNK_BYTES
            assert dataset.fletcher32
        assert file["a/frames"].chunks[0] == 6
        assert file["a/flow"].chunks[0] == 20


def test_the_tables_of_the_index_have_checksums(folder):
    with h5py.File(folder / "index.h5") as file:
        assert file["clips"].fletcher32 and file["shards"].fletcher32


def test_plain_h5py_follows_the_index_from_another_folder(folder, tmp_path, monkeypatch):
    moved = shutil.move(folder, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    with h5py.File(moved / "index.h5") as file:
        assert list(file["clips"]["id"].astype(str)) == ["c0ffee0", "decaf01"]
        np.testing.assert_array_equal(file["data/c0ffee0/flow"][:], arrays(0)["flow"])
        np.testing.assert_array_equal(file["data/decaf01/frames"][2], arrays(1)["frames"][2])
        link = file.get("data/c0ffee0", getlink=True)
        assert link.filename == "shards/00000.h5"


# ----------------------------------------------------------------------------------- whole files


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    def half(path):
        path.write_text("half")
        assert not (tmp_path / "file").exists()
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        write_whole(tmp_path / "file", half)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path):
    write_whole(tmp_path / "file", lambda path: path.write_text("old"))

    def half(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", half)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_others_may_read_what_is_written(tmp_path):
    write_whole(tmp_path / "file", lambda path: path.write_text("x"))
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_shard_that_cannot_be_written_is_not_there(tmp_path):
    with pytest.raises(TypeError):
        write_shard(tmp_path, "shards/00000.h5", {"a": {"x": np.array([object()])}}, attrs={})
    assert list((tmp_path / "shards").iterdir()) == []


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
    for at in np.linspace(0, len(whole) - 1, 60).astype(int).tolist() + list(range(0, 800, 40)):
        shard.write_bytes(whole)
        flip(shard, at)
        assert next(cache.verify())[1], f"byte {at} of {len(whole)}"


def test_reading_around_a_flipped_byte_fails_for_the_user_never_for_the_program(folder):
    shard = folder / "shards/00000.h5"
    whole = shard.read_bytes()
    cache = Cache(folder)
    for at in range(0, 3000, 37):  # the structures of the file: superblock, groups, headers
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


def test_a_cache_from_before_sources_were_kept_is_read(folder):
    with h5py.File(folder / "index.h5", "r+") as file:
        rows = file["clips"][:]
        del file["clips"]
        later = ("source", "manipulation", "compression")
        file["clips"] = rows[[name for name in rows.dtype.names if name not in later]].copy()
    assert {(c.source, c.manipulation, c.compression) for c in Cache(folder).clips} == {("",) * 3}


def test_a_flipped_byte_in_the_index_never_fails_the_program(folder):
    index = folder / "index.h5"
    whole = index.read_bytes()
    for at in range(0, len(whole), 53):
        index.write_bytes(whole)
        flip(index, at)
        with suppress(PipelineError):
            Cache(folder)


def test_a_clip_in_no_shard_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match="c0ffee9 is in no shard"):
        Cache(make(tmp_path / "cache", clips=[clip("c0ffee9", "shards/00007.h5")]))


# ------------------------------------------------------------------------------- what is refused


def test_a_folder_that_is_no_cache_is_refused_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(SettingsError, match=r"it has no index\.h5") as error:
        Cache(tmp_path, "extract")
    assert "pipeline.extract" in error.value.hint
    with pytest.raises(SettingsError) as error:
        Cache(tmp_path, "embed")
    assert "features.embed" in error.value.hint


def test_what_is_there_instead_of_a_cache_is_said(tmp_path):
    with pytest.raises(SettingsError, match="nowhere does not exist"):
        Cache(tmp_path / "nowhere")
    with h5py.File(tmp_path / "packed.h5", "w"):
        pass
    with pytest.raises(SettingsError, match="is a file") as error:
        Cache(tmp_path / "packed.h5")
    assert "pipeline.pack" in error.value.hint
    (tmp_path / "begun" / ".work").mkdir(parents=True)
    with pytest.raises(SettingsError, match="is not a finished cache") as error:
        Cache(tmp_path / "begun")
    assert "goes on where it stopped" in error.value.hint


def test_a_later_layout_is_refused(folder):
    with h5py.File(folder / "index.h5", "r+") as file:
        file.attrs["schema"] = SCHEMA + 1
    with pytest.raises(SettingsError, match=f"layout version {SCHEMA + 1}"):
        Cache(folder)


def test_another_stage_is_refused(folder):
    with pytest.raises(SettingsError, match="written by the extract stage, the embed stage"):
        Cache(folder, "embed")


def test_an_unknown_clip_is_refused_with_an_id_to_go_by(folder):
    with pytest.raises(SettingsError, match="no clip 'nobody'") as error:
        Cache(folder).clip("nobody")
    assert "c0ffee0" in error.value.hint


def test_other_settings_are_named_with_both_values(tmp_path):
    check_same_settings(tmp_path, SETTINGS, dict(SETTINGS))
    with pytest.raises(SettingsError) as error:
        check_same_settings(tmp_path, SETTINGS, {"width": 64, "fps": 25.0, "crop": None, "new": 1})
    assert "fps was 12.5, now 25.0" in str(error.value)
    assert "new was None, now 1" in str(error.value)
    assert "width" not in str(error.value)


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


# ------------------------------------------------------------------------------------- CSV files


def test_names_and_rejects_are_read_back(folder):
    write_csv(folder / "names.csv", ["id", "path"], [["c0ffee0", "REAL/a.mp4"]])
    write_csv(folder / "rejected.csv", ["path", "reason", "detail"], [["b.mp4", "too short", "5"]])
    cache = Cache(folder)
    assert cache.names() == {"c0ffee0": "REAL/a.mp4"}
    assert cache.rejected() == [{"path": "b.mp4", "reason": "too short", "detail": "5"}]


def test_a_cache_without_them_has_none(folder):
    cache = Cache(folder)
    assert (cache.names(), cache.rejected()) == ({}, [])
