"""A run's folder is read back whole or refused, and nothing in it is executed."""

import json
import pickle
import shutil

import pytest
import torch

from model.run.run import CHECKSUMMED, SCHEMA, load_run, seal
from pipeline.common.errors import IntegrityError, SettingsError


@pytest.fixture
def copy_of_run(fitted, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("config.json", "model.pt"):
        (folder / name).write_bytes((fitted.folder / name).read_bytes())
    seal(folder)
    assert load_run(folder).config.n_heads == 3
    return folder


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"<!doctype html>",
        lambda whole: b"hello world\n",
        lambda whole: pickle.dumps({"a": 1}),
        None,
    ],
    ids=["empty", "cut", "web page", "text", "pickle", "missing"],
)
def test_a_damaged_model_is_an_integrity_error(damage, copy_of_run):
    path = copy_of_run / "model.pt"
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(IntegrityError, match=r"model.pt is not (there|what was written)"):
        load_run(copy_of_run)
    seal(copy_of_run)
    with pytest.raises(IntegrityError, match="is damaged"):
        load_run(copy_of_run)


@pytest.mark.parametrize("name", CHECKSUMMED)
def test_a_flipped_byte_and_a_missing_file_are_found(name, fitted, tmp_path):
    folder = shutil.copytree(fitted.folder, tmp_path / "run")
    load_run(folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(IntegrityError, match="is damaged"):
        load_run(folder)
    (folder / name).unlink()
    with pytest.raises((IntegrityError, SettingsError), match=name):
        load_run(folder)


@pytest.mark.parametrize("text", ["", "hello\n", None])
def test_without_its_checksums_a_run_is_refused(text, copy_of_run):
    sums = copy_of_run / "SHA256SUMS"
    sums.unlink() if text is None else sums.write_text(text)
    with pytest.raises(IntegrityError, match="SHA256SUMS"):
        load_run(copy_of_run)


def test_a_model_of_another_run_is_refused(fitted, copy_of_run):
    state = torch.load(copy_of_run / "model.pt", weights_only=True)
    state = {key: value * 2 if value.is_floating_point() else value for key, value in state.items()}
    torch.save(state, copy_of_run / "model.pt")
    with pytest.raises(IntegrityError, match=r"model.pt is not what was written"):
        load_run(copy_of_run)


def test_code_in_a_model_does_not_run(copy_of_run, tmp_path):
    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    torch.save({"heads.0.mean": Attack()}, copy_of_run / "model.pt")
    seal(copy_of_run)
    with pytest.raises(IntegrityError, match="is damaged"):
        load_run(copy_of_run)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "change", [{"widths": {"flow": 7}}, {"n_heads": 2}, {"training": {"hidden": 5}}]
)
def test_a_config_that_does_not_fit_the_model_is_an_integrity_error(change, copy_of_run):
    path = copy_of_run / "config.json"
    config = json.loads(path.read_text())
    config |= change | {"training": config["training"] | change.get("training", {})}
    path.write_text(json.dumps(config))
    seal(copy_of_run)
    with pytest.raises(IntegrityError, match="is damaged"):
        load_run(copy_of_run)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", f'{{"schema": {SCHEMA}}}'])
def test_a_damaged_config_is_an_integrity_error(text, copy_of_run):
    (copy_of_run / "config.json").write_text(text)
    with pytest.raises(IntegrityError, match="is damaged"):
        load_run(copy_of_run)


def test_a_run_from_before_there_were_trajectories_loads(copy_of_run, fitted):
    path = copy_of_run / "config.json"
    config = json.loads(path.read_text())
    del config["trajectory"], config["strength"]
    path.write_text(json.dumps(config))
    seal(copy_of_run)
    assert load_run(copy_of_run).config == load_run(fitted.folder).config


def test_a_run_of_another_version_is_refused(copy_of_run):
    path = copy_of_run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(SettingsError, match=f"version 99, this program reads {SCHEMA}"):
        load_run(copy_of_run)


def test_what_is_there_instead_of_a_run_is_said(small, tmp_path):
    (tmp_path / "video.mp4").touch()
    for path, said in {
        tmp_path / "nowhere": "does not exist",
        tmp_path / "video.mp4": "is a file; a run is a folder, and comes first",
        small.folder: "is a cache, not a run",
    }.items():
        with pytest.raises(SettingsError, match=said):
            load_run(path)


def test_a_folder_that_is_no_run_is_refused_with_how_to_make_one(tmp_path):
    with pytest.raises(SettingsError, match=r"it has no config.json") as caught:
        load_run(tmp_path)
    assert "python -m model.fit" in caught.value.hint
