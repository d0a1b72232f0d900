"""Folders for the meantime leave nothing behind, and take nothing that is not theirs."""

import subprocess
import sys

import pytest

from pipeline.common.files import scratch_folder

HOLDER = """
import sys, pathlib
from pipeline.common.files import scratch_folder

with scratch_folder("ours-", pathlib.Path(sys.argv[1])) as folder:
    (folder / "deeper").mkdir()
    (folder / "deeper" / "file").write_text("large")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that is in its folder, and the path of that."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process, tmp_path / process.stdout.readline().strip()
        process.kill()


def test_nothing_is_left_whether_it_ends_well_or_not(tmp_path):
    with scratch_folder("ours-", tmp_path) as folder:
        (folder / "file").touch()
        assert folder.parent == tmp_path
    with pytest.raises(ZeroDivisionError), scratch_folder("ours-", tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_not_before(holder, tmp_path):
    process, folder = holder
    with scratch_folder("ours-", tmp_path):
        assert (folder / "deeper" / "file").is_file(), "its process is at work"
    process.kill()
    process.wait()
    assert (folder / "deeper" / "file").is_file()
    with scratch_folder("others-", tmp_path):
        assert folder.is_dir()
    with scratch_folder("ours-", tmp_path) as own:
        assert not folder.exists()
        assert {path.name for path in tmp_path.iterdir()} == {own.name, f"{own.name}.lock"}


def test_what_only_looks_like_ours_is_left_alone(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("ours-training", "ours-a", "ours-a.lock", "ours-abcdefgh.lock.csv", "ours-.lock"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "ours-12345678").symlink_to(kept)
    (tmp_path / "ours-12345678.lock").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with scratch_folder("ours-", tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before
