"""Changed copies of videos: each change does what its name says, and nothing else."""

import dataclasses
import itertools
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from model.robustness.perturbations import EXTRA_FRAMES, PERTURBATIONS, Perturbation, perturb
from pipeline.common.errors import Rejected
from pipeline.settings import Settings
from pipeline.video.decode import open_video, timed_frames, video_stream
from pipeline.video.probe import probe

ALL = Settings(frames=24)
OF_NAME = {change.name: change for change in PERTURBATIONS}
PICTURES_KEPT = 3.0  # grey levels by which CRF 10 with half the chroma may differ on average
LUMA_NOISE = np.linalg.norm([0.299, 0.587, 0.114])  # what grey keeps of noise in three colours


def read(path):
    """Times from the first frame on, (T,), and grey pictures, (T, H, W) float."""
    with open_video(path) as container:
        frames = list(timed_frames(container))
    times = np.array([time for time, _ in frames])
    return times - times[0], np.stack([f.to_ndarray(format="gray") for _, f in frames]).astype(
        float
    )


def detail(pictures):
    """Energy of the highest frequencies, in the mean over pictures."""
    return np.mean([cv2.Laplacian(picture, cv2.CV_64F).var() for picture in pictures])


@pytest.fixture(scope="module")
def source(tmp_path_factory, write_video):
    return write_video(tmp_path_factory.mktemp("source") / "a.mp4", seed=3)


@pytest.fixture(scope="module")
def copies(source, tmp_path_factory):
    """A copy of one video under each change, by name."""
    folder = tmp_path_factory.mktemp("copies")
    paths = {}
    for name, change in OF_NAME.items():
        paths[name] = folder / f"{name}.mp4"
        perturb(source, paths[name], change, ALL, 24)
    return paths


@pytest.fixture
def copy(tmp_path):
    """Make one changed copy."""

    def make(source, change="CRF 10", settings=ALL, n_frames=24):
        change = change if isinstance(change, Perturbation) else OF_NAME[change]
        target = tmp_path / f"{change.name}.mp4"
        perturb(source, target, change, settings, n_frames)
        return target

    return make


def test_names_are_distinct_and_each_changes_something():
    assert len(OF_NAME) == len(PERTURBATIONS)
    values = {dataclasses.replace(change, name="") for change in PERTURBATIONS}
    assert len(values) == len(PERTURBATIONS)


@pytest.mark.parametrize(
    "name", ["CRF 40", "half size", "half frame rate", "blur 1.5%", "noise 15", "gamma 1.6"]
)
def test_the_same_video_gives_the_same_bytes(source, copies, copy, name):
    assert copy(source, name).read_bytes() == copies[name].read_bytes()


@pytest.mark.parametrize("name", [name for name in OF_NAME if OF_NAME[name].every == 1])
def test_every_frame_keeps_its_time(source, copies, name):
    times, found = read(source)[0], read(copies[name])[0]
    assert found.tolist() == times.tolist()
    assert probe(copies[name]).duration == probe(source).duration


def test_crf_10_keeps_the_pictures_and_higher_ones_lose_bytes_and_likeness(source, copies):
    names = [f"CRF {crf}" for crf in (10, 23, 32, 40, 48)]
    sizes = [copies[name].stat().st_size for name in names]
    pictures = read(source)[1]
    apart = [np.abs(read(copies[name])[1] - pictures).mean() for name in names]
    for lower, higher in itertools.combinations(range(len(names)), 2):
        if higher - lower > 1:  # of a few kB in all, neighbours may differ by a header
            assert sizes[lower] > sizes[higher] and apart[lower] < apart[higher]
    assert sizes[-1] < 0.7 * sizes[1]
    assert apart[0] < PICTURES_KEPT < apart[-1]


def test_half_size_has_half_the_size(source, copies):
    whole, half, quarter = (
        probe(path) for path in (source, copies["half size"], copies["quarter size"])
    )
    assert (half.width, half.height) == (whole.width // 2, whole.height // 2)
    assert (quarter.width, quarter.height) == (whole.width // 4, whole.height // 4)
    pictures = read(source)[1]
    small = np.stack([cv2.resize(p, (48, 36), interpolation=cv2.INTER_AREA) for p in pictures])
    assert np.abs(read(copies["half size"])[1] - small).mean() < PICTURES_KEPT


def test_half_the_frame_rate_has_every_second_frame_at_its_time(source, copies):
    (times, pictures), (kept, found) = read(source), read(copies["half frame rate"])
    assert kept.tolist() == times[::2].tolist()
    assert np.abs(found - pictures[::2]).mean() < PICTURES_KEPT
    assert np.abs(found - pictures[1::2]).mean() > PICTURES_KEPT
    assert probe(copies["half frame rate"]).fps == pytest.approx(probe(source).fps / 2)


def test_blur_takes_detail_and_a_larger_one_takes_more(copies):
    sharp, blurred, more = (
        detail(read(copies[name])[1]) for name in ("CRF 10", "blur 0.5%", "blur 1.5%")
    )
    assert blurred < 0.95 * sharp  # 0.36 pixels in a picture this small
    assert more < 0.5 * blurred


@pytest.mark.parametrize("level", [5, 15])
def test_noise_is_as_strong_as_its_name_says(copies, level):
    clean, noisy = (read(copies[name])[1] for name in ("CRF 10", f"noise {level}"))
    inside = (clean > 50) & (clean < 205)  # nothing is cut off at black and white
    assert (noisy - clean)[inside].std() == pytest.approx(level * LUMA_NOISE, rel=0.3)
    assert detail(noisy) > detail(clean)


def test_noise_is_another_in_each_frame(copies):
    noise = read(copies["noise 15"])[1] - read(copies["CRF 10"])[1]
    assert abs(np.corrcoef(noise[3].ravel(), noise[4].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("gamma", [0.6, 1.6])
def test_gamma_changes_the_light_as_its_name_says(source, copies, gamma):
    expected = 255 * (read(source)[1] / 255) ** gamma
    found = read(copies[f"gamma {gamma}"])[1]
    assert found.mean() == pytest.approx(expected.mean(), abs=4)  # of colours, not of greys


# --------------------------------------------------------------------------------- how much of it


@pytest.mark.parametrize("name", ["CRF 10", "half frame rate"])
def test_no_more_frames_are_encoded_than_extraction_looks_at(copy, tmp_path, write_video, name):
    long = write_video(tmp_path / "long.mp4", seed=1, n_frames=60)
    found = copy(long, name, Settings(frames=5, clips=2), n_frames=5)
    assert probe(found).n_samples == 2 * 5 + EXTRA_FRAMES + 1  # the one that is at the very limit


def test_where_the_rate_varies_the_whole_video_is_kept(copy, tmp_path):
    """Its rate is one number for the whole file, which a part of it would not give."""
    times = np.cumsum([0] + 19 * [1] + 20 * [3])
    source = varying(tmp_path / "varying.mp4", times)
    found = copy(source, n_frames=5)
    assert read(found)[0] == pytest.approx(times / 30)
    assert probe(found).fps == pytest.approx(probe(source).fps)
    part = copy(source, "CRF 23", Settings(frames=5, fps=10), n_frames=5)
    assert len(read(part)[0]) < 25  # a given rate does not depend on the file


def varying(path, times, **facts):
    """A video whose frames have these times, in thirtieths of a second."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for name, value in facts.items():
            setattr(stream.codec_context, name, value)
        for time in times:
            picture = np.kron(rng.integers(0, 255, (8, 12, 3), np.uint8), np.ones((8, 8, 1)))
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# ---------------------------------------------------------------------------------- odd videos


def test_the_shape_of_pixels_is_kept(copy, tmp_path):
    source = varying(tmp_path / "wide.mp4", range(10), sample_aspect_ratio=Fraction(2))
    with open_video(copy(source, "half size", n_frames=5)) as container:
        assert video_stream(container).sample_aspect_ratio == 2


def test_a_side_of_odd_length_gets_a_line_and_loses_none(copy, source):
    odd = Perturbation("odd", filters="scale=round(0.73*iw):round(0.73*ih)")  # 96 x 72 to 70 x 53
    found = probe(copy(source, odd))
    assert (found.width, found.height) == (70, 54)


def test_a_real_rotated_video_comes_upright(copy, sample_videos):
    source = sample_videos / "odd" / "video_90.mov"
    found = copy(source, n_frames=3)
    before, after = probe(source), probe(found)
    assert (after.width, after.height) == (before.width, before.height)
    with open_video(source) as container:
        stored = next(container.decode(video=0))
        assert round(stored.rotation) % 180 == 90
        upright = np.rot90(stored.to_ndarray(format="gray"), round(stored.rotation) // 90)
    assert np.abs(read(found)[1][0] - upright).mean() < PICTURES_KEPT


def test_a_damaged_video_is_copied_up_to_the_damage(copy, sample_videos):
    found = copy(sample_videos / "odd" / "corrupted.mp4", Perturbation("sound part"), n_frames=50)
    assert len(read(found)[0]) == 28


def test_what_is_no_video_is_rejected(copy, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("not a video\n" * 100)
    with pytest.raises(Rejected) as caught:
        copy(text)
    assert caught.value.reason == "not a video"


def test_a_copy_too_slow_for_the_extraction_is_rejected_as_a_slow_video_is(copy, source):
    with pytest.raises(Rejected) as caught:
        copy(source, "half frame rate", Settings(frames=24, fps=25))
    assert caught.value.reason == "frame rate too low"
