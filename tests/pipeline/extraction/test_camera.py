"""The camera's motion is found behind a moving head, and can be taken out of the flow."""

import functools

import av
import cv2
import numpy as np
import pytest

from pipeline.cache.datacard import caveats
from pipeline.corpus.labelled_video import Video
from pipeline.extraction.camera import Camera, Mapping, camera_field
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings
from pipeline.video.resize import Geometry
from tests.pipeline.conftest import grainy, magnitudes, one_clip

SIZE = (640, 480)
HEAD = (110, 150)  # half-axes, pixels
N = 14


@functools.cache
def filmed(pan, *, zoom=0.0, swing=14.0, texture=True):
    """A head that sways before a background, filmed by a camera that pans and zooms.

    Pan is in pixels a frame, zoom a rate per frame. Also where the background is far from the head,
    and where the head is, at any time.
    """
    height, width = 640, 900
    world = grainy(height, width, 5) if texture else np.full((height, width, 3), 128, np.uint8)
    skin = grainy(height, width, seed=6)
    frames, background, head = [], np.ones(SIZE[::-1], bool), np.ones(SIZE[::-1], bool)
    for t in range(N):
        across = swing * np.sin(t / 2)
        mask = np.zeros((height, width), np.float32)
        centre = (width / 2 + across + pan[0] * N / 2, height / 2)
        cv2.ellipse(mask, (centre, (2 * HEAD[0], 2 * HEAD[1]), 0), 1, -1, cv2.LINE_AA)
        moved = np.float32([[1, 0, across], [0, 1, 0]])
        worn = cv2.warpAffine(skin, moved, (width, height), borderMode=cv2.BORDER_REFLECT)
        scene = world * (1 - mask[..., None]) + worn * mask[..., None]
        s = 1 / (1 + zoom * t)
        corner = (np.array([width, height]) - s * np.array(SIZE)) / 2 + np.array(pan) * t
        view = np.float32([[s, 0, corner[0]], [0, s, corner[1]]])
        seen, where = (
            cv2.warpAffine(a, view, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            for a in (scene.astype(np.float32), mask)
        )
        noise = np.random.default_rng(t).normal(0, 1, seen.shape)
        frames.append(np.clip(seen + noise, 0, 255).astype(np.uint8))
        background &= cv2.dilate(where, np.ones((91, 91))) < 0.01
        head &= where > 0.99
    background[:40], background[-40:], background[:, :40], background[:, -40:] = (False,) * 4
    return np.stack(frames), background, head


def on_map(mask, geometry=None):
    """A mask of the whole picture, as the default crop shows it."""
    x, y, w, h = (geometry or Geometry()).box(*SIZE)
    return cv2.resize(mask[y : y + h, x : x + w].astype(np.uint8), (224, 224)) > 0


def both(tmp_path, write_video, frames):
    """Magnitudes as filmed and stabilised, and the camera's motion."""
    path = write_video(tmp_path / "video.mp4", frames, 25)
    _, plain = one_clip(path, N)
    _, steady = one_clip(path, N, stabilise=True)
    np.testing.assert_array_equal(plain["camera"], steady["camera"])
    return magnitudes(plain), magnitudes(steady), plain["camera"]


def test_the_background_of_a_pan_falls_to_the_noise_floor_and_the_head_is_kept(
    tmp_path, write_video
):
    frames, background, head = filmed((5.0, 1.0))
    still, _, _ = filmed((0.0, 0.0))
    plain, steady, camera = both(tmp_path, write_video, frames)
    filmed_still, still_steady, _ = both(tmp_path, write_video, still)
    background, head = on_map(background), on_map(head)
    shown = 224 / 480  # pixels of the map for one of the picture
    np.testing.assert_allclose(camera[:, :2] / shown, [[-5.0, -1.0]] * (N - 1), atol=0.15)
    assert plain[:, background].mean() == pytest.approx(np.hypot(5, 1) * shown, rel=0.05)
    floor = filmed_still[:, background].mean()
    assert steady[:, background].mean() < floor + 0.05
    assert np.quantile(steady[:, background], 0.95) < 0.15
    # The head moves as it does before a camera that stands still.
    assert steady[:, head].mean() == pytest.approx(filmed_still[:, head].mean(), rel=0.1)
    assert filmed_still[:, head].mean() > 1
    np.testing.assert_allclose(
        still_steady[:, head].mean(), filmed_still[:, head].mean(), rtol=0.02
    )


def test_a_zoom_is_found_and_taken_out(tmp_path, write_video):
    frames, background, _ = filmed((0.0, 0.0), zoom=0.01)
    plain, steady, camera = both(tmp_path, write_video, frames)
    rates = 0.01 / (1 + 0.01 * np.arange(N - 1))  # from each frame to the next
    np.testing.assert_allclose(camera[:, 2], rates, atol=0.001)
    np.testing.assert_allclose(camera[:, 5], rates, atol=0.001)
    np.testing.assert_allclose(camera[:, 3:5], 0, atol=0.001)
    background = on_map(background)
    assert steady[:, background].mean() < 0.2 * plain[:, background].mean()


def test_before_a_wall_without_texture_nothing_is_said_or_taken_out(tmp_path, write_video):
    frames, _, _ = filmed((0.0, 0.0), texture=False)
    flat = np.where(np.abs(frames.astype(int) - 128) < 8, 128, frames).astype(np.uint8)
    plain, steady, camera = both(tmp_path, write_video, flat)
    assert np.isnan(camera).all()
    assert np.abs(plain - steady).max() < 0.05


def test_the_camera_of_real_clips_stands_still_and_a_pan_over_them_is_found(
    sample_videos, tmp_path, write_video
):
    """Signers before plain walls: their arms have more texture than the background."""
    for path in sorted((sample_videos / "people").glob("asl_*.mkv"))[::3]:
        _, arrays = one_clip(path, 36)
        motion = arrays["camera"][:, :2] * 480 / 224  # pixels of the picture
        assert np.median(np.abs(motion)) < 0.1
        assert np.abs(motion).max() < 1
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    pan = np.stack([frame[40:400, 3 * n : 480 + 3 * n] for n in range(20)])
    noise = np.random.default_rng(0).normal(0, 1.5, pan.shape)
    path = write_video(tmp_path / "pan.mp4", np.clip(pan + noise, 0, 255).astype(np.uint8), 25)
    _, arrays = one_clip(path, 20)
    np.testing.assert_allclose(arrays["camera"][:, 0], -3 * 224 / 360, atol=0.2)


def test_clips_whose_camera_is_not_known_are_counted(tmp_path, write_video, in_process):
    wall = np.full((20, 120, 160, 3), 128, np.uint8)
    wall[:, 40:80, 60:100] = grainy(40, 40, seed=1)
    moving = np.stack([np.roll(frame, n, axis=1) for n, frame in enumerate(wall)])
    videos = [
        Video(write_video(tmp_path / f"{n}.mp4", frames, 25), label=n)
        for n, frames in enumerate((moving, wall))
    ]
    settings = Settings(width=64, height=64, stabilise=True)
    cache = extract(videos, tmp_path / "cache", settings, in_process)
    for clip in cache.clips:
        unknown = np.isnan(cache.read(clip, "camera")).all(axis=1)
        assert clip.camera_known == pytest.approx(1 - unknown.mean())
    assert any(
        "there it was not taken out" in said for said in caveats(cache.clips, cache.settings)
    )


def test_motion_is_in_pixels_of_the_map_whatever_part_of_the_picture_is_kept(tmp_path, write_video):
    frames, _, _ = filmed((4.0, 0.0), zoom=0.004)
    path = write_video(tmp_path / "video.mp4", frames, 25)
    whole, part = Geometry(320, 240), Geometry(320, 240, (40, 60, 160, 120))
    _, of_whole = one_clip(path, N, geometry=whole)
    _, of_part = one_clip(path, N, geometry=part)
    for one, other in zip(of_whole["camera"], of_part["camera"], strict=True):
        field = camera_field(one, 240, 320)  # half the picture's size
        inside = field[30:90, 20:100] * 4  # the part, and it is shown four times as large
        expected = cv2.resize(inside, (320, 240), interpolation=cv2.INTER_LINEAR)
        found = camera_field(other, 240, 320)
        np.testing.assert_allclose(found[8:-8, 8:-8], expected[8:-8, 8:-8], atol=0.02)


def test_pieces_of_a_sequence_give_what_the_whole_gives():
    frames, _, _ = filmed((5.0, 1.0))
    grey = np.stack([cv2.cvtColor(cv2.resize(f, (192, 144)), cv2.COLOR_RGB2GRAY) for f in frames])
    mapping = Mapping(SIZE, (80, 0, 480, 480), 224, 224)
    whole = Camera((144, 192), mapping, "cpu").motions(grey)
    in_pieces = Camera((144, 192), mapping, "cpu")
    pieces = [in_pieces.motions(part) for part in (grey[:1], grey[1:5], grey[5:])]
    assert [len(piece) for piece in pieces] == [0, 4, N - 5]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_head_that_fills_the_middle_is_left_out_where_its_face_is_known():
    frames, _, _ = filmed((0.0, 0.0), swing=30.0)
    grey = np.stack([cv2.cvtColor(cv2.resize(f, (192, 144)), cv2.COLOR_RGB2GRAY) for f in frames])
    mapping = Mapping(SIZE, (0, 0, *SIZE), *SIZE)
    across = 30 * np.sin(np.arange(N) / 2)
    faces = np.stack([[250 + x, 140, 140, 200] for x in across])
    camera = Camera((144, 192), mapping, "cpu").motions(grey, faces)
    assert np.abs(camera[:, :2]).max() < 0.15
