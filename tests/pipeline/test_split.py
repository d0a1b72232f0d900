"""A cache gets another split without any of its shards being made again."""

import os

import numpy as np
import pytest

from pipeline.cache import Cache
from pipeline.common.errors import SettingsError
from pipeline.split import main, resplit
from pipeline.splits.protocols import Splitting


def test_the_command_splits_anew_and_leaves_the_old_cache_alone(cache, call, contents, tmp_path):
    before = contents(cache.folder)
    new = tmp_path / "deep" / "fold"
    code, out, err = call(main, cache.folder, "-o", new, "--split", "fold:1/2")
    assert code == 0, err
    assert f"{new}: 8 clips" in out
    old, again = Cache(cache.folder), Cache(new)
    assert contents(cache.folder) == before
    assert [clip.id for clip in again.clips] == [clip.id for clip in old.clips]
    assert {clip.split for clip in again.clips} <= {"train", "test", ""}
    assert again.settings["splitting"]["by"] == "fold:1/2"
    assert again.settings | {"splitting": None} == old.settings | {"splitting": None}
    for one, other in zip(old.clips, again.clips, strict=True):
        np.testing.assert_array_equal(old.read(one, "flow"), again.read(other, "flow"))
    assert again.names() == old.names()
    assert again.rejected() == old.rejected()
    assert "By `fold:1/2`" in (new / "datacard.md").read_text()
    assert not list(tmp_path.glob("**/.*"))


def test_the_same_split_is_the_same_cache(cache, contents, tmp_path):
    resplit(Cache(cache.folder), tmp_path / "again", Splitting())
    assert contents(tmp_path / "again") == contents(cache.folder)


def test_shards_are_linked(cache, tmp_path):
    new = resplit(Cache(cache.folder), tmp_path / "new", Splitting(seed=5))
    for shard in new.shards:
        assert os.stat(new.folder / shard.name).st_nlink > 1  # noqa: PTH116


def test_a_file_system_without_links_gets_copies(cache, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    new = resplit(Cache(cache.folder), tmp_path / "new", Splitting())
    assert all(fault == "" for _, fault in new.verify())


def test_a_folder_that_is_there_is_not_touched(cache, tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(SettingsError, match="exists already"):
        resplit(Cache(cache.folder), tmp_path, Splitting())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_protocol_that_does_not_fit_leaves_nothing_behind(cache, tmp_path):
    with pytest.raises(SettingsError, match="no video here is in an official split"):
        resplit(Cache(cache.folder), tmp_path / "new", Splitting(by="official"))
    assert list(tmp_path.iterdir()) == []
