"""Commands: fixed exit codes, errors in two lines, help with an example that can be copied."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import cloup
import pytest

from pipeline import farneback
from pipeline.audit import main as audit_command
from pipeline.common.cli import Command, number_or
from pipeline.common.errors import (
    IntegrityError,
    NothingUsable,
    PipelineError,
    SettingsError,
    TooManyRejects,
)
from pipeline.common.startup import how_to_install
from pipeline.extract import main as extract_command
from pipeline.extract import parse_crop, parse_size
from pipeline.inspect import main as inspect_command

ROOT = Path(__file__).resolve().parents[3]


def two_lines(stderr):
    """The message and the hint of a failure that printed them and nothing else."""
    error, hint = stderr.splitlines()
    assert error.startswith("error: ") and hint.startswith("hint: ")
    return error[7:], hint[6:]


def failing(error):
    @cloup.command(cls=Command)
    def command():
        raise error

    return command


# ------------------------------------------------------------------------------ from the outside


@pytest.mark.parametrize(
    "module,example",
    [
        (
            "pipeline.extract",
            "python -m pipeline.extract data/DFD_REAL data/DFD_FAKE -o caches/dfd",
        ),
        ("pipeline.inspect", "python -m pipeline.inspect caches/dfd --sheet sheet.png"),
        ("pipeline.audit", "python -m pipeline.audit split.csv"),
    ],
)
def test_help_shows_an_example_that_can_be_copied(run_as_main, module, example):
    code, out = run_as_main(module, "--help")
    assert code == 0
    assert example in [line.strip() for line in out.splitlines()]
    assert f"Usage: python -m {module}" in out
    assert "130" in out.split("Exit codes:")[1]
    assert max(map(len, out.splitlines())) <= 100


def test_help_says_what_every_option_does(call):
    for command in (extract_command, inspect_command, audit_command):
        _, text, _ = call(command, "--help")
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help
                assert parameter.opts[0] in text


def test_done_is_0_and_the_summary_goes_to_standard_output(cache):
    first = cache.stdout.splitlines()[0]
    backend = farneback.resolve("auto")
    assert first == f"{cache.folder}: 8 clips of 20 frames at 96x72, flow by {backend}"
    assert "rejected: 2 not a video" in cache.stdout
    assert "error" not in cache.stderr


def test_nothing_usable_is_1(call, tmp_path):
    for name in ("REAL", "FAKE"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").write_bytes(b"no video" * 100)
    code, _, err = call(extract_command, tmp_path, "-o", tmp_path / "cache", "--jobs", 1)
    assert code == 1
    assert "not a video" in two_lines(err)[0]
    assert not (tmp_path / "cache" / "index.h5").exists()


def test_wrong_arguments_are_2(call, tmp_path):
    code, _, err = call(extract_command, tmp_path, "-o", tmp_path / "x", "--framse", "9")
    assert code == 2
    message, hint = two_lines(err)
    assert "--framse" in message and "--frames" in message
    assert hint == "python -m command --help lists what it takes"


def test_more_rejects_than_allowed_are_3_and_the_cache_is_there(call, corpus, cache):
    arguments = [*corpus.options, "-o", cache.folder, "--max-rejects"]
    code, out, err = call(extract_command, *arguments, "4")
    assert code == 3
    assert out.endswith(cache.stdout)
    assert "was finished before" in out
    message, hint = two_lines(err)
    assert message == "5 files were rejected, --max-rejects allows 4"
    assert str(cache.folder / "rejected.csv") in hint
    assert call(extract_command, *arguments, "5")[0] == 0


def test_the_reader_of_a_pipe_may_leave(cache):
    command = (
        f"{sys.executable} -m pipeline.inspect {cache.folder} | head -c 1; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_a_command_is_being_loaded_is_130(tmp_path):
    (tmp_path / "cv2.py").write_text("import time\nprint(flush=True)\ntime.sleep(60)\n")
    loading = subprocess.Popen(
        [sys.executable, "-m", "pipeline.inspect", "nowhere"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    loading.stdout.readline()
    loading.send_signal(signal.SIGINT)
    _, err = loading.communicate(timeout=60)
    assert loading.returncode == 130
    assert two_lines(err)[0] == "interrupted"


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("cv2", ["pipeline.inspect", "nowhere"]),  # imported before the command begins,
        ("torch", ["features.embed", "--list-backbones"]),  # and after
    ],
)
def test_a_missing_library_is_told_with_how_to_install_it(library, command, run_command, tmp_path):
    missing = f"No module named {library!r}"
    (tmp_path / f"{library}.py").write_text(f"raise ModuleNotFoundError({missing!r})\n")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run_command(*command, env=env)
    message, hint = two_lines(done.stderr)
    assert (done.returncode, message) == (2, missing)
    assert "activate" in hint and "pip install" in hint


def test_a_missing_library_of_the_system_is_told_with_how_to_install_that():
    assert "apt-get" in how_to_install("libGL.so.1: cannot open shared object file")
    assert "pip install" in how_to_install("libnvJitLink.so.13: cannot open shared object file")


def test_a_wrong_folder_is_named_before_kernels_are_compiled(call, monkeypatch):
    monkeypatch.setattr(farneback, "resolve", lambda name: pytest.fail("it was compiled for"))
    code, _, err = call(extract_command, "nowhere", "-o", "x")
    assert (code, two_lines(err)[0]) == (2, "nowhere does not exist")


# --------------------------------------------------------------------------------- from the inside


@pytest.mark.parametrize(
    "error,code",
    [
        (NothingUsable("m", "h"), 1),
        (SettingsError("m", "h"), 2),
        (PipelineError("m", "h"), 2),
        (TooManyRejects("m", "h"), 3),
        (IntegrityError("m", "h"), 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_error_has_its_exit_code(call, error, code):
    found, out, err = call(failing(error))
    assert (found, out, two_lines(err)) == (code, "", ("m", "h"))


def test_an_error_is_two_lines_whatever_a_file_is_called(call):
    code, _, err = call(failing(SettingsError("a\nb\x1b[2J\udcff does not exist", "give\rc")))
    assert (code, two_lines(err)) == (2, ("a\\nb\\x1b[2J\\udcff does not exist", "give\\rc"))


def test_an_empty_argument_is_not_the_folder_we_are_in(call):
    code, _, err = call(inspect_command, "")
    assert code == 2 and "an argument is empty" in two_lines(err)[0]


def test_ctrl_c_is_130_and_says_how_to_go_on(call):
    code, _, err = call(failing(KeyboardInterrupt()))
    assert code == 130
    assert "Traceback" not in err
    assert two_lines(err.strip())[0] == "interrupted"


def test_an_error_of_the_system_names_the_file(call):
    code, _, err = call(failing(PermissionError(13, "Permission denied", "/the/file")))
    message, hint = two_lines(err)
    assert (code, message) == (2, "Permission denied (/the/file)")
    assert hint


def test_an_error_of_copying_names_both_files(call):
    code, _, stderr = call(failing(OSError(28, "No space left on device", "old", None, "new")))
    assert code == 2
    assert two_lines(stderr)[0] == "No space left on device (old -> new)"


def test_a_fault_of_the_program_says_so_without_a_traceback(call):
    code, _, err = call(failing(ZeroDivisionError("division by zero")))
    message, hint = two_lines(err)
    assert (code, message) == (2, "ZeroDivisionError: division by zero")
    assert "bug" in hint and "--debug" in hint


def test_debug_shows_the_traceback(call):
    code, _, err = call(failing(SettingsError("m", "h")), "--debug")
    assert code == 2
    assert "Traceback" in err
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError()).main(["--debug"], prog_name="x")


@pytest.mark.parametrize(
    "arguments,said",
    [
        ([], "VIDEOS"),
        (["videos"], "--output"),
        (["videos", "-o", "x", "--size", "big"], "'big'"),
        (["videos", "-o", "x", "--size", "16"], "16x16"),
        (["videos", "-o", "x", "--crop", "1,2,3"], "'1,2,3'"),
        (["videos", "-o", "x", "--crop", "0,0,0,0"], "crop"),
        (["videos", "-o", "x", "--fps", "fast"], "'fast'"),
        (["videos", "-o", "x", "--frames", "1"], "--frames"),
        (["videos", "-o", "x", "--flow-backend", "tvl1"], "tvl1"),
        (["videos", "-o", "x", "--test", "1"], "--test"),
        (["nowhere", "-o", "x"], "nowhere does not exist"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(
    call, tmp_path, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    code, out, err = call(extract_command, *arguments)
    assert (code, out) == (2, "")
    assert said in two_lines(err)[0]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "text,size", [("224", (224, 224)), ("320x240", (320, 240)), ("64X48", (64, 48))]
)
def test_a_size_is_one_number_or_two(text, size):
    assert parse_size(None, None, text) == size


@pytest.mark.parametrize("text", ["", "x", "x240", "1x2x3", "22.4"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(click.BadParameter):
        parse_size(None, None, text)


def test_a_crop_is_four_numbers_or_none():
    assert parse_crop(None, None, "none") is None
    assert parse_crop(None, None, "1,2,30,40") == (1, 2, 30, 40)


def test_a_rate_is_a_number_or_native():
    parse_fps = number_or("native", "a rate", below=1000)
    assert parse_fps(None, None, "native") is None
    assert parse_fps(None, None, "29.97") == 29.97
    for text in ("0", "-5", "nan", "inf", "x"):
        with pytest.raises(click.BadParameter):
            parse_fps(None, None, text)


def test_mixed_frame_rates_are_remarked_upon(cache):
    """Real videos have 25 frames a second in this corpus, fake ones 30: a giveaway."""
    assert "25 to 30 frames/s" in cache.stdout
    assert "--fps 25" in cache.stdout
