"""A run of real videos alone: from files to how unusual another video is, without a detector."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from features.backbones import load_backbone
from features.embedding import embed
from model.evaluate import main as evaluate_command
from model.evaluation.controls import UNUSUAL_SCORES
from model.explanation.anomaly import UNUSUAL_QUANTILE
from model.explanation.occlusion_over_time import load_band
from model.explanation.unusual import COMBINED, few_real_warning, load_unusual
from model.fit import main as fit_command
from model.fitting import training_folds
from model.predict import main as predict_command
from model.run.run import load_run, read_config
from model.training.sequences import load_sequences
from pipeline.corpus.labelled_video import Video
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings
from pipeline.splits.protocols import Splitting

N_REAL = 10


@pytest.fixture(scope="module")
def embeddings(chain, write_video, in_process, tmp_path_factory):
    """Embeddings of real files alone, and of real and fake ones of other people."""
    folder = tmp_path_factory.mktemp("real only")
    backbone = load_backbone("mobilenet_v2", str(chain.weights), "cpu")

    def make(name, labels, first):
        videos = [
            Video(
                write_video(folder / name / f"{n}.mp4", seed=first + 2 * n + label, n_frames=24),
                label=label,
                identities=(f"person:{first + n}",),
            )
            for n, label in enumerate(labels)
        ]
        settings = Settings(width=64, height=64, frames=20, splitting=Splitting(test=0.2))
        clips = extract(videos, folder / f"{name}-clips", settings, in_process)
        return embed(clips, folder / f"{name}-embeddings", backbone)

    return make("real", [0] * N_REAL, 0), make("both", [0, 1] * 4, 100)


@pytest.fixture(scope="module")
def run(embeddings, tmp_path_factory):
    """The folder of a run, and what the command said."""
    folder = tmp_path_factory.mktemp("runs") / "real"
    arguments = [str(embeddings[0].folder), "-o", str(folder), "--device", "cpu"]
    done = CliRunner().invoke(fit_command, arguments)
    assert done.exit_code == 0, done.output
    return folder, done


def predict_arguments(chain, run, *paths):
    return run[0], *paths, "--weights", chain.weights, "--device", "cpu", "--jobs", 1


def test_the_run_says_what_it_is(run, embeddings):
    folder, done = run
    assert "It is no detector: the training split holds real videos alone" in done.stdout
    assert "WARNING: 95% of the real training videos cannot be told on 8" in done.stderr
    assert (few_real_warning(19) != "", few_real_warning(20)) == (True, "")
    assert "not evaluated" in done.stdout and "--cache" in done.stdout
    config = read_config(folder)
    assert (config.n_heads, config.n_folds, config.is_detector) == (0, 3, False)
    assert not list(load_run(folder).ensemble.parameters())
    assert np.isnan(load_band(folder).moments).all()
    assert np.isfinite(load_band(folder).anomaly).all()
    training = load_sequences(embeddings[0], ("motion",), ("train",))
    for train, val in training_folds(training, 3, 0):
        people = [{training.clips[n].identities for n in rows} for rows in (train, val)]
        assert people[0].isdisjoint(people[1])
    unusual = load_unusual(folder)
    assert {"motion", "stall", "d3"} <= set(unusual.names)
    assert all(len(unusual.reference(name)) == len(training.clips) for name in unusual.names)


def test_it_says_how_unusual_a_video_is_with_or_without_being_asked(
    chain, run, run_command, write_video, tmp_path
):
    path = write_video(tmp_path / "new.mp4", seed=77)
    found = []
    for only in ((), ("--only", "anomaly")):
        done = run_command(
            predict_command, *predict_arguments(chain, run, path, tmp_path / "none.mp4"),
            "--json", *only,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert ("it says how unusual a video is, not whether it is fake" in done.stderr) != bool(
            only
        )
        assert "usual, 1 undecidable" in done.stderr
        found.append([json.loads(line) for line in done.stdout.splitlines()])
    assert found[0] == found[1]
    new, missing = found[0]
    assert new["probability"] is None and new["threshold"] is None
    assert set(new["unusual"]) == {*load_unusual(run[0]).names, COMBINED}
    assert all(0 <= share <= 1 for share in new["unusual"].values())
    rule = new["unusual"][COMBINED] > UNUSUAL_QUANTILE
    assert new["verdict"] == ("unusual" if rule else "usual")
    assert (missing["verdict"], missing["threshold"]) == ("undecidable", None)


def test_its_results_resume_in_a_file(chain, run, run_command, write_video, tmp_path):
    path, table = write_video(tmp_path / "new.mp4", seed=77), tmp_path / "out.jsonl"
    for _ in range(2):
        done = run_command(predict_command, *predict_arguments(chain, run, path), "-o", table)
        assert done.exit_code == 0, done.output
    assert "1 were predicted before" in done.stdout
    (row,) = [json.loads(line) for line in table.read_text().splitlines()]
    assert row["unusual"].keys() == {*load_unusual(run[0]).names, COMBINED}


def test_another_corpus_with_labels_evaluates_it(run, embeddings, run_command):
    folder, (own, both) = run[0], embeddings
    done = run_command(evaluate_command, folder, "--cache", both.folder)
    assert done.exit_code == 0, done.output
    assert "all: 8 videos, 4 of them fake" in done.stdout
    written = json.loads((folder / "cross" / both.folder.name / "metrics.json").read_text())
    assert set(written["controls"]) == set(UNUSUAL_SCORES.values())
    for of_split in written["controls"].values():
        assert 0 <= of_split["all"]["auc_roc"]["value"] <= 1
        assert "brier" not in of_split["all"]
    as_json = run_command(evaluate_command, folder, "--cache", both.folder, "--json")
    assert json.loads(as_json.stdout) == written
    alone = run_command(evaluate_command, folder)
    assert alone.exit_code == 1
    assert f"{own.folder} has no fakes" in alone.stderr
    assert "--cache" in alone.stderr


@pytest.mark.parametrize("option", ["--sweep", "--cases=2", "rival"])
def test_what_needs_a_detector_says_so(option, run, chain, run_command):
    given = chain.folder if option == "rival" else option
    done = run_command(evaluate_command, run[0], given)
    assert done.exit_code == 2
    assert "needs a detector" in done.stderr and "hint: " in done.stderr


def test_a_page_and_a_search_need_a_detector(run, embeddings, chain, run_command, tmp_path):
    path = next(iter(chain.videos.values()))
    done = run_command(
        predict_command, *predict_arguments(chain, run, path), "--report", tmp_path / "out"
    )
    assert done.exit_code == 2
    assert "--report explains the verdict of a detector" in done.stderr
    done = run_command(
        fit_command, embeddings[0].folder, "-o", tmp_path / "run", "--tune", 2, "--device", "cpu"
    )
    assert done.exit_code == 2
    assert "there is no head to tune" in done.stderr


def test_it_can_be_fitted_again_to_the_same_bytes(run, run_command, tmp_path):
    done = run_command(fit_command, "--from", run[0], "-o", tmp_path / "again", "--device", "cpu")
    assert done.exit_code == 0, done.output
    for name in ("anomaly.npz", "band.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (run[0] / name).read_bytes()


def test_the_kind_of_head_that_there_is_not_matters_not(embeddings, run, run_command, tmp_path):
    """Whatever head is asked for, none is trained."""
    done = run_command(
        fit_command, embeddings[0].folder, "-o", tmp_path / "run", "--head", "statistics",
        "--streams", "trajectory", "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for name in ("anomaly.npz", "band.json", "model.pt"):
        assert (tmp_path / "run" / name).read_bytes() == (run[0] / name).read_bytes()
