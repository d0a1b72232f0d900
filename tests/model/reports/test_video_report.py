"""The page of a video: what it says is what was found, and it needs nothing else."""

import base64
import csv
import dataclasses
import hashlib
import html
import json
import os
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from model.evaluation.evaluation import evaluate
from model.explanation.explain import explain_clip
from model.explanation.occlusion_over_time import load_band
from model.fitting import fit
from model.predict import main as predict_command
from model.prediction.predict_videos import (
    SEEN_IN_TRAINING_WARNING,
    Prediction,
    backbone_of,
    predict,
    predict_unordered,
)
from model.reports.evidence_video import (
    ClipEvidence,
    colour_scales,
    draw_panes,
    write_evidence_video,
)
from model.reports.key_moments import find_key_moments
from model.reports.timeline import curves_of
from model.reports.verdicts import INDEX, write_verdicts
from model.reports.video_report import N_TERMS, evidence_video_of, page_of, write_video_report
from model.run.run import digest_of
from model.settings import TrainingSettings


@pytest.fixture(scope="module")
def unseen(chain):
    """A video of the test split."""
    with (chain.folder / "predictions.csv").open(newline="") as file:
        return next(chain.videos[row["id"]] for row in csv.DictReader(file) if row["split"])


@pytest.fixture(scope="module")
def examined(detector, unseen, in_process):
    ((_, one),) = predict_unordered(
        detector.run, [unseen], detector.backbone, in_process, keep_frames=True
    )
    return one


@pytest.fixture(scope="module")
def clips(detector, examined):
    """The evidence of `unseen`, without its faithfulness, which takes time."""
    return [
        ClipEvidence(
            arrays,
            motion,
            explain_clip(detector.run, arrays, detector.backbone, anomaly=examined.anomaly),
        )
        for arrays, motion in zip(examined.clips, examined.motion, strict=True)
    ]


def text_of(page):
    """What a page says, without tags and with single spaces."""
    content = page.read_text(encoding="utf-8")
    body = re.sub(r"<(style|script).*?</\1>", "", content, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", body)).split())


def data_of(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    return json.loads(found[1])


def page_for(run, path, backbone, pool, folder):
    """Write the page of one video; return the prediction and the page."""
    ((_, examined),) = predict_unordered(run, [path], backbone, pool, keep_frames=True)
    page = page_of(folder, path)
    write_video_report(run, examined, page, backbone)
    return examined.prediction, page


@pytest.fixture(scope="module")
def withheld(detector, unseen, in_process, tmp_path_factory):
    """An evaluated run whose every verdict is too close to call, its prediction and its page."""
    folder = tmp_path_factory.mktemp("withheld")
    run = dataclasses.replace(
        detector.run, folder=Path(shutil.copytree(detector.run.folder, folder / "run"))
    )
    evaluate(run, controls=False, device="cpu")
    config = dataclasses.replace(run.config, margin=50.0, leak_warning="The split leaks <badly>")
    run = dataclasses.replace(run, config=config)
    return run, *page_for(run, unseen, detector.backbone, in_process, folder / "out")


# ------------------------------------------------------------------------------------ what it says


def test_the_verdict_is_that_of_predict(detector, unseen, in_process, tmp_path):
    (alone,) = predict(detector.run, [unseen], detector.backbone, pool=in_process)
    found, page = page_for(detector.run, unseen, detector.backbone, in_process, tmp_path)
    assert found == alone
    text = text_of(page)
    assert f"Called {alone.verdict} probability of being fake {alone.probability:.3f}" in text
    assert f"called fake from {alone.threshold:.3f} on" in text
    for stream, share in alone.streams.items():
        assert f"{stream}{share:+.2f}" in text
    assert f"more strangely than {int(100 * alone.anomaly + 1e-9)}% of" in text
    assert len(alone.unusual) > 2
    for name, share in alone.unusual.items():
        assert f"{name}{int(100 * share + 1e-9)}%" in text
    for driver in alone.strangest.split(", "):
        assert driver.rsplit(" ", 2)[0] in text


def test_it_says_what_the_threshold_did_in_the_runs_own_test(withheld, case_page):
    assert "own test, on videos" not in text_of(case_page)  # nobody has evaluated that run
    run, _, page = withheld
    text = text_of(page)
    confusion = json.loads((run.folder / "metrics.json").read_text())["test"]["confusion"]
    real, fake = sum(confusion[:2]), sum(confusion[2:])
    said = f"{confusion[1]} of {real} real videos fake, and {confusion[3]} of {fake} fake ones."
    assert said in text
    assert run.config.threshold_rule in text


def test_the_curves_are_those_of_the_explanation(detector, examined_stairs, case_page):
    one = examined_stairs
    data = data_of(case_page)
    said = {curve["title"]: curve["values"] for curve in data["curves"]}
    explained = [
        explain_clip(detector.run, arrays, detector.backbone, anomaly=one.anomaly)
        for arrays in one.clips
    ]
    for title, name in (
        ("Probability of fake", "moments"),
        ("Strangeness of motion", "anomaly"),
        ("Contribution to the verdict", "contribution"),
    ):
        expected = np.concatenate([getattr(explanation, name) for explanation in explained])
        np.testing.assert_allclose(said[title], expected, atol=6e-4)
    times = np.concatenate([arrays["timestamps"][1:] for arrays in one.clips])
    np.testing.assert_allclose(data["seconds"], times, atol=1e-3)
    assert data["clips"] == [0, 8]


def test_the_band_of_real_videos_is_that_of_the_run(detector, case_page):
    band = load_band(detector.run.folder)
    text = text_of(case_page)
    for values in (band.moments, band.anomaly):
        low, _, high = np.interp((0.05, 0.5, 0.95), band.quantiles, values)
        assert f"did not train on them, {low:.2f} to {high:.2f}" in text


def test_each_moment_is_ranked_among_moments_of_real_videos(detector, case_page):
    band, text = load_band(detector.run.folder), text_of(case_page)
    curve = data_of(case_page)["curves"][1]
    ranks = np.interp(curve["values"], band.anomaly, band.quantiles)
    np.testing.assert_allclose(curve["stranger"], ranks, atol=0.01)
    share = round(100 * np.mean(np.array(curve["stranger"]) > 0.95))
    assert f"{share}% of these moments are stranger than 95% of those of real" in text
    assert re.search(r"away from usual.*?, stranger than \d+% of moments of real videos: ", text)


def test_it_records_what_is_needed_to_find_the_same_again(detector, stairs, case_page):
    text, config = text_of(case_page), detector.run.config
    for needed in (
        hashlib.sha256(stairs.read_bytes()).hexdigest(),
        digest_of(detector.run),
        config.embedding["weights_sha256"],
        config.cache_sha256,
        config.extraction["corpus"],
        "duration0.76 s",
        "96x72 pixels, 25 frames/s",
        "9 from 0.00 to 0.32 s; 9 from 0.36 to 0.68 s",
        "72x72 at 12, 0, at 64x64 pixels",
    ):
        assert needed in text
    assert "not proof" in text


def test_faithfulness_is_said_of_each_stream(detector, case_page):
    text = text_of(case_page)
    for stream in ("flow", "frames"):
        assert f"{stream}: covering the hottest 20% of each picture changes" in text


def test_what_is_too_close_to_call_says_so_and_is_explained_and_warnings_are_alerts(withheld):
    _, found, page = withheld
    text = text_of(page)
    assert f"Undecidable probability of being fake {found.probability:.3f}" in text
    assert "Why it is undecidable: too close to call." in text
    assert "The moments that stand out" in text
    assert '<p class="warning" role="alert">The split leaks &lt;badly&gt;</p>' in page.read_text()


def test_a_run_whose_cache_has_no_frames_judges_the_same_and_shows_them(
    detector, unseen, examined, in_process
):
    extraction = detector.run.config.extraction | {"keep_frames": False}
    config = dataclasses.replace(detector.run.config, extraction=extraction)
    run = dataclasses.replace(detector.run, config=config)
    ((_, without),) = predict_unordered(
        run, [unseen], detector.backbone, in_process, keep_frames=True
    )
    assert without.prediction == examined.prediction
    np.testing.assert_array_equal(without.clips[0]["frames"], examined.clips[0]["frames"])


def test_a_detector_of_motion_alone_has_no_heat_and_says_so(
    chain, detector, fast, unseen, in_process, tmp_path
):
    settings = dataclasses.replace(fast, max_epochs=1, sequence_length=5, streams=("motion",))
    run = fit(chain.cache, tmp_path / "run", settings=settings, n_folds=2, device="cpu")
    _, page = page_for(run, unseen, detector.backbone, in_process, tmp_path / "out")
    assert set(data_of(page)["panes"]) == {"frames", "flow"}
    assert "There is none: the detector looks at descriptors of motion alone." in text_of(page)
    assert "heat: towards" not in text_of(page)


def test_the_statistics_heads_verdict_is_split_into_parts_that_add_up(
    chain, unseen, in_process, tmp_path
):
    settings = TrainingSettings(
        head="statistics", sequence_length=5, streams=("flow", "motion", "trajectory")
    )
    run = fit(chain.cache, tmp_path / "run", settings=settings, n_folds=2, device="cpu")
    backbone = backbone_of(run, str(chain.weights), "cpu")
    found, page = page_for(run, unseen, backbone, in_process, tmp_path / "out")
    text, data = text_of(page), data_of(page)
    log_odds = float(np.log(found.probability / (1 - found.probability)))
    assert f"every table below adds up to {log_odds:+.3f}" in text
    rows = text.split("What the verdict is made of")[1].split("Motion of the whole video")[0]
    numbers = [float(n) for n in re.findall(r"[+-]\d+\.\d{3}", rows)]
    end = 1 + N_TERMS + 3  # after the sentence: terms, others, constant and sum
    assert len(numbers) > end
    assert numbers[end - 1] == pytest.approx(log_odds, abs=0.001)
    assert sum(numbers[1 : end - 1]) == pytest.approx(log_odds, abs=0.0005 * end)
    constant = float(re.search(r"With the constant ([+-][\d.]+) they add up", text)[1])
    assert re.search(r"(flow|frames), depth \d[+-]", rows)
    assert "heat: flow" in text and "heat: frames" in text, "trajectories are of both"
    matter = text.count("The hot cells matter more") + text.count("rely on this heat with care")
    assert page.read_text().count("a mean over the clip") == matter, "no others come first"
    assert sum(found.streams.values()) + constant == pytest.approx(log_odds, abs=0.01)
    values = data["curves"][-1]["values"]
    assert sum(values) / len(data["clips"]) + constant == pytest.approx(log_odds, abs=0.02)


# -------------------------------------------------------------------------------------- the files


def test_the_page_holds_all_it_needs(case_page):
    content = case_page.read_text()
    assert "default-src 'none'" in content
    assert len(content) < 20e6
    for address in re.findall(r'(?:src|href|action|poster)="([^"]*)"', content):
        assert address.startswith(("data:", "#")) or address == evidence_video_of(case_page).name
    assert content.count("data:image/jpeg") >= 4


def test_the_video_is_beside_the_page_and_in_it(case_page):
    overlay = evidence_video_of(case_page)
    assert base64.b64encode(overlay.read_bytes()).decode() in case_page.read_text()
    with av.open(str(overlay)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == data_of(case_page)["fps"] == 25
        assert len(list(container.decode(video=0))) == len(data_of(case_page)["seconds"]) == 16


def test_names_are_inert_in_the_page_and_safe_as_files(case_page):
    assert "<img src=x" not in case_page.read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;.mp4" in case_page.read_text()
    assert re.fullmatch(r"img_src_x_onerror_alert_1-[0-9a-f]{8}\.html", case_page.name)


def test_no_two_videos_share_a_page(tmp_path):
    odd = [Path("a/x.mp4"), Path("b/x.mp4"), Path("a/x.mov"), Path("..mp4"), Path("a/" + "y" * 250)]
    odd.append(Path(os.fsdecode(b"a/\xff.mp4")))
    pages = [page_of(tmp_path, path) for path in odd]
    assert len(set(pages)) == len(pages)
    assert all(page.parent == tmp_path and len(page.name) < 120 for page in pages)
    assert page_of(tmp_path, Path("a/x.mp4")) == page_of(tmp_path, Path("a/x.mp4").absolute())


def test_the_same_clips_give_the_same_video_and_a_smaller_one_if_it_must_be(clips, tmp_path):
    scales = colour_scales(clips)
    first = write_evidence_video(clips, scales, tmp_path / "a.mp4", max_bytes=1e9)
    again = write_evidence_video(clips, scales, tmp_path / "b.mp4", max_bytes=1e9)
    assert first.content == again.content
    most = len(first.content) / 2
    smaller = write_evidence_video(clips, scales, tmp_path / "c.mp4", max_bytes=most)
    assert len(smaller.content) <= most
    tiny = write_evidence_video(clips, scales, tmp_path / "d.mp4", max_bytes=1)
    assert tiny.canvas.height < first.canvas.height


def test_heat_is_orange_towards_fake_and_blue_towards_real(clips):
    evidence = clips[0]
    heat = np.zeros_like(evidence.explanation.heat["frames"])
    heat[3, :, 0], heat[3, :, -1] = 1, -1
    explanation = dataclasses.replace(evidence.explanation, heat={"frames": heat})
    evidence = dataclasses.replace(evidence, explanation=explanation)
    scales = colour_scales([evidence])
    scales = dataclasses.replace(scales, heat={"frames": 1.0})
    hot = draw_panes(evidence, 3, scales)["heat-frames"].astype(int)
    assert (hot[:, 0, 0] > hot[:, 0, 2] + 50).all()
    assert (hot[:, -1, 2] > hot[:, -1, 0] + 50).all()
    cold = draw_panes(evidence, 0, scales)["heat-frames"]
    assert (cold == cold[..., :1]).all()
    np.testing.assert_array_equal(
        draw_panes(evidence, 3, scales)["frames"], evidence.arrays["frames"][4]
    )


def test_the_moments_that_stand_out_are_the_extremes_of_the_curves(clips, detector, examined):
    curves = curves_of(clips, 0.5, load_band(detector.run.folder))
    by_name = {curve.name: curve for curve in curves}
    found = find_key_moments(clips, curves, examined.anomaly, fake=True)
    places = [moment.index for moment in found]
    assert places == sorted(places) and len(set(places)) == 4
    assert by_name["probability"].highest in places
    for moment in found:
        clip = clips[moment.clip]
        assert moment.seconds == clip.arrays["timestamps"][moment.row + 1]
        assert f"{by_name['probability'].values[moment.index]:.2f}" in moment.reasons[0]
        (name, _, sd), *_ = examined.anomaly.drivers_at(clip.motion, moment.row)
        assert f"{name} {sd:+.1f} sd" in moment.reasons[1]
    towards_real = find_key_moments(clips, curves[-1:], examined.anomaly, fake=False, n=1)
    assert towards_real[0].index == int(np.argmin(curves[-1].values))


# ------------------------------------------------------------------------------------ the command


def test_the_command_writes_a_page_of_each_video(detector, unseen, tmp_path, run_command):
    (tmp_path / "videos").mkdir()
    good = Path(shutil.copy(unseen, tmp_path / "videos" / "good.mp4"))
    bad = tmp_path / "videos" / "<b>bad.mp4"
    bad.write_text("not a video\n" * 100)
    led_out = tmp_path / "videos" / "led_out.mp4"
    led_out.symlink_to(unseen)
    out = tmp_path / "new" / "out"
    arguments = (detector.run.folder, tmp_path / "videos", "--weights", detector.weights)
    rest = ("--device", "cpu", "--jobs", 1, "--report", out)
    done = run_command(predict_command, *arguments, *rest, "--json")
    assert done.exit_code == 0, done.output
    rows = {row["path"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert set(rows) == {str(good), str(bad), str(led_out)}
    for path, row in rows.items():
        assert row["report"] == str(page_of(out, Path(path)))
    text = text_of(Path(rows[str(good)]["report"]))
    assert f"probability of being fake {rows[str(good)]['probability']:.3f}" in text
    text = text_of(Path(rows[str(bad)]["report"]))
    assert "Undecidable" in text and "Why it is undecidable: not a video" in text
    assert hashlib.sha256(bad.read_bytes()).hexdigest() in text
    assert "outside the corpus" in text_of(Path(rows[str(led_out)]["report"]))
    assert len(list(out.iterdir())) == 5  # three pages, one video, and what leads to them
    assert f"all of them: {out / INDEX}" in done.stderr
    index = (out / INDEX).read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"]+)"><bdi>([^<]+)</bdi></a>', index)
    order = [path for path in rows if rows[path]["probability"] is not None] + [
        path for path in rows if rows[path]["probability"] is None
    ]
    assert [html.unescape(path) for _, path in links] == order, "undecidable ones come last"
    assert [name for name, _ in links] == [Path(rows[path]["report"]).name for path in order]
    called = rows[str(good)]["verdict"]
    assert f"1 called {called}" in text_of(out / INDEX) and "2 undecidable" in text_of(out / INDEX)
    (out / INDEX).unlink()
    done = run_command(predict_command, *arguments[:1], bad, *arguments[2:], *rest)
    assert done.exit_code == 1
    assert str(page_of(out, bad)) in done.stdout
    assert not (out / INDEX).exists(), "one video needs no page that leads to it"


def test_the_probablest_fakes_come_first(detector, tmp_path):
    run = detector.run
    judged = [
        (
            Prediction(
                f"{name}.mp4", verdict, p, 0.5, 1, "", SEEN_IN_TRAINING_WARNING * (name == "b")
            ),
            Path(name),
        )
        for name, verdict, p in (
            ("a", "real", 0.2),
            ("b", "fake", 0.9),
            ("c", "undecidable", None),
            ("d", "fake", 0.6),
        )
    ]
    text = text_of(write_verdicts(tmp_path / "new", run, judged))
    assert re.findall(r"([a-d])\.mp4", text) == ["b", "d", "a", "c"]
    assert "2 called fake, 1 called real, 1 undecidable" in text
    assert text.count(SEEN_IN_TRAINING_WARNING) == 1 and all(
        warning in text for warning in run.config.warnings
    )
    assert "what is strange" not in text, "nothing is known of motion"


def test_pages_are_not_for_files_of_results(detector, unseen, tmp_path, run_command):
    done = run_command(
        predict_command,
        *(detector.run.folder, unseen, "-o", tmp_path / "a.csv", "--report", tmp_path / "out"),
    )
    assert done.exit_code == 2
    assert "give one of them" in done.stderr
    assert not (tmp_path / "out").exists()
