"""A packed cache comes out as it went in, or not at all."""

import io
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from pipeline.cache import Cache
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.pack import main, pack, unpack
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def packed(cache, tmp_path_factory):
    file = tmp_path_factory.mktemp("packed") / "cache.h5"
    pack(Cache(cache.folder), file)
    return file


def test_what_comes_out_is_the_same_to_the_byte(cache, packed, tmp_path, contents):
    unpacked = unpack(packed, tmp_path / "new" / "cache")
    assert contents(unpacked.folder) == contents(cache.folder)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cache"]


def test_a_packed_cache_takes_no_more_room_than_the_cache(cache, packed):
    files = sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file())
    assert files < packed.stat().st_size < 1.02 * files + 2**16


def test_the_command_says_what_it_did(cache, packed, tmp_path, call, contents):
    code, out, _ = call(main, cache.folder, "-o", tmp_path / "one.h5")
    assert code == 0 and "every checksum is right" in out
    assert (tmp_path / "one.h5").read_bytes() == packed.read_bytes()
    code, out, _ = call(main, tmp_path / "one.h5", "-o", tmp_path / "again")
    assert code == 0 and "8 clips" in out
    assert contents(tmp_path / "again") == contents(cache.folder)


def test_tables_and_arrays_can_be_read_without_unpacking(cache, packed):
    opened = Cache(cache.folder)
    clip = opened.clips[0]
    with h5py.File(packed) as file:
        assert file["clips"]["id"][0].decode() == clip.id
        assert file.attrs["stage"] == "extract"
        shard = io.BytesIO(file[f"files/{clip.shard}"][:].tobytes())
    with h5py.File(shard) as file:
        assert np.array_equal(file[clip.id]["flow"][:], opened.read(clip, "flow"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999999])
def test_a_file_that_was_cut_short_is_refused_and_leaves_nothing(packed, tmp_path, cut, share):
    short = cut(packed, share, tmp_path / "short.h5")
    with pytest.raises(IntegrityError, match="damaged or cut short"):
        unpack(short, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["short.h5"]


def test_a_flipped_byte_anywhere_is_found_or_changes_nothing(cache, packed, tmp_path, contents):
    content = packed.read_bytes()
    whole = contents(cache.folder)
    found = 0
    places = np.random.default_rng(0).integers(0, len(content), 12).tolist()
    for at in [*places, *range(0, 2000, 200)]:
        changed = bytearray(content)
        changed[at] ^= 0x20
        (tmp_path / "flipped.h5").write_bytes(changed)
        try:
            unpacked = unpack(tmp_path / "flipped.h5", tmp_path / "cache")
        except (IntegrityError, SettingsError):
            found += 1
            continue
        assert contents(unpacked.folder) == whole
        shutil.rmtree(unpacked.folder)
    assert found >= 10


def test_a_damaged_cache_is_not_packed(cache, tmp_path):
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    content = bytearray((folder / "shards/00002.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "shards/00002.h5").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"00002\.h5 is damaged"):
        pack(Cache(folder), tmp_path / "one.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_full_disk_is_not_taken_for_damage(packed, tmp_path):
    command = [sys.executable, "-m", "pipeline.pack", str(packed), "-o", str(tmp_path / "cache")]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 60; exec "$@"', "bash", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(cache, packed, tmp_path):
    before = packed.read_bytes()
    with pytest.raises(SettingsError, match="is there already"):
        pack(Cache(cache.folder), packed)
    assert packed.read_bytes() == before
    (tmp_path / "cache").mkdir()
    with pytest.raises(SettingsError, match="is there already"):
        unpack(packed, tmp_path / "cache")


def test_a_file_that_is_something_else_is_refused(cache, tmp_path):
    with pytest.raises(SettingsError, match="is no packed cache"):
        unpack(cache.folder / "index.h5", tmp_path / "cache")
    (tmp_path / "text.h5").write_text("dear")
    with pytest.raises(IntegrityError, match="damaged or cut short"):
        unpack(tmp_path / "text.h5", tmp_path / "cache")


@pytest.mark.parametrize("name", ["../outside", "shards/../../outside", "run.sh", "shards/a.h5"])
def test_a_strangers_file_writes_nowhere_but_into_the_cache(packed, tmp_path, name):
    hostile = shutil.copy(packed, tmp_path / "hostile.h5")
    with h5py.File(hostile, "r+") as file:
        file[f"files/{name}"] = file["files/names.csv"]
    with pytest.raises(IntegrityError):
        unpack(hostile, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.h5"]
