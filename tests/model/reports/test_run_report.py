"""What the report says of single videos, and that controls are trained once."""

import csv
import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import model.evaluation.controls
from model.evaluate import main as evaluate_command
from model.evaluation.controls import CONTROLS, load_controls, shuffled
from model.evaluation.evaluation import DETECTOR, evaluate
from model.evaluation.per_video import (
    ENSEMBLE,
    OUT_OF_FOLD,
    RIGHT,
    UNDECIDED,
    UNKNOWN,
    WRONG,
    worst_mistakes,
)
from model.explanation.anomaly import load_anomaly, read_motion
from model.reports.run_report import write_report
from model.run.run import load_run, save_run
from model.run.source_files import listed_files
from model.training.sequences import load_sequences
from pipeline.common.csv_files import write_csv


@pytest.fixture(scope="module")
def evaluated(fitted, tmp_path_factory):
    """A run in a folder of its own, evaluated; a third of its verdicts are too close to call."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(fitted.folder, folder)
    run = load_run(folder)
    config = dataclasses.replace(run.config, margin=1.5, threshold=0.3)
    save_run(dataclasses.replace(run, config=config))
    run = load_run(folder)
    return run, evaluate(run, controls=False, device="cpu")


# --------------------------------------------------------------------------------- single videos


def test_the_table_has_the_videos_and_probabilities_of_predictions_csv(evaluated):
    run, evaluation = evaluated
    with (run.folder / "predictions.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert {video.id for video in evaluation.videos} == set(rows)
    for video in evaluation.videos:
        row = rows[video.id]
        assert (video.split, video.label) == (row["split"], ("real", "fake")[int(row["label"])])
        if row["probability"]:
            assert video.probability == pytest.approx(float(row["probability"]), abs=1e-6)
            assert video.scored_by == (OUT_OF_FOLD if video.split == "train" else ENSEMBLE)
        else:
            assert video.probability is None and video.outcome == UNKNOWN
            assert video.scored_by == row["status"] == "dropped from the split"
    page = write_report(run, evaluation).read_text()
    data = page.split('id="videos-data">')[1].split("</script>")[0]
    found = json.loads(data)
    place = [column["key"] for column in found["columns"]].index("probability")
    shown = {row[0]: row[place] for row in found["rows"]}
    assert shown == {
        video.id: None if video.probability is None else round(video.probability, 6)
        for video in evaluation.videos
    }


def test_verdicts_and_outcomes_are_those_that_are_counted(evaluated):
    _, evaluation = evaluated
    for split in ("test", "holdout"):
        of = [video for video in evaluation.videos if video.split == split]
        metrics = evaluation.metrics[DETECTOR][split]
        decided = [video for video in of if video.outcome != UNDECIDED]
        assert len(decided) / len(of) == pytest.approx(metrics["decided"].value)
        right = sum(video.outcome == RIGHT for video in decided)
        assert right / len(decided) == pytest.approx(metrics["accuracy_decided"].value)
        sure = sum(video.log_odds > 0 for video in of)
        assert sure / len(of) == pytest.approx(metrics["accuracy"].value)
        assert all((v.outcome == RIGHT) == (v.verdict == v.label) for v in decided)


def test_the_worst_mistakes_are_farthest_beyond_the_threshold_and_unseen(calls_all_fake):
    _, evaluation = calls_all_fake
    worst = worst_mistakes(evaluation.videos, 5)
    others = [v for v in evaluation.videos if v.outcome == WRONG and v.scored_by == ENSEMBLE]
    assert len(worst) == 5 < len(others)
    assert all(video.split in ("test", "holdout") for video in worst)
    assert all(v.verdict == "fake" and v.label == "real" for v in worst)
    expected = sorted((video.probability for video in others), reverse=True)[:5]
    assert [video.probability for video in worst] == expected


def test_anomaly_is_the_quantile_of_unseen_videos_only(evaluated, fitted):
    run, evaluation = evaluated
    unseen = load_sequences(fitted.cache, ("motion",), ("test",))
    anomaly = load_anomaly(run.folder)
    distances = anomaly.distances(read_motion(fitted.cache, unseen))
    expected = {
        clip.video: anomaly.quantile(distance)
        for clip, distance in zip(unseen.clips, distances, strict=True)
        if not np.isnan(distance)
    }
    found = {v.id: v.anomaly for v in evaluation.videos if v.split == "test" and v.anomaly}
    assert found == {video: value for video, value in expected.items() if value}
    assert {v.anomaly for v in evaluation.videos if v.split == "train"} == {None}


def test_a_table_of_names_that_is_none_is_passed_over(fitted, tmp_path):
    cache = SimpleNamespace(folder=tmp_path / "cache")
    for name, header in {"a": ["other", "columns"], "b": ["id", "path"]}.items():
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "names.csv", header, [["x", "/videos/x.mp4"]])
    assert [str(path) for path in listed_files(cache, {"x"})["x"]] == ["/videos/x.mp4"]


# --------------------------------------------------------------------------------- kept controls


def test_the_second_evaluation_trains_nothing_and_says_the_same(small_run, tmp_path, monkeypatch):
    shutil.copytree(small_run, tmp_path / "run")
    run = load_run(tmp_path / "run")
    (run.folder / CONTROLS).unlink(missing_ok=True)
    evaluate(run, device="cpu")
    said = (run.folder / "metrics.json").read_bytes()
    (run.folder / "metrics.json").unlink()
    for trains in ("cross_fit", "logistic_regression"):
        monkeypatch.setattr(model.evaluation.controls, trains, None)
    evaluate(load_run(tmp_path / "run"), device="cpu")
    assert (run.folder / "metrics.json").read_bytes() == said


def test_controls_of_another_run_or_a_damaged_file_are_not_taken(small_run, tmp_path, run_command):
    shutil.copytree(small_run, tmp_path / "run")
    run = load_run(tmp_path / "run")
    (run.folder / CONTROLS).unlink(missing_ok=True)  # of a test before this one
    evaluate(run, controls=False, device="cpu")
    kept = load_controls(run)
    assert kept
    content = (run.folder / CONTROLS).read_bytes()
    (run.folder / CONTROLS).write_bytes(content[:-300])
    assert load_controls(run) == {}
    done = run_command(evaluate_command, run.folder, "--no-controls", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert set(load_controls(run)) == set(kept)
    other = dataclasses.replace(run.config, seed=run.config.seed + 1)
    save_run(dataclasses.replace(run, config=other))
    assert load_controls(load_run(run.folder)) == {}


def test_shuffled_time_of_a_corpus_in_a_file_is_in_a_file_too(fitted):
    kept, mapped = (
        shuffled(load_sequences(fitted.cache, ("flow",), ("train",), limit=limit), 3, orders=2)
        for limit in (None, 1000)
    )
    assert torch.equal(kept.x, mapped.x) and torch.equal(kept.copies[0], mapped.copies[0])
    for data, in_a_file in ((kept, False), (mapped, True)):
        for x in (data.x, *data.copies):
            assert _is_in_a_file(x) == in_a_file


def _is_in_a_file(x):
    with open("/proc/self/maps") as file:  # noqa: PTH123
        for line in file:
            span, _, _, _, inode = line.split()[:5]
            low, high = (int(end, 16) for end in span.split("-"))
            if low <= x.data_ptr() < high:
                return inode != "0"
    raise AssertionError("it is nowhere")
