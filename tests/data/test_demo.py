"""The demo corpus: who is in it, what its files say, and that nothing but motion tells."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.demo import FAKE, FPS, REAL, main, make_demo, plan_corpus, write_video
from data.heads import drift, render
from data.looks import cast_actor
from pipeline.common.errors import SettingsError

SMALL = {"size": (96, 72), "lengths": (4, 8)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "corpus"
    return out, make_demo(out, jobs=2, **SMALL)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def groups(videos) -> list[set[int]]:
    """Actors that videos link to one another, directly or through others."""
    found: list[set[int]] = []
    for video in videos:
        linked = {video.target} | ({video.source} - {None})
        touching = [group for group in found if group & linked]
        found = [group for group in found if group not in touching] + [linked.union(*touching)]
    return found


def test_names_have_the_form_of_dfd(demo):
    out, _ = demo
    real = [file.name for file in (out / REAL).iterdir()]
    fake = [file.name for file in (out / FAKE).iterdir()]
    assert len(real) == len(fake) == 16
    assert all(re.fullmatch(r"\d\d__[a-z_]+\.mp4", name) for name in real)
    assert all(re.fullmatch(r"\d\d_\d\d__[a-z_]+__[A-Z0-9]{8}\.mp4", name) for name in fake)
    assert {file.name for file in (out / "new").iterdir()} == {"unseen_real.mp4", "unseen_fake.mp4"}


def test_ten_groups_of_actors_each_with_as_many_fakes_as_reals():
    videos = plan_corpus()
    corpus = [video for video in videos if not video.path.startswith("new/")]
    found = groups(corpus)
    assert sorted(map(len, found)) == [2] * 10
    balance = [[v.source is None for v in corpus if v.target in group] for group in found]
    assert sorted((sum(real), len(real)) for real in balance) == [(1, 2)] * 4 + [(2, 4)] * 6
    unseen = [video for video in videos if video not in corpus]
    assert [video.source is None for video in unseen] == [True, False]
    assert all(not group & set.union(*found) for group in groups(unseen))


def test_length_rate_and_bit_rate_do_not_depend_on_the_label():
    videos = [video for seed in range(20) for video in plan_corpus(seed)]
    fake = np.array([video.source is not None for video in videos])
    assert {video.fps for video in videos} == set(FPS)
    for key in ("n_frames", "fps", "bit_rate"):
        values = [getattr(video, key) for video in videos]
        # 340 of each: the standard error of this AUC is 0.022.
        assert abs(roc_auc_score(fake, values) - 0.5) < 0.08


def test_files_hold_what_was_planned(demo):
    out, videos = demo
    for video in videos:
        with av.open(str(out / video.path)) as container:
            (stream,) = container.streams
            frames = list(container.decode(stream))
            assert stream.codec_context.name == "h264"
            assert stream.average_rate == video.fps
        assert (frames[0].width, frames[0].height) == video.size == (96, 72)
        assert len(frames) == video.n_frames


def test_truth_has_one_box_inside_each_frame_of_each_fake(demo):
    out, videos = demo
    truth = json.loads((out / "truth.json").read_text())
    fakes = [video for video in videos if video.source is not None]
    assert set(truth) == {video.path for video in fakes}
    for video in fakes:
        x, y, width, height = np.transpose(truth[video.path]["boxes_xywh"])
        assert len(x) == video.n_frames
        assert min(x.min(), y.min()) >= 0 and min(width.min(), height.min()) > 10
        assert (x + width).max() <= video.size[0] and (y + height).max() <= video.size[1]


def test_making_it_again_gives_the_same_bytes_and_touches_no_other_file(
    demo, in_process, monkeypatch
):
    out, videos = demo
    monkeypatch.setattr("data.demo.LocalPool", lambda jobs: in_process)
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    (out / videos[0].path).write_bytes(b"broken")
    make_demo(out, **SMALL)
    assert contents(out) == before


def test_another_corpus_in_the_folder_is_refused(demo):
    out, _ = demo
    before = contents(out)
    with pytest.raises(SettingsError, match="another corpus"):
        make_demo(out, seed=1, **SMALL)
    assert contents(out) == before


def test_a_fake_differs_from_its_real_video_inside_the_box_only():
    actor, source = cast_actor(1), cast_actor(2)
    settings = {"n_frames": 4, "size": (160, 120), "seed": 3}
    real, boxes = render(actor, **settings)
    fake, _ = render(actor, source=source, **settings)
    differs = (real != fake).any(axis=3)  # (T, H, W)
    for (x, y, width, height), changed in zip(boxes, differs, strict=True):
        assert changed[y : y + height, x : x + width].mean() > 0.3
        changed[y : y + height, x : x + width] = False
    assert not differs.any()


def test_motion_stays_within_its_band():
    signal = drift(np.random.default_rng(0), 500, 25.0, 0.5, 2.0)
    power = np.abs(np.fft.rfft(signal * np.hanning(500))) ** 2
    hertz = np.fft.rfftfreq(500, 1 / 25)
    assert power[(hertz > 0.4) & (hertz < 2.1)].sum() > 0.99 * power.sum()


def test_the_picture_does_not_change_the_size_of_the_file(tmp_path):
    rng = np.random.default_rng(0)
    calm = np.full((50, 120, 160, 3), 128, np.uint8)
    busy = rng.integers(0, 256, calm.shape, np.uint8)
    for name, frames in (("calm", calm), ("busy", busy)):
        write_video(tmp_path / f"{name}.mp4", frames, 25, bit_rate=400_000)
    calm_size, busy_size = ((tmp_path / f"{n}.mp4").stat().st_size for n in ("calm", "busy"))
    # Two seconds of 400 kbit/s are 100 kB; the rate buffer holds half a second, a quarter of it.
    assert calm_size == pytest.approx(100_000, rel=0.25)
    assert busy_size == pytest.approx(calm_size, rel=0.25)
    assert not list(tmp_path.glob(".*"))


def test_file_sizes_do_not_tell_the_label(demo):
    out, videos = demo
    values = [[(out / v.path).stat().st_size, v.n_frames, v.fps] for v in videos]
    fake = np.array([video.source is not None for video in videos])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(model, values, fake, cv=5, method="predict_proba")[:, 1]
    # 17 of each: the standard error is 0.10. Only a plain giveaway fails here.
    assert roc_auc_score(fake, scores) < 0.8


@pytest.mark.parametrize("size", ["95x72", "large", "32x32"])
def test_a_size_that_h264_cannot_hold_is_refused(tmp_path, size):
    result = CliRunner().invoke(main, ["-o", str(tmp_path / "demo"), "--size", size])
    assert result.exit_code == 2
    assert size in result.output
    assert not (tmp_path / "demo").exists()


def test_help_shows_defaults_and_an_example():
    output = CliRunner().invoke(main, ["--help"]).output
    assert "  python -m data.demo -o demo --seed 1\n" in output
    assert "400x300" in output
