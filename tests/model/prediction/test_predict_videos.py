"""Verdicts on new videos: the same steps as in training, and a reason where there is none."""

import csv
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch

from model.explanation.anomaly import load_anomaly, save_anomaly
from model.explanation.stream_attribution import stream_shares
from model.fitting import fit
from model.predict import main as predict_command
from model.prediction.predict_videos import (
    SEEN_IN_TRAINING_WARNING,
    UNFAMILIAR_MOTION_WARNING,
    Prediction,
    backbone_of,
    predict,
    sentence,
)
from model.run.run import load_run, seal
from model.settings import TrainingSettings
from model.training.sequences import join_streams
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import sha256_of

# Decoding, flow and embedding are the same bit by bit; the LSTM in float32 sees other batches.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def run(chain):
    return load_run(chain.folder)


@pytest.fixture(scope="module")
def backbone(run, chain):
    return backbone_of(run, str(chain.weights), "cpu")


@pytest.fixture(scope="module")
def unseen(chain):
    """Rows of predictions.csv of test and holdout."""
    with (chain.folder / "predictions.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] in ("test", "holdout")]


@pytest.fixture(scope="module")
def undecidable(tmp_path_factory, write_video):
    """Files that nothing can be said of: path → the reason."""
    folder = tmp_path_factory.mktemp("odd")
    short = write_video(folder / "short.mp4", seed=0, n_frames=5)
    text = folder / "text.mp4"
    text.write_text("not a video\n" * 100)
    empty = folder / "empty.mp4"
    empty.touch()
    pipe = folder / "pipe.mp4"
    os.mkfifo(pipe)
    return {
        short: "too short: 5 frames, 9 are needed",
        text: "not a video",
        empty: "not a video",
        folder / "nowhere.mp4": "no such file",
        pipe: "not a plain file",
    }


def arguments(chain, *paths):
    return chain.folder, *paths, "--weights", chain.weights, "--device", "cpu", "--jobs", 1


def test_a_test_video_gets_the_probability_of_its_evaluation(
    chain, run, backbone, unseen, in_process
):
    paths = [chain.videos[row["id"]] for row in unseen]
    assert len(paths) >= 4
    found = list(predict(run, paths, backbone, pool=in_process))
    for row, prediction in zip(unseen, found, strict=True):
        assert prediction.probability == pytest.approx(float(row["probability"]), abs=TOLERANCE)
        assert prediction.clips == 2
        assert prediction.threshold == run.config.threshold
        expected = "fake" if prediction.probability >= run.config.threshold else "real"
        assert (prediction.verdict, prediction.reason) == (expected, "")


def test_a_probability_at_the_threshold_is_fake_and_just_below_it_real(
    chain, run, backbone, unseen, in_process
):
    path = chain.videos[unseen[0]["id"]]
    (first,) = predict(run, [path], backbone, pool=in_process)

    def verdict(threshold):
        config = dataclasses.replace(run.config, threshold=threshold)
        (found,) = predict(
            dataclasses.replace(run, config=config), [path], backbone, pool=in_process
        )
        assert found.probability == first.probability
        return found.verdict

    assert verdict(first.probability) == "fake"
    assert verdict(first.probability + 1e-12) == "real"


def test_what_cannot_be_judged_says_why_and_the_order_is_that_of_the_arguments(
    chain, unseen, undecidable, run_command
):
    good = [chain.videos[row["id"]] for row in unseen[:2]]
    odd = list(undecidable)
    paths = [odd[0], good[0], *odd[1:], good[1]]
    done = run_command(predict_command, *arguments(chain, *paths), "--json")
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [prediction["path"] for prediction in found] == [str(path) for path in paths]
    for path, prediction in zip(paths, found, strict=True):
        if path in good:
            assert prediction["verdict"] in ("real", "fake")
            assert 0 <= prediction["probability"] <= 1
            assert prediction["reason"] == ""
            assert 0 <= prediction["anomaly"] <= 1
            assert set(prediction["streams"]) == {"flow", "frames", "motion"}
        else:
            assert (prediction["verdict"], prediction["probability"]) == ("undecidable", None)
            assert undecidable[path] in prediction["reason"].lower()
            assert prediction["clips"] == 0


def test_a_video_that_was_trained_on_says_so_under_any_name(
    chain, run, backbone, unseen, tmp_path, in_process
):
    known = next(clip.video for clip in chain.cache.clips if clip.split == "train")
    copy = tmp_path / "copy.mp4"
    shutil.copy(chain.videos[known], copy)
    paths = [copy, chain.videos[unseen[0]["id"]]]
    of_copy, of_unseen = predict(run, paths, backbone, pool=in_process)
    assert SEEN_IN_TRAINING_WARNING in of_copy.warning
    assert f"WARNING: {SEEN_IN_TRAINING_WARNING}" in sentence(of_copy)
    assert SEEN_IN_TRAINING_WARNING not in of_unseen.warning + sentence(of_unseen)


def test_if_nothing_could_be_judged_the_command_fails(chain, undecidable, run_command):
    short = next(iter(undecidable))
    done = run_command(predict_command, *arguments(chain, short))
    assert done.exit_code == 1
    assert done.stdout == f"{short}: undecidable (too short: 5 frames, 9 are needed)\n"
    assert "error: no video could be predicted" in done.stderr


def test_the_sentence_has_path_verdict_probability_and_threshold():
    found = sentence(Prediction("a.mp4", "fake", 0.8765, 0.5, 1, "", ""))
    assert found == "a.mp4: fake, probability of being fake 0.876 (called fake from 0.500 on)"


def test_the_sentence_says_how_strange_the_motion_is_and_never_rounds_up():
    strange = Prediction("a.mp4", "fake", 0.8, 0.5, 1, "", "", 0.9991, "mean speed +4.1 sd")
    assert sentence(strange).endswith(
        "; motion stranger than 99% of real training videos (mean speed +4.1 sd)"
    )


def test_of_a_kind_of_video_that_it_does_not_know_a_verdict_says_so(
    chain, run, backbone, unseen, tmp_path, in_process
):
    path = chain.videos[unseen[0]["id"]]
    (usual,) = predict(run, [path], backbone, pool=in_process)
    assert UNFAMILIAR_MOTION_WARNING not in usual.warning
    folder = shutil.copytree(chain.folder, tmp_path / "run")
    known = load_anomaly(folder)
    save_anomaly(folder, dataclasses.replace(known, reference=known.reference / 100))
    seal(folder)
    (foreign,) = predict(load_run(folder), [path], backbone, pool=in_process)
    assert foreign.probability == usual.probability
    assert UNFAMILIAR_MOTION_WARNING in foreign.warning
    assert f"WARNING: {UNFAMILIAR_MOTION_WARNING}" in sentence(foreign)
    assert foreign.sha256 == sha256_of(path)


def test_strangeness_is_that_of_the_evaluation_and_streams_add_up(
    chain, run, backbone, unseen, in_process
):
    """Of a file, from scratch, as of the cache."""
    anomaly = load_anomaly(chain.folder)
    assert len(anomaly.reference) > 2
    for row in unseen[:2]:
        (found,) = predict(run, [chain.videos[row["id"]]], backbone, pool=in_process)
        clips = [clip for clip in chain.cache.clips if clip.video == row["id"]]
        motion = [chain.cache.read(clip, "motion") for clip in clips]
        assert (found.anomaly, found.strangest) == anomaly.of_video(motion)
        assert found.strangest.count(" sd") == 3
        assert list(found.streams) == ["flow", "frames", "motion"]
        arrays = [
            {key: chain.cache.read(clip, key) for key in ("flow", "frames", "motion", "rows")}
            for clip in clips
        ]
        x = torch.from_numpy(np.stack([join_streams(one, run.config.streams) for one in arrays]))
        assert found.streams == pytest.approx(stream_shares(run, x), abs=1e-2)  # cache is float16


@pytest.mark.parametrize("streams", [("trajectory",), ("flow", "motion", "trajectory")])
def test_the_statistics_head_judges_a_file_as_in_training(
    streams, chain, unseen, in_process, tmp_path
):
    settings = TrainingSettings(head="statistics", sequence_length=5, streams=streams)
    run = fit(chain.cache, tmp_path / "run", settings=settings, n_folds=2, device="cpu")
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        written = {row["id"]: float(row["probability"]) for row in csv.DictReader(file)}
    backbone = backbone_of(run, str(chain.weights), "cpu")
    for row in unseen[:2]:
        (found,) = predict(run, [chain.videos[row["id"]]], backbone, pool=in_process)
        assert found.probability == pytest.approx(written[row["id"]], abs=TOLERANCE)
        assert tuple(found.streams) == streams
    config = dataclasses.replace(run.config, trajectory=(*run.config.trajectory[1:], "flow 9 turn"))
    with pytest.raises(IntegrityError, match="have other columns"):
        backbone_of(dataclasses.replace(run, config=config), str(chain.weights), "cpu")


def test_a_name_that_is_no_text_is_judged_like_any_other(chain, unseen, tmp_path, run_command):
    name = tmp_path / os.fsdecode(b"caf\xe9 \xff.mp4")
    shutil.copy(chain.videos[unseen[0]["id"]], name)
    done = run_command(predict_command, *arguments(chain, name), "--json")
    assert done.exit_code == 0, done.output
    sentence(Prediction(**json.loads(done.stdout))).encode()


def test_a_probability_that_is_no_number_is_undecidable(chain, run, backbone, unseen, in_process):
    broken = dataclasses.replace(run, ensemble=load_run(chain.folder).ensemble)
    with torch.no_grad():
        broken.ensemble.heads[0].branches[0].classify[1].bias.fill_(float("nan"))
    (found,) = predict(broken, [chain.videos[unseen[0]["id"]]], backbone, pool=in_process)
    assert (found.verdict, found.probability) == ("undecidable", None)
    assert found.reason


def test_what_is_too_close_to_call_is_undecidable_but_shows_its_probability(
    chain, run, backbone, unseen, in_process
):
    path = chain.videos[unseen[0]["id"]]

    def judged(margin):
        config = dataclasses.replace(run.config, margin=margin)
        (found,) = predict(
            dataclasses.replace(run, config=config), [path], backbone, pool=in_process
        )
        return found

    sure, unsure = judged(0.0), judged(50.0)
    assert sure.verdict in ("real", "fake")
    assert (unsure.verdict, unsure.reason) == ("undecidable", "too close to call")
    assert unsure.probability == sure.probability
    assert f"undecidable (too close to call), probability of being fake {sure.probability:.3f}" in (
        sentence(unsure)
    )


# ------------------------------------------------------------------------------------- the weights


def test_weights_that_were_a_file_must_be_given_again(chain, run, run_command):
    with pytest.raises(SettingsError) as caught:
        backbone_of(run)
    assert caught.value.hint == "give that file with --weights PATH"
    done = run_command(predict_command, chain.folder, next(iter(chain.videos.values())))
    assert done.exit_code == 2
    assert "--weights PATH" in done.stderr


def test_a_weights_file_that_moved_is_an_error_with_its_path(run, tmp_path):
    with pytest.raises(SettingsError, match=f"no weights at {tmp_path / 'gone.pth'}"):
        backbone_of(run, str(tmp_path / "gone.pth"))


def test_other_weights_are_refused(run, chain, tmp_path):
    state = torch.load(chain.weights, weights_only=True)
    state["features.0.0.weight"][0, 0, 0, 0] += 1e-3
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(IntegrityError, match="these are not the mobilenet_v2 weights") as caught:
        backbone_of(run, str(tmp_path / "other.pth"))
    assert run.config.embedding["weights_sha256"] in caught.value.hint
    with pytest.raises(IntegrityError):
        backbone_of(run, "random:0")


def test_a_folder_that_is_no_run_is_refused(chain, run_command, tmp_path):
    done = run_command(predict_command, tmp_path, next(iter(chain.videos.values())))
    assert done.exit_code == 2
    assert "is not a finished run" in done.stderr
