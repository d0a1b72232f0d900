"""Many videos at once: folders and lists, a file of results that goes on, and exit codes."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from model.predict import main as predict_command
from model.prediction.batch import list_videos, predict_into_file, read_list
from model.prediction.predict_videos import Prediction, backbone_of
from model.prediction.results_file import COLUMNS, ResultsFile
from model.run.run import load_run, seal
from pipeline.common.csv_files import csv_text, read_csv
from pipeline.common.errors import NothingUsable, SettingsError

TOLERANCE = 1e-5  # torch sums in another order with other numbers of threads


@pytest.fixture
def command(chain, run_command):
    """Run model.predict in this process."""

    def call(*arguments, folder=chain.folder, jobs=1):
        rest = ("--weights", chain.weights, "--device", "cpu", "--jobs", jobs)
        return run_command(predict_command, folder, *arguments, *rest)

    return call


@pytest.fixture(scope="module")
def write(chain, in_process):
    """What model.predict -o does, without a process that decodes: the tally."""
    run = load_run(chain.folder)
    backbone = backbone_of(run, str(chain.weights), "cpu")
    return lambda file, *given: predict_into_file(
        file, run, list_videos(given), backbone, in_process
    )


@pytest.fixture
def videos(chain, tmp_path):
    """A folder of two sound videos, one of them deeper, and one that is too short."""
    sound = list(chain.videos.values())
    folder = tmp_path / "videos"
    (folder / "deeper").mkdir(parents=True)
    shutil.copy(sound[0], folder / "b.mp4")
    shutil.copy(sound[1], folder / "deeper" / "a.mp4")
    (folder / "c.mp4").write_text("not a video\n" * 100)
    (folder / "notes.txt").write_text("filmed in May\n")
    (folder / ".hidden.mp4").touch()
    return folder


def rows_of(path):
    """The rows of a file of results, as text, by the path of the video; none is there twice."""
    if path.suffix == ".csv":
        rows = read_csv(path)
    else:
        lines = map(json.loads, path.read_text().splitlines())
        rows = [{name: csv_text(value) for name, value in line.items()} for line in lines]
    by_path = {row["path"]: row for row in rows}
    assert len(by_path) == len(rows)
    assert all(tuple(row) == COLUMNS for row in rows)
    return by_path


# --------------------------------------------------------------------------------- which videos


def test_a_folder_stands_for_its_videos_sorted_and_what_is_left_out_is_said(videos):
    listing = list_videos([videos])
    assert listing.paths == (videos / "b.mp4", videos / "c.mp4", videos / "deeper" / "a.mp4")
    (note,) = listing.notes
    assert note.startswith("1 other files in the folders are no videos by their names (")
    assert str(videos / "notes.txt") in note
    for name in "123":
        (videos / f"x{name}.txt").touch()
    (note,) = list_videos([videos]).notes
    assert (
        note.startswith("4 other files") and ", ...); one that is given itself is predicted" in note
    )


def test_files_and_folders_keep_their_order_and_nothing_is_listed_twice(videos, monkeypatch):
    monkeypatch.chdir(videos)
    gone, a = Path("gone.mp4"), Path("deeper/a.mp4")
    listing = list_videos([gone, a, videos, Path("deeper"), gone])
    assert listing.paths == (gone, a, videos / "b.mp4", videos / "c.mp4")
    assert listing.notes[0] == "3 given more than once, predicted once"


def test_links_may_lead_into_the_folders_given_but_not_out_of_them(videos, chain, tmp_path):
    (videos / "linked").symlink_to(tmp_path / "other")
    (videos / "out.mp4").symlink_to(chain.weights)
    (videos / "out.txt").symlink_to(chain.weights)
    (videos / "round").symlink_to(videos)
    (tmp_path / "other").mkdir()
    shutil.copy(videos / "b.mp4", tmp_path / "other" / "d.mp4")
    listing = list_videos([videos])
    assert listing.outside == {
        videos / "linked": str(tmp_path / "other"),
        videos / "out.mp4": str(chain.weights),
    }
    assert set(listing.outside) < set(listing.paths)
    assert len(listing.paths) == 5
    both = list_videos([videos, tmp_path / "other"])
    assert list(both.outside) == [videos / "out.mp4"]
    followed = list_videos([videos], follow_links=True)
    assert not followed.outside
    assert videos / "linked" / "d.mp4" in followed.paths


def test_a_folder_without_a_video_is_an_error(videos, command):
    (videos / "empty").mkdir()
    with pytest.raises(NothingUsable, match=f"no video in {videos / 'empty'}") as caught:
        list_videos([videos, videos / "empty"])
    assert ".mp4" in caught.value.hint
    done = command(videos / "empty")
    assert (done.exit_code, done.stdout) == (1, "")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"])
def test_a_list_has_a_path_a_line_whatever_its_bytes(tmp_path, end):
    names = [b"caf\xe9 \xff.mp4", b" spaces .mp4", b"#1.mp4", b"=1+1.mp4"]
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbf" + end.join([*names, b"", b""]))
    assert read_list(file) == [Path(os.fsdecode(name)) for name in names]
    file.write_bytes(end)
    with pytest.raises(SettingsError, match="is empty"):
        read_list(file)


# ------------------------------------------------------------------------------------ the results


def test_csv_and_jsonl_say_the_same_as_the_terminal(videos, command, write, tmp_path):
    (videos / "out.mp4").symlink_to("/proc/version")
    files = [tmp_path / "new" / "results.csv", tmp_path / "results.jsonl"]
    end = command(videos, "-o", files[0])
    tallies = [end.stdout, str(write(files[1], videos))]
    table, lines = map(rows_of, files)
    assert table == lines
    printed = command(videos, "--json")
    said = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [Path(one["path"]).name for one in said] == ["b.mp4", "c.mp4", "a.mp4", "out.mp4"]
    for one in said:
        assert {name: csv_text(value) for name, value in one.items()}.items() <= table[
            one["path"]
        ].items()
    assert said[-1]["reason"] == "outside the corpus: a link to /proc/version"
    for tally in tallies:
        assert "4 videos: " in tally
        assert "2 undecidable (1 outside the corpus, 1 not a video)" in tally
        assert "s a video" in tally
    assert end.exit_code == 0
    assert str(files[0]) in end.stdout
    assert "1 other files" in end.stderr


def test_only_what_is_missing_or_has_changed_is_judged_again(videos, write, chain, tmp_path):
    file = tmp_path / "results.csv"
    write(file, videos / "b.mp4", videos / "c.mp4")
    before = file.read_bytes()
    again = str(write(file, videos / "c.mp4", videos / "b.mp4"))
    assert file.read_bytes() == before
    assert "2 were predicted before" in again
    assert "s a video" not in again
    first = rows_of(file)
    shutil.copy(list(chain.videos.values())[2], videos / "c.mp4")
    assert "1 were predicted before" in str(write(file, videos))
    found = rows_of(file)
    assert len(found) == 3
    b, c = str(videos / "b.mp4"), str(videos / "c.mp4")
    assert found[b] == first[b]
    assert found[c] != first[c]
    assert found[c]["verdict"] in ("real", "fake")


def resume(file, run, paths):
    """Write a row for each path that has none that is valid; give these paths."""
    with ResultsFile(file, run) as results:
        todo = results.resume(paths, dict)
        for path in todo:
            results.append(Prediction(str(path), "real", 0.25, 0.5, 2, "", ""))
    return todo


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_the_row_of_a_changed_file_is_replaced_and_others_stay(chain, tmp_path, name):
    run, file = load_run(chain.folder), tmp_path / name
    a, b, c = (tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4"))
    for path in (a, b):
        path.write_bytes(b"0")
    assert resume(file, run, [a, b]) == [a, b]
    before = rows_of(file)
    assert resume(file, run, [b, a]) == []
    assert rows_of(file) == before
    b.write_bytes(b"00")
    assert resume(file, run, [b, c]) == [b, c]
    after = rows_of(file)
    assert set(after) == {str(a), str(b), str(c)}
    assert after[str(a)] == before[str(a)]
    assert (before[str(b)]["n_bytes"], after[str(b)]["n_bytes"]) == ("1", "2")


def test_what_may_have_been_the_machines_fault_is_tried_again(videos, write, tmp_path):
    file, gone = tmp_path / "results.csv", tmp_path / "gone.mp4"
    write(file, videos / "b.mp4", gone)
    assert rows_of(file)[str(gone)]["reason"] == "unreadable: No such file or directory"
    assert "1 were predicted before" in str(write(file, videos / "b.mp4", gone))
    shutil.copy(videos / "b.mp4", gone)
    write(file, videos / "b.mp4", gone)
    assert (
        rows_of(file)[str(gone)]["probability"]
        == (rows_of(file)[str(videos / "b.mp4")]["probability"])
    )


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_a_torn_last_line_is_written_again(chain, tmp_path, name):
    run, file = load_run(chain.folder), tmp_path / name
    paths = [tmp_path / os.fsdecode(name) for name in (b"b.mp4", b'"a\n\r=1+1,\xff.mp4')]

    assert resume(file, run, paths) == paths
    whole = file.read_bytes()
    last = whole.index(b"\n", whole.index(b"b.mp4")) + 1  # a row of two lines, if it is CSV
    for size in range(last, len(whole)):
        file.write_bytes(whole[:size])
        assert resume(file, run, paths) == paths[1:]
        assert file.read_bytes() == whole
    for size in range(0, last, 10):
        file.write_bytes(whole[:size])
        assert resume(file, run, paths) == paths
        assert file.read_bytes() == whole
    assert resume(file, run, paths) == []


def test_results_of_another_run_are_refused_and_stay(command, chain, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(chain.folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"threshold": 0.25}))
    seal(other)
    video, copy = tmp_path / "a.mp4", tmp_path / "copy"
    shutil.copytree(chain.folder, copy)
    for file in (tmp_path / "results.csv", tmp_path / "results.jsonl"):
        resume(file, load_run(chain.folder), [video])
        before = file.read_bytes()
        done = command(video, "-o", file, folder=other)
        assert done.exit_code == 2
        assert f"holds results of the run {chain.folder} (sha256 " in done.stderr
        assert f"not of {other} (sha256 " in done.stderr
        assert "hint: give another file with -o" in done.stderr
        assert file.read_bytes() == before
        assert resume(file, load_run(copy), [video]) == []


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "no line end", '{"path": 1}\n', "\n\n", "{"])
@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_a_file_that_holds_something_else_is_refused_and_stays(chain, tmp_path, content, name):
    if (content, name) == ("{", "r.jsonl"):
        pytest.skip("so begins a line of results")
    file = tmp_path / name
    file.write_text(content)
    with (
        pytest.raises(SettingsError, match="does not hold results of this command"),
        ResultsFile(file, load_run(chain.folder)) as results,
    ):
        results.resume([tmp_path / "a.mp4"], print)
    assert file.read_text() == content


def test_another_process_at_the_same_file_is_refused(chain, tmp_path):
    run = load_run(chain.folder)
    with (
        ResultsFile(tmp_path / "r.csv", run),
        pytest.raises(SettingsError, match="another process"),
    ):
        ResultsFile(tmp_path / "r.csv", run).__enter__()
    with (tmp_path / "r.csv").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_no_cell_is_a_formula_and_any_name_is_read_back(chain, tmp_path):
    run = load_run(chain.folder)
    path = tmp_path / os.fsdecode(b'=cmd|"x"\n\r\xff.mp4')
    said = Prediction(str(path), "undecidable", None, -0.5, 0, "=1+1", "@SUM(A1)")
    for file in (tmp_path / "r.csv", tmp_path / "r.jsonl"):
        for _ in range(2):
            with ResultsFile(file, run) as results:
                if results.resume([path], dict):
                    results.append(said)
        (row,) = rows_of(file).values()
        assert row["path"] == str(path)
        assert (row["reason"], row["warning"]) == ("=1+1", "@SUM(A1)")
        assert float(row["threshold"]) == -0.5
    text = (tmp_path / "r.csv").read_bytes()
    assert b"'=1+1" in text and b"'@SUM(A1)" in text and b"'-0.5" not in text


# ---------------------------------------------------------------------------------------- killed


def group_is_gone(process):
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("number,name", [(signal.SIGINT, "r.csv"), (signal.SIGKILL, "r.jsonl")])
def test_killed_and_started_again_it_ends_as_if_it_had_not_been(
    chain, command, tmp_path, monkeypatch, number, name
):
    N = 12
    folder, temporary, file = tmp_path / "videos", tmp_path / "temporary", tmp_path / name
    temporary.mkdir()
    folder.mkdir()
    sound = list(chain.videos.values())
    for n in range(N):
        shutil.copy(sound[n % 3], folder / f"{n:02}.mp4")
    arguments = [chain.folder, folder, "-o", file, "--weights", chain.weights, "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "model.predict", *arguments, "--jobs", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
    )
    try:
        while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < 3):
            time.sleep(0.01)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as Ctrl-C does
        else:
            process.kill()
        _, errors = process.communicate(timeout=30)
        assert group_is_gone(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.splitlines()[-2] == "error: interrupted"
        assert not list(temporary.iterdir())
    n_whole = len(rows_of(file))
    assert 2 <= n_whole < N
    os.truncate(file, file.stat().st_size - 3)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    done = command(folder, "-o", file)
    assert done.exit_code == 0
    assert not list(temporary.iterdir())
    assert f"{n_whole - 1} were predicted before" in done.stdout
    found = rows_of(file)
    assert sorted(found) == [str(folder / f"{n:02}.mp4") for n in range(N)]
    undisturbed = command(*(folder / f"{n:02}.mp4" for n in range(3)), "--json")
    expected = [json.loads(line)["probability"] for line in undisturbed.stdout.splitlines()]
    for n, row in enumerate(found[path] for path in sorted(found)):
        assert float(row["probability"]) == pytest.approx(expected[n % 3], abs=TOLERANCE)


# ------------------------------------------------------------------------------------- exit codes


def test_the_exit_code_tells_how_much_is_undecidable(videos, command, tmp_path):
    file = tmp_path / "results.csv"
    assert command(videos, "-o", file, "--max-undecidable", "0.34").exit_code == 0
    assert command(videos, "-o", file).exit_code == 0
    assert command(videos / "c.mp4", "-o", file, "--max-undecidable", "0").exit_code == 1
    assert len(rows_of(file)) == 3
    for where in (["-o", file], []):
        done = command(videos, *where, "--max-undecidable", "0.33")
        assert done.exit_code == 3
        assert "33.3% of the videos are undecidable" in done.stderr
        assert "3 videos: " in (done.stdout if where else done.stderr)


@pytest.mark.parametrize(
    "arguments,said",
    [
        ([], "--list FILE"),
        (["a.mp4", "-o", "results.txt"], "ends in neither .csv nor .jsonl"),
        (["a.mp4", "-o", "results.csv", "--json"], "ends in .jsonl"),
        (["--list", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_arguments_that_cannot_work_are_refused(command, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert not list(tmp_path.iterdir())


def test_three_hundred_files_of_rubbish_are_all_reported(command, chain, tmp_path):
    folder, file = tmp_path / "rubbish", tmp_path / "results.csv"
    folder.mkdir()
    sound = next(iter(chain.videos.values())).read_bytes()
    for n in range(300):
        (folder / f"{n}.mp4").write_bytes([b"", b"\0" * 99, sound[: len(sound) // 2]][n % 3])
    done = command(folder, "-o", file, jobs=2)
    assert done.exit_code == 1
    assert "300 videos: 0 fake, 0 real, 300 undecidable" in done.stdout
    assert "error: no video could be predicted" in done.stderr
    rows = rows_of(file).values()
    assert Counter(row["verdict"] for row in rows) == {"undecidable": 300}
    assert all(row["reason"] for row in rows)


def test_a_list_is_judged_like_arguments(videos, command, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text(f"{videos / 'c.mp4'}\n\n{videos / 'deeper'}\n")
    done = command("--list", file, "--json")
    assert done.exit_code == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in found] == [
        str(videos / "c.mp4"), str(videos / "deeper" / "a.mp4")
    ]  # fmt: skip
    assert [row["probability"] is None for row in found] == [True, False]


def test_the_columns_follow_the_prediction():
    names = [field.name for field in dataclasses.fields(Prediction)]
    assert list(COLUMNS) == [*names, "n_bytes", "modified", "run", "run_sha256"]
