"""A crop about a face holds still, and costs no pixel of what a crop by hand would give."""

import functools
import re
import shutil
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from pipeline.cache import Cache, read_shard
from pipeline.common.csv_files import read_csv
from pipeline.common.errors import Rejected, SettingsError
from pipeline.corpus.labelled_video import Video
from pipeline.extract import main
from pipeline.extraction import clips as clips_module
from pipeline.extraction import extract_corpus, frame_buffer
from pipeline.extraction.extract_corpus import extract
from pipeline.extraction.new_videos import extract_new
from pipeline.faces import FaceCrop
from pipeline.settings import Settings
from pipeline.video.resize import Geometry
from pipeline.viewing.contact_sheet import MAX_OVERVIEW_WIDTH, contact_sheet
from tests.pipeline.conftest import LOSSLESS, grainy, magnitudes, one_clip

PAN = 2  # pixels a frame


@pytest.fixture(scope="module")
def panned(actor):
    """A camera that pans over a picture with a face: so many frames, so many pixels a frame."""

    @functools.cache
    def pan(n, step=PAN):
        frame, _ = actor
        wide = grainy(480, 640 + step * n + 200, seed=1)
        person = (0.8 * frame + 0.2 * wide[:, 100:740]).astype(np.uint8)[:, 140:500]
        wide[:, 240:600] = person
        return np.stack([wide[:, 100 + step * k : 740 + step * k] for k in range(n)])

    return pan


# ------------------------------------------------------------------------------------- steadiness


def test_a_still_picture_with_a_face_does_not_move(actor, haar, tmp_path, write_video):
    path = write_video(tmp_path / "still.mkv", np.stack([actor[0]] * 20), 25, **LOSSLESS)
    facts, arrays = one_clip(path, 20, **haar)
    assert facts.face_share == 1
    assert all(np.array_equal(frame, arrays["frames"][0]) for frame in arrays["frames"])
    assert not arrays["flow"].any() and not arrays["flow_range"].any()
    assert np.nanmax(np.abs(arrays["camera"])) < 0.02


def test_a_picture_that_is_shown_twice_has_not_moved(tmp_path, write_video, moving_texture):
    frames = np.repeat(moving_texture(40), 3, axis=0)[2:]  # 118 frames, more than are done at once
    path = write_video(tmp_path / "thrice.mkv", frames, 25, **LOSSLESS)
    _, arrays = one_clip(path, len(frames))
    moved = np.arange(len(frames) - 1) % 3 == 0
    assert not arrays["flow"][~moved].any() and not arrays["flow_range"][~moved].any()
    assert (arrays["flow_range"][moved, 1] > 0.05).all()


def test_a_slow_pan_gives_the_pans_flow_and_nothing_else(panned, haar, tmp_path, write_video):
    path = write_video(tmp_path / "pan.mkv", panned(16), 25, **LOSSLESS)
    facts, arrays = one_clip(path, 16, **haar)
    expected = PAN * 224 / facts.crop[2]  # pixels of a map
    inner = magnitudes(arrays)[:, 30:-30, 30:-30]
    assert np.median(inner) == pytest.approx(expected, abs=0.02)
    assert np.quantile(np.abs(inner - expected), 0.85) < 0.1
    assert np.std(np.median(inner, axis=(1, 2))) < 0.02  # and no map has more than another
    np.testing.assert_allclose(arrays["camera"][:, 0], -expected, atol=0.1)
    np.testing.assert_allclose(arrays["camera"][:, 1], 0, atol=0.1)


def test_the_box_holds_the_face_wherever_it_went(panned, haar, tmp_path, write_video):
    path = write_video(tmp_path / "pan.mkv", panned(25, step=4), 25, **LOSSLESS)
    facts, arrays = one_clip(path, 25, **haar)
    x, y, width, height = facts.crop
    seen = arrays["faces"][arrays["faces"][:, 5] > 0]
    assert len(seen) == 3  # looked at frames 0, 12 and 24
    centres = seen[:, 1] + seen[:, 3] / 2
    assert centres[0] - centres[-1] == pytest.approx(96, abs=14)
    assert (seen[:, 1] >= x).all() and (seen[:, 1] + seen[:, 3] <= x + width).all()
    assert (seen[:, 2] >= y).all() and (seen[:, 2] + seen[:, 4] <= y + height).all()


def test_more_margin_keeps_more(actor, haar, tmp_path, write_video):
    path = write_video(tmp_path / "still.mkv", np.stack([actor[0]] * 4), 25, **LOSSLESS)
    widths = [
        one_clip(path, 4, faces=FaceCrop(margin, "haar"), model=haar["model"])[0].crop[2]
        for margin in (0.0, 0.2, 0.4)
    ]
    face = widths[0]
    assert widths == pytest.approx([face, 1.4 * face, 1.8 * face], abs=2)


# ---------------------------------------------------------------------------------- same pixels


INTERLACED = {
    "codec": "libx264",
    "pix_fmt": "yuv420p",
    "options": {"flags": "+ildct", "x264-params": "tff=1"},
}


@pytest.mark.parametrize(
    "options,size",
    [
        ({"codec": "libx264", "pix_fmt": "yuv420p"}, (224, 224)),
        ({"codec": "libx264", "pix_fmt": "yuv420p10le"}, (224, 128)),
        ({"codec": "ffv1", "pix_fmt": "yuv422p"}, (100, 333)),
        ({"codec": "ffv1", "pix_fmt": "gray"}, (224, 224)),
        ({"codec": "ffv1", "pix_fmt": "bgr0"}, (224, 128)),
        ({"codec": "qtrle", "pix_fmt": "rgb24", "container": ".mov"}, (100, 333)),
        (INTERLACED, (100, 333)),
    ],
)
def test_frames_are_those_of_the_same_box_given_by_hand(
    panned, haar, tmp_path, write_video, options, size
):
    name = "video" + options.get("container", ".mkv")
    options = {key: value for key, value in options.items() if key != "container"}
    path = write_video(tmp_path / name, panned(14), 25, **options)
    facts, arrays = one_clip(path, 14, geometry=Geometry(*size), **haar)
    _, by_hand = one_clip(path, 14, geometry=Geometry(*size, facts.crop))
    for key in ("frames", "flow", "flow_range", "timestamps", "overview", "crop"):
        np.testing.assert_array_equal(arrays[key], by_hand[key], key)


def test_the_interlaced_video_of_this_test_is_one(panned, tmp_path, write_video):
    options = {"flags": "+ildct", "x264-params": "tff=1"}
    path = write_video(tmp_path / "video.mkv", panned(3), 25, options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame


def test_a_turned_video_is_searched_upright(actor, haar, tmp_path, write_video):
    lying = np.ascontiguousarray(np.rot90(np.stack([actor[0]] * 12), -1, axes=(1, 2)))
    plain = write_video(tmp_path / "plain.mp4", lying, 25)
    turned = tmp_path / "turned.mp4"
    with av.open(str(plain)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90) if hasattr(stream, "set_display_rotation") else None
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(turned)) as container:
        if not next(container.decode(video=0)).rotation:
            pytest.skip("this PyAV cannot write a rotation")
    facts, _ = one_clip(turned, 12, **haar)
    assert facts.face_share == 1


def test_a_face_that_goes_further_than_foreseen_is_decoded_again(
    panned, haar, tmp_path, write_video, monkeypatch
):
    path = write_video(tmp_path / "pan.mkv", panned(21, step=6), 25, **LOSSLESS)
    again = []
    monkeypatch.setattr("pipeline.faces.search.ROOM", 0.0)
    decode = clips_module._decode_again
    monkeypatch.setattr(clips_module, "_decode_again", lambda *a: again.append(a) or decode(*a))
    facts, arrays = one_clip(path, 21, geometry=Geometry(200, 190), **haar)
    assert len(again) == 1
    _, by_hand = one_clip(path, 21, geometry=Geometry(200, 190, facts.crop))
    np.testing.assert_array_equal(arrays["frames"], by_hand["frames"])


@pytest.mark.parametrize("name,value", [("MAX_IN_MEMORY", 1000), ("MAX_BYTES", 10**6)])
def test_what_does_not_fit_into_memory_comes_out_the_same(
    panned, haar, tmp_path, write_video, monkeypatch, name, value
):
    path = write_video(tmp_path / "pan.mkv", panned(12), 25, **LOSSLESS)
    _, whole = one_clip(path, 12, **haar)
    monkeypatch.setattr(frame_buffer, name, value)
    _, arrays = one_clip(path, 12, **haar)
    np.testing.assert_array_equal(arrays["frames"], whole["frames"])


def test_a_video_with_a_palette_is_cropped_like_any_other(panned, haar, tmp_path):
    path = tmp_path / "video.avi"
    greys = np.stack([np.arange(256)] * 3 + [np.full(256, 255)], axis=1).astype(np.uint8)
    with av.open(str(path), "w") as target:
        stream = target.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "pal8"
        for picture in panned(14):
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            target.mux(stream.encode(av.VideoFrame.from_ndarray((grey, greys), format="pal8")))
        target.mux(stream.encode())
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).format.has_palette
    facts, arrays = one_clip(path, 14, **haar)
    _, by_hand = one_clip(path, 14, geometry=Geometry(crop=facts.crop))
    np.testing.assert_array_equal(arrays["frames"], by_hand["frames"])


def test_a_face_in_squeezed_pixels_is_found(actor, haar, tmp_path, write_video):
    """The picture is stored at a third of its width."""
    squeezed = np.stack([cv2.resize(actor[0], (212, 480), interpolation=cv2.INTER_AREA)] * 12)
    plain = write_video(tmp_path / "plain.mkv", squeezed, 25)
    wide = tmp_path / "wide.mkv"
    with av.open(str(plain)) as source, av.open(str(wide), "w") as target:
        stream = target.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 212, 480, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3)
        for frame in source.decode(video=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    facts, _ = one_clip(wide, 12, **haar)
    *_, width, height = facts.crop
    assert facts.face_share == 1
    assert width * 3 == pytest.approx(height, abs=3)


# ------------------------------------------------------------------------------------- policies


def nobody():
    """A wall, 480x640, with grain as a camera has it."""
    grain = np.random.default_rng(3).normal(0, 3, (480, 640, 3))
    return np.clip(np.linspace(90, 150, 640)[None, :, None] + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def videos(actor, tmp_path_factory, write_video):
    """A person, nobody, two persons, and one who leaves; 26 frames each."""
    folder = tmp_path_factory.mktemp("faces")
    frame = actor[0]
    empty = nobody()
    small = cv2.resize(frame, (480, 360), interpolation=cv2.INTER_AREA)[:, 80:400]
    two = empty.copy()
    two[60:420, :320], two[60:420, 320:] = small, small
    clips = {
        "person": [frame] * 26,
        "nobody": [empty] * 26,
        "two": [two] * 26,
        "leaves": [frame] * 8 + [empty] * 18,
    }
    paths = {}
    for name, pictures in clips.items():
        moving = [np.roll(picture, n // 2, axis=1) for n, picture in enumerate(pictures)]
        paths[name] = write_video(folder / f"{name}.mp4", np.stack(moving), 25)
    return paths


def test_each_policy_is_a_reason_or_a_recorded_fact(videos, haar, tmp_path, in_process):
    corpus = [Video(path, label=n % 2) for n, path in enumerate(videos.values())]

    def run(out, **policy):
        faces = FaceCrop(detector="haar", detector_sha256=haar["faces"].detector_sha256, **policy)
        settings = Settings(width=64, height=64, crop=faces, frames=26)
        cache = extract(corpus, tmp_path / out, settings, in_process)
        rejected = {row["path"].rpartition("/")[2]: row["reason"] for row in cache.rejected()}
        names = cache.names()
        clips = {names[c.video].rpartition("/")[2].removesuffix(".mp4"): c for c in cache.clips}
        return clips, rejected, cache

    clips, rejected, _ = run("kept", no_face="whole", share=0.0)
    assert rejected == {}
    assert clips["nobody"].crop == "80,0,480,480" and clips["nobody"].face_share == 0
    assert clips["person"].face_share == 1 and clips["person"].n_faces == 1
    assert clips["two"].n_faces == 2
    assert 0 < clips["leaves"].face_share < 0.5
    clips, rejected, cache = run("strict", no_face="whole", several="reject")
    assert rejected == {"two.mp4": "several faces"}
    assert clips["leaves"].crop == clips["nobody"].crop  # a face seen in passing is none
    with pytest.raises(Exception, match="real and fake ones are needed"):
        run("nobody", several="reject")
    rows = read_csv(tmp_path / "nobody" / "rejected.csv")
    assert {"no face", "several faces", "face leaves"} == {row["reason"] for row in rows}
    card = (cache.folder / "datacard.md").read_text()
    assert "no face was found in 2 of 3 clips" in card.lower()


def test_a_later_clip_may_have_the_face(videos, haar, actor, tmp_path, write_video):
    frames = [nobody()] * 12 + [actor[0]] * 12
    path = write_video(tmp_path / "late.mp4", np.stack(frames), 25)
    with pytest.raises(Rejected) as rejected:
        one_clip(path, 12, **haar)
    assert rejected.value.reason == "no face"
    facts, _ = one_clip(path, 12, n_clips=2, **haar)
    assert facts.start == pytest.approx(12 / 25) and facts.face_share == 1


def test_what_was_chosen_is_on_the_sheet(videos, haar, tmp_path, in_process):
    corpus = [Video(videos["person"], 0), Video(videos["two"], 1)]
    settings = Settings(width=64, height=64, crop=haar["faces"], frames=26)
    cache = extract(corpus, tmp_path / "cache", settings, in_process)
    assert isinstance(Cache(cache.folder).settings["crop"], dict)
    left = contact_sheet(cache, cache.clips)[:, :MAX_OVERVIEW_WIDTH].reshape(-1, 3)
    assert (left == (255, 200, 0)).all(1).sum() > 100  # the box that is kept
    assert (left == (0, 220, 255)).all(1).sum() > 100  # the face


# ------------------------------------------------------------------------------- in a whole cache


@pytest.fixture(scope="module")
def cropped(videos, haar, tmp_path_factory, in_process):
    """A cache about faces, stabilised, with what made it."""
    corpus = [Video(videos["person"], 0), Video(videos["two"], 1)]
    settings = Settings(width=64, height=64, crop=haar["faces"], frames=13, clips=2, stabilise=True)
    return extract(corpus, tmp_path_factory.mktemp("cropped") / "c", settings, in_process), corpus


def test_a_new_video_is_cropped_as_those_of_the_cache_were(cropped, tmp_path, in_process):
    cache, corpus = cropped
    settings = Settings.from_json(cache.settings)
    assert settings.faces is not None and settings.faces.detector == "haar"
    ((_, video),) = extract_new([corpus[0].path], tmp_path, settings, 13, in_process)
    names = cache.names()
    ours = [clip for clip in cache.clips if names[clip.video] == str(corpus[0].path)]
    new = read_shard(tmp_path, video.shard)
    assert len(ours) == len(new) == 2
    for clip, arrays in zip(sorted(ours, key=lambda c: c.start), new.values(), strict=True):
        for key, array in arrays.items():
            np.testing.assert_array_equal(cache.read(clip, key), array, key)


def test_missing_shards_are_made_again_with_the_same_crop(
    cropped, haar, tmp_path, in_process, contents
):
    cache, corpus = cropped
    copy = shutil.copytree(cache.folder, tmp_path / "cache")
    (copy / cache.clips[0].shard).unlink()
    extract(corpus, copy, Settings.from_json(cache.settings), in_process)
    assert contents(copy) == contents(cache.folder)


def test_an_interrupted_extraction_resumes_with_the_same_bytes(
    cropped, tmp_path, in_process, contents, monkeypatch
):
    cache, corpus = cropped
    settings = Settings.from_json(cache.settings)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extract_corpus, "write_index", interrupt)
        extract(corpus, tmp_path / "cache", settings, in_process)
    (tmp_path / "cache" / ".work" / "notes.jsonl").unlink()  # then the shards themselves must tell
    resumed = extract(corpus, tmp_path / "cache", settings, in_process)
    assert resumed.clips == cache.clips
    assert contents(tmp_path / "cache") == contents(cache.folder)


def test_another_detector_or_policy_is_another_cache(cropped, haar, in_process):
    cache, corpus = cropped
    made_with = Settings.from_json(cache.settings)
    for faces, said in (
        (replace(haar["faces"], margin=0.8), "crop.margin was 0.3, now 0.8"),
        (replace(haar["faces"], detector="yunet"), "crop.detector was 'haar', now 'yunet'"),
    ):
        with pytest.raises(SettingsError, match=re.escape(said)):
            extract(corpus, cache.folder, replace(made_with, crop=faces), in_process)


def test_the_command_crops_about_faces(videos, tmp_path, call, without_workers):
    (tmp_path / "corpus.csv").write_text(
        f"path,label\n{videos['person']},real\n{videos['two']},fake\n{videos['nobody']},fake\n"
    )
    code, said, errors = call(
        main, tmp_path / "corpus.csv", "-o", tmp_path / "cache", "--size", "64",
        "--crop", "face+0.8", "--face-detector", "haar", "--no-face", "whole", "--stabilise",
        "--test", "0",
    )  # fmt: skip
    assert code == 0, errors
    cache = Cache(tmp_path / "cache")
    assert cache.settings["crop"]["margin"] == 0.8 and cache.settings["stabilise"]
    shares = sorted(clip.face_share for clip in cache.clips)
    assert shares == [0, 1, 1]
    assert "no face was found in 1 of 3 clips" in said
    assert "several faces were seen in 1 of 3 clips" in said


@pytest.mark.parametrize(
    "options,said",
    [
        (["--crop", "faces"], "'faces' is neither none nor x,y,w,h nor face nor face+MARGIN"),
        (["--crop", "face+lots"], "face+MARGIN, as face+0.8"),
        (["--crop", "face+"], "face+MARGIN, as face+0.8"),
        (["--crop", "face+-1"], "face+MARGIN, as face+0.8"),
        (["--crop", "face", "--face-detector", "nowhere.onnx"], "nowhere.onnx cannot be read"),
        (["--crop", "face", "--face-detector", "README.md"], "README.md is not face_detection_"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_two_lines(options, said, videos, tmp_path, call):
    corpus = tmp_path / "corpus.csv"
    corpus.write_text(f"path,label\n{videos['person']},real\n{videos['two']},fake\n")
    code, _, errors = call(main, corpus, "-o", tmp_path / "cache", *options)
    assert code in (2, 4)
    assert said in errors
    assert errors.count("\n") == 2 and "hint: " in errors
