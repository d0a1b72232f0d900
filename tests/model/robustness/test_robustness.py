"""The sweep: changed copies of the test videos, judged as `model.predict` judges new videos."""

import contextlib
import csv
import dataclasses
import json
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, roc_auc_score

import model.robustness.robustness
from model.evaluate import main as evaluate_command
from model.evaluation.evaluation import evaluate
from model.prediction.predict_videos import backbone_of, predict_unordered
from model.reports.run_report import write_report
from model.robustness.perturbations import PERTURBATIONS, Perturbation
from model.robustness.robustness import UNCHANGED, read_sweep, sweep
from model.robustness.table import sweep_table
from model.run.run import load_run, save_run
from model.run.source_files import CHANGED, MISSING, UNLISTED
from pipeline.cache import Cache
from pipeline.common.csv_files import write_csv
from pipeline.common.errors import NothingUsable
from pipeline.workers.local import LocalPool

# As in test_prediction.py: other batches.
TOLERANCE = 1e-5
SWEPT = tuple(c for c in PERTURBATIONS if c.name in ("CRF 40", "half size", "half frame rate"))
NAMES = [UNCHANGED, *(change.name for change in SWEPT)]
BLUR = Perturbation("blur", filters="gblur=sigma=1")
TOO_SLOW = Perturbation("a third of the frames", every=3)  # 6 or 7, and a clip needs 9


def rows(folder):
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def backbone(chain):
    return backbone_of(load_run(chain.folder), str(chain.weights), "cpu")


@pytest.fixture(scope="module")
def swept(chain, tmp_path_factory):
    """The folder of a run that was swept through the command, and what the command said."""
    folder = tmp_path_factory.mktemp("swept") / "run"
    shutil.copytree(chain.folder, folder)
    arguments = [folder, "--sweep", "--weights", chain.weights, "--device", "cpu", "--jobs", 1]
    arguments += ["--no-controls", "--cases", 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.robustness.robustness, "PERTURBATIONS", SWEPT)
        done = CliRunner().invoke(evaluate_command, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return folder, done.stdout


@pytest.fixture
def few(monkeypatch):
    """Sweep over these changes only."""

    def only(*changes):
        monkeypatch.setattr(model.robustness.robustness, "PERTURBATIONS", changes)

    return only


@pytest.fixture
def moved(chain, tmp_path, monkeypatch):
    """A run and its embeddings in another place, beside a table that says where videos are."""
    monkeypatch.setattr(model.robustness.robustness, "plot_sweep", lambda *_: None)  # slow
    shutil.copytree(chain.folder, tmp_path / "run")
    shutil.copytree(chain.cache.folder, tmp_path / "embeddings")
    cache = Cache(tmp_path / "embeddings", "embed")
    test = {clip.video for clip in cache.clips if clip.split == "test"}

    def make(**changes):
        """Paths by id, where they are others than in the chain; an empty one is left out."""
        paths = {video: changes.get(video, chain.videos[video]) for video in test}
        (tmp_path / "clips").mkdir(exist_ok=True)
        listed = [[video, path] for video, path in paths.items() if path]
        write_csv(tmp_path / "clips" / "names.csv", ["id", "path"], listed)
        return load_run(tmp_path / "run"), cache, sorted(test)

    return make


@pytest.mark.parametrize(
    ("option", "value"), [("--videos", "."), ("--weights", "a.pth"), ("--jobs", "2")]
)
def test_options_about_videos_are_refused_where_none_is_looked_at(option, value, chain):
    command = [str(chain.folder), "--cases", "0", option, value]
    done = CliRunner().invoke(evaluate_command, command)
    assert done.exit_code == 2
    assert f"{option} without --sweep or --cases: no video is needed" in done.stderr


# ------------------------------------------------------------------------------------ the numbers


def test_every_test_video_has_one_row_under_every_change(chain, swept):
    test = {clip.video: clip.label for clip in chain.cache.clips if clip.split == "test"}
    found = [(row["perturbation"], row["id"], int(row["label"])) for row in rows(swept[0])]
    expected = [(name, video, label) for name in NAMES for video, label in test.items()]
    assert found == expected


def test_an_unchanged_video_gets_the_probability_of_its_evaluation(swept):
    with (swept[0] / "predictions.csv").open(newline="") as file:
        evaluated = {row["id"]: float(row["probability"]) for row in csv.DictReader(file)}
    unchanged = [row for row in rows(swept[0]) if row["perturbation"] == UNCHANGED]
    for row in unchanged:
        assert row["status"] == "ok"
        assert float(row["probability"]) == pytest.approx(evaluated[row["id"]], abs=TOLERANCE)
    assert json.loads((swept[0] / "sweep.json").read_text())["apart"] < TOLERANCE


def test_changed_videos_get_other_probabilities(swept):
    of = {}
    for row in rows(swept[0]):
        of.setdefault(row["perturbation"], []).append(row["probability"])
    assert len({tuple(values) for values in of.values()}) == len(NAMES)


def test_the_numbers_are_those_of_the_rows(swept):
    result = json.loads((swept[0] / "sweep.json").read_text())
    threshold = load_run(swept[0]).config.threshold
    assert list(result["outcomes"]) == NAMES
    before = {r["id"]: float(r["probability"]) for r in rows(swept[0])[: result["videos"]]}
    for name, outcome in result["outcomes"].items():
        scored = [r for r in rows(swept[0]) if r["perturbation"] == name and r["probability"]]
        labels = np.array([int(row["label"]) for row in scored])
        p = np.array([float(row["probability"]) for row in scored])
        was = np.array([before[row["id"]] for row in scored])
        assert outcome["scored"] == len(scored) == outcome["auc_roc"]["n"]
        auc = roc_auc_score(labels, p)
        assert outcome["auc_roc"]["value"] == pytest.approx(auc)
        assert outcome["auc_drop"]["value"] == pytest.approx(roc_auc_score(labels, was) - auc)
        assert outcome["accuracy"]["value"] == accuracy_score(labels, p >= threshold)
        assert outcome["shift_real"] == pytest.approx((p - was)[labels == 0].mean())
        assert outcome["shift_fake"] == pytest.approx((p - was)[labels == 1].mean())
    assert result["outcomes"][UNCHANGED]["auc_drop"]["value"] == 0


def test_what_cannot_be_judged_is_counted_with_its_reason(moved, few, backbone, in_process):
    few(TOO_SLOW)
    run, cache, test = moved()
    result = sweep(run, backbone, in_process, cache)
    outcome = result.outcomes[TOO_SLOW.name]
    assert outcome.scored == 0
    assert outcome.undecidable == {"too short": len(test)}
    assert outcome.auc_roc.value is outcome.auc_drop.value is outcome.shift_real is None
    assert f"{TOO_SLOW.name}: undecidable are {len(test)} too short" in sweep_table(result)
    assert {row["status"][:9] for row in rows(run.folder)} == {"ok", "too short"}


# ---------------------------------------------------------------------------------- what is shown


def test_the_command_shows_a_line_for_every_change_and_writes_the_picture(swept):
    folder, said = swept
    lines = said[said.index("changed copies of the test split") :].splitlines()
    assert [line[2:18].strip() for line in lines[2 : 2 + len(NAMES)]] == NAMES
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_shows_a_sweep_of_this_very_run_only(swept, few, tmp_path):
    few(*SWEPT)
    folder = tmp_path / "run"
    shutil.copytree(swept[0], folder)
    assert "Changed copies of the test split" in (folder / "report.html").read_text()
    run = load_run(folder)
    assert list(read_sweep(run).outcomes) == NAMES
    threshold = run.config.threshold / 2
    save_run(dataclasses.replace(run, config=dataclasses.replace(run.config, threshold=threshold)))
    other = load_run(folder)
    assert read_sweep(other) is None
    write_report(other, evaluate(other, controls=False))
    assert "Changed copies" not in (folder / "report.html").read_text()


# -------------------------------------------------------------------------- files that are no more


def test_files_that_are_gone_or_have_changed_are_counted(
    moved, few, backbone, chain, tmp_path, in_process
):
    few()
    _, _, test = moved()
    changed = tmp_path / "changed.mp4"
    shutil.copy(chain.videos[test[0]], changed)
    changed.write_bytes(changed.read_bytes() + b"\0")
    gone = tmp_path / "gone.mp4"
    run, cache, _ = moved(**{test[0]: changed, test[1]: gone, test[2]: ""})
    result = sweep(run, backbone, in_process, cache)
    assert result.videos == len(test)
    assert result.lost == {CHANGED: 1, MISSING: 1, UNLISTED: 1}
    assert result.outcomes[UNCHANGED].scored == len(test) - 3
    status = {row["id"]: row["status"] for row in rows(run.folder)}
    assert [status[video] for video in test[:4]] == [CHANGED, MISSING, UNLISTED, "ok"]
    for reason in (CHANGED, MISSING, UNLISTED):
        assert f"1 of {len(test)} videos left out: {reason}" in sweep_table(result)


def test_files_are_found_by_their_bytes_in_another_folder(
    moved, few, backbone, chain, tmp_path, in_process
):
    few()
    _, _, test = moved()
    run, cache, _ = moved(**dict.fromkeys(test, tmp_path / "gone.mp4"))
    for number, video in enumerate(test):
        (tmp_path / "elsewhere" / "below").mkdir(parents=True, exist_ok=True)
        shutil.copy(chain.videos[video], tmp_path / "elsewhere" / "below" / f"{number}.mp4")
    result = sweep(run, backbone, in_process, cache, folder=tmp_path / "elsewhere")
    assert result.lost == {}
    assert result.outcomes[UNCHANGED].scored == len(test)


def test_without_any_file_it_is_an_error_that_says_what_to_do(
    moved, backbone, tmp_path, in_process
):
    _, _, test = moved()
    run, cache, _ = moved(**dict.fromkeys(test, tmp_path / "gone.mp4"))
    with pytest.raises(NothingUsable, match=f"{MISSING}: {len(test)}") as caught:
        sweep(run, backbone, in_process, cache)
    assert "--videos FOLDER" in caught.value.hint


# ------------------------------------------------------------------------------- stopping, going on


@pytest.fixture
def judged(monkeypatch):
    """Counts how often videos are judged."""
    calls = []
    real = model.robustness.robustness.predict_unordered
    monkeypatch.setattr(
        model.robustness.robustness,
        "predict_unordered",
        lambda *a, **k: calls.append(k["change"]) or real(*a, **k),
    )
    return calls


def test_a_sweep_goes_on_where_it_was_stopped(moved, few, backbone, judged, in_process):
    few(BLUR)
    run, cache, _ = moved()
    sweep(run, backbone, in_process, cache)
    files = {name: (run.folder / name).read_bytes() for name in ("sweep.csv", "sweep.json")}
    assert len(judged) == 2
    sweep(run, backbone, in_process, cache)
    assert len(judged) == 2, "it was made already"
    header, *lines = files["sweep.csv"].decode().splitlines(keepends=True)
    kept = [line for line in lines if ",blur," not in line]
    (run.folder / "sweep.csv").write_text("".join([header, *kept]))
    sweep(run, backbone, in_process, cache)
    assert len(judged) == 3
    assert files == {name: (run.folder / name).read_bytes() for name in files}


def test_a_sweep_of_another_model_or_other_files_begins_anew(
    moved, few, backbone, judged, in_process
):
    few()
    run, cache, test = moved()
    sweep(run, backbone, in_process, cache)
    moved(**{test[0]: ""})
    assert sweep(run, backbone, in_process, cache).lost == {UNLISTED: 1}
    assert len(judged) == 2
    config = dataclasses.replace(run.config, threshold=run.config.threshold / 2)
    save_run(dataclasses.replace(run, config=config))
    sweep(load_run(run.folder), backbone, in_process, cache)
    assert len(judged) == 3


def test_one_who_stops_listening_leaves_no_temporary_files(chain, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    paths = list(chain.videos.values())
    predictions = predict_unordered(load_run(chain.folder), paths, backbone, LocalPool(1))
    next(predictions)
    assert list(tmp_path.iterdir())
    predictions.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_leaves_no_temporary_files_and_what_is_done_stays_done(
    moved, few, backbone, tmp_path, monkeypatch
):
    few(BLUR, TOO_SLOW)
    run, cache, _ = moved()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    seen = []

    def interrupt():
        while not seen:
            with contextlib.suppress(FileNotFoundError):  # the folder went while it was read
                seen.extend(temporary.glob("deepfake-motion-*/*.mp4"))
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        sweep(run, backbone, LocalPool(2), cache)
        time.sleep(10)  # the signal may come later than the end
    assert seen
    assert not list(temporary.iterdir())
    assert UNCHANGED in {row["perturbation"] for row in rows(run.folder)}
