"""What the command says of a machine, and of one where something is missing."""

import sys

from click.testing import CliRunner

from pipeline.doctor import main
from pipeline.workers.local import available_cores


def lines_of(done):
    """What is said of each part, by its name."""
    said = {}
    for line in done.stdout.splitlines():
        if line[:9].strip():
            said.setdefault(line[9:23].strip(), []).append(line)
        else:
            said[next(reversed(said))].append(line)
    return {part: " ".join(" ".join(lines).split()) for part, lines in said.items()}


def test_everything_that_work_needs_is_found_here():
    done = CliRunner().invoke(main, [])
    assert (done.exit_code, done.stderr) == (0, "")
    said = lines_of(done)
    assert sys.executable in said["Python"]
    assert f" {available_cores()} of " in said["cores"]
    assert all(name in said["libraries"] for name in ("torch", "opencv-contrib-python", "av"))
    assert all(name in said["codecs"] for name in ("h264", "hevc", "vp9"))
    assert "backend c" in said["optical flow"]  # cpu or cuda, not OpenCV's slower one


def test_what_is_missing_comes_with_a_hint(tmp_path, monkeypatch):
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)  # what was found before
    said = lines_of(CliRunner().invoke(main, []))
    assert f"none in {tmp_path / 'hub' / 'checkpoints'}" in said["weights"]
    assert "hint: " in said["weights"] and "--weights PATH" in said["weights"]
    assert "YuNet is not there" in said["face model"] and "hint: " in said["face model"]
    assert str(temporary) in said["temporary"]
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").touch()
    said = lines_of(CliRunner().invoke(main, []))
    assert "resnet18-f37072fd.pth" in said["weights"] and "hint: " not in said["weights"]


def test_a_library_that_is_too_old_is_named(tmp_path, monkeypatch):
    info = tmp_path / "click-7.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: click\nVersion: 7.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 2
    assert "MISSING  libraries     click 7.0" in done.stdout
    assert done.stderr.startswith("error: missing: libraries\nhint: ")
