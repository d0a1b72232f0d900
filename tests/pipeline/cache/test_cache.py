"""A cache is whole or refused: sound files, readable by anybody, and what is no cache is named."""

import dataclasses
import json
import pickle
import shutil

import h5py
import numpy as np
import pytest

from data.clips import write_shard
from pipeline.cache import CHUNK_BYTES, Cache, check_same_settings, read_shard
from pipeline.cache.layout import SCHEMA
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import SettingsError
from pipeline.common.files import sha256_of, write_whole
from pipeline.settings import Settings
from tests.pipeline.cache.conftest import SETTINGS, arrays, clip, make

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


def test_a_cache_made_before_some_settings_were_there_is_the_same_with_their_defaults(tmp_path):
    now = json.loads(json.dumps(dataclasses.asdict(Settings())))
    before = {key: value for key, value in now.items() if key != "own_fakes"}
    before["splitting"] = {k: v for k, v in now["splitting"].items() if k != "train_on"}
    check_same_settings(tmp_path, before, now)
    assert Settings.from_json(before) == Settings()
    with pytest.raises(SettingsError, match="train_on was None, now 'all'"):
        check_same_settings(
            tmp_path, before, now | {"splitting": now["splitting"] | {"train_on": "all"}}
        )
