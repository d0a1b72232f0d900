"""From videos to a cache: flow from the stored frames, ids, splits, every file accounted for."""

import csv
import re
from collections import Counter
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from pipeline import farneback
from pipeline.cache import Cache
from pipeline.common.csv_files import read_csv
from pipeline.common.errors import NothingUsable
from pipeline.corpus.labelled_video import Video
from pipeline.corpus.leaks import find_leaks
from pipeline.corpus.reading import read_corpus
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings
from tests.pipeline.conftest import by_file, reasons, small


@pytest.fixture
def root(tmp_path):
    return tmp_path / "videos"


def all_accounted_for(cache, root):
    files = {str(path) for path in root.rglob("*") if path.is_file()}
    used = set(cache.names().values())
    rejected = {row["path"] for row in cache.rejected()}
    return used | rejected == files and not used & rejected


# ------------------------------------------------------------------------------------------ flow


def test_the_flow_maps_are_what_opencv_gives_for_the_stored_frames(cache):
    """Anybody can recompute them with h5py and cv2 alone, to the last grey level but a few."""
    with h5py.File(cache.folder / "index.h5") as index:
        ids = index["clips"]["id"].astype(str)
        assert len(ids) == 8
        for clip in ids:
            data = index["data"][clip]
            frames, flow, range_ = (data[key][:] for key in ("frames", "flow", "flow_range"))
            grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
            for n in range(len(frames) - 1):
                field = cv2.calcOpticalFlowFarneback(
                    grey[n], grey[n + 1], None, 0.5, 3, 15, 3, 5, 1.2, 0
                )
                magnitude, _ = cv2.cartToPolar(field[..., 0], field[..., 1])
                scaled = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
                differs = np.abs(flow[n].astype(int) - scaled)
                assert differs.max() <= 1
                assert (differs > 0).mean() < 1e-3
                expected = (magnitude.min(), magnitude.max())
                np.testing.assert_allclose(range_[n], expected, rtol=1e-3, atol=1e-5)
            assert flow.std() > 10 and range_[:, 1].mean() > 0.5  # something moves


def test_a_cache_holds_stacks_of_one_length_in_the_documented_form(cache, corpus):
    opened = Cache(cache.folder, "extract")
    assert opened.attrs["frames"] == corpus.T
    for clip in opened.clips:
        assert clip.n_frames == corpus.T
        shapes = {key: (shape, dtype) for key, (shape, dtype, _) in opened.datasets(clip).items()}
        assert shapes == {
            "frames": ((corpus.T, 72, 96, 3), np.uint8),
            "flow": ((corpus.T - 1, 72, 96), np.uint8),
            "flow_range": ((corpus.T - 1, 2), np.float32),
            "timestamps": ((corpus.T,), np.float64),
            "camera": ((corpus.T - 1, 6), np.float32),
            "crop": ((4,), np.int64),
            "overview": ((72, 96), np.uint8),
            "thumbnails": ((4, 32, 32), np.uint8),
        }
        times = opened.read(clip, "timestamps")
        np.testing.assert_allclose(np.diff(times), 1 / clip.fps, atol=1e-3)


def test_the_stored_frames_are_the_first_of_the_video(cache, moving_texture):
    opened = Cache(cache.folder)
    frames = opened.read(by_file(opened)["01__talking.mp4"], "frames").astype(int)
    assert np.abs(frames - moving_texture(20, 96, 72, seed=0)).mean() < 6  # a lossy codec


def test_what_is_known_of_a_video_is_right(cache, corpus):
    opened = Cache(cache.folder)
    for path in corpus.sound:
        clip = by_file(opened)[path.name]
        fake = path.parent == corpus.fake
        assert clip.label == fake
        assert clip.fps == pytest.approx(30 if fake else 25)
        assert (clip.width, clip.height, clip.start) == (96, 72, 0)
        assert clip.n_bytes == path.stat().st_size
        assert clip.bit_rate == pytest.approx(8 * clip.n_bytes / clip.duration)
        assert clip.identities == tuple(f"dfd:{n}" for n in re.findall(r"\d\d(?=_)", path.name))
        assert (clip.source, clip.compression) == ("dfd", "")
        assert clip.manipulation == ("DeepFakeDetection" if fake else "")


def test_every_file_is_in_the_cache_or_rejected_with_the_reason(cache, corpus):
    opened = Cache(cache.folder)
    assert all_accounted_for(opened, corpus.folder)
    found = {Path(row["path"]): row["reason"] for row in opened.rejected()}
    assert found == corpus.rejected
    assert all(row["detail"] for row in opened.rejected())


def test_the_files_of_a_cache_are_those_documented(cache):
    names = {path.name for path in cache.folder.iterdir()}
    beside = {"names.csv", "rejected.csv", "datacard.md", "SHA256SUMS", "timing.csv"}
    assert names == {"index.h5", "shards"} | beside
    shards = sorted(path.name for path in (cache.folder / "shards").iterdir())
    assert all(re.fullmatch(r"\d{5}\.h5", name) for name in shards)


# ------------------------------------------------------------------------------------------- ids


def test_ids_say_nothing_of_label_actor_or_file(cache, corpus):
    opened = Cache(cache.folder)
    for clip in opened.clips:
        assert re.fullmatch(r"[0-9a-f]{16}", clip.id)
    index = (cache.folder / "index.h5").read_bytes()
    assert b".mp4" not in index  # no file names; who and what is shown is stated, for the splits
    assert str(corpus.folder).encode() not in index


def test_ids_are_of_the_bytes_and_their_order_is_of_the_seed(root, make_corpus, extract_from):
    files = make_corpus(root, (20, 21, 22), (20, 21, 22))
    before = extract_from(root)
    files["real0"].rename(root / "REAL" / "zebra.mp4")
    after = extract_from(root, "again")
    assert [clip.id for clip in before.clips] == [clip.id for clip in after.clips]
    other = extract_from(root, "other", seed=1)
    assert {clip.id for clip in other.clips} == {clip.id for clip in before.clips}
    assert [clip.id for clip in other.clips] != [clip.id for clip in before.clips]


def test_real_and_fake_clips_are_mixed(cache):
    labels = [clip.label for clip in Cache(cache.folder).clips]
    assert labels not in (sorted(labels), sorted(labels, reverse=True))


def test_the_number_of_processes_does_not_show(cache, corpus, tmp_path, contents, in_process):
    """The shared cache was made by two; this one is made by none."""
    videos = read_corpus(corpus.options[:2])
    extract(
        videos,
        tmp_path / "alone",
        Settings(width=96, height=72, flow_backend=farneback.resolve("auto")),
        in_process,
    )
    assert contents(tmp_path / "alone") == contents(cache.folder)


# ---------------------------------------------------------------------------------------- splits


def test_no_identity_is_in_two_splits(cache):
    clips = Cache(cache.folder).clips
    found = find_leaks(
        [clip.group_keys for clip in clips],
        [clip.split for clip in clips],
        [clip.id for clip in clips],
    )
    assert found == []
    assert {"train", "test"} <= {clip.split for clip in clips}
    for split in ("train", "test"):
        assert {clip.label for clip in clips if clip.split == split} == {0, 1}


def test_splits_that_a_csv_gives_are_kept(root, make_corpus, tmp_path, in_process):
    files = make_corpus(root, (20, 20, 20, 20), (20, 20, 20, 20))
    given = {name: ("test", "holdout", "train", "train")[int(name[-1])] for name in files}
    with (root / "corpus.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "identity", "split"])
        for name, path in files.items():
            rows.writerow([path.relative_to(root), name[:4], f"{name} itself", given[name]])
    cache = extract(read_corpus([root / "corpus.csv"]), tmp_path / "cache", small(), in_process)
    assert {Path(name).stem: clip.split for name, clip in by_file(cache).items()} == given


# ------------------------------------------------------------------------------------- bad files


def test_broken_files_in_the_middle_of_a_batch_do_not_stop_it(root, make_corpus, extract_from, cut):
    files = make_corpus(root, (20, 21, 22), (20, 21, 22))
    cut(files["real1"], 0.5)
    files["fake1"].write_bytes(np.random.default_rng(1).bytes(9000))
    (root / "REAL" / "empty.mp4").touch()
    (root / "REAL" / "nowhere.mp4").symlink_to(root / "gone.mp4")
    cache = extract_from(root)
    assert set(by_file(cache)) == {"real0.mp4", "real2.mp4", "fake0.mp4", "fake2.mp4"}
    found = reasons(cache)
    assert found.pop("nowhere.mp4") == "unreadable"
    assert set(found.values()) == {"not a video"}


def test_a_csv_row_that_no_file_system_could_hold_is_rejected_alone(
    root, make_corpus, tmp_path, in_process
):
    files = make_corpus(root, (20,), (20,))
    rows = [f"{path},{name[:4]}" for name, path in files.items()]
    rows += [f"gone.mp4,real\n{'x' * 300}.mp4,fake"]
    (root / "corpus.csv").write_text("\n".join(["path,label", *rows]))
    cache = extract(read_corpus([root / "corpus.csv"]), tmp_path / "cache", small(), in_process)
    assert set(reasons(cache).values()) == {"unreadable"}
    assert len(cache.rejected()) == 2


def test_names_that_are_not_unicode_or_have_line_breaks_are_kept(root, make_corpus, extract_from):
    files = make_corpus(root, (20, 21), (20, 21))
    odd = {'a,b\n"c".mp4', b"caf\xe9.mp4".decode("utf-8", "surrogateescape")}
    for path, name in zip((files["real0"], files["fake0"]), sorted(odd), strict=True):
        path.rename(path.with_name(name))
    assert odd <= set(by_file(extract_from(root)))


def test_one_of_two_files_with_the_same_bytes_is_kept(root, make_corpus, extract_from):
    files = make_corpus(root, (20, 21), (20, 21))
    (root / "REAL" / "z_copy.mp4").write_bytes(files["real0"].read_bytes())
    cache = extract_from(root)
    (row,) = cache.rejected()
    assert (Path(row["path"]).name, row["reason"]) == ("z_copy.mp4", "duplicate")
    assert str(files["real0"]) in row["detail"]
    assert len(cache.clips) == 4


def test_the_same_bytes_as_real_and_as_fake_are_both_rejected(root, make_corpus, extract_from):
    files = make_corpus(root, (20, 21), (20, 21))
    for name in ("a.mp4", "b.mp4"):
        (root / "FAKE" / name).write_bytes(files["real0"].read_bytes())
    cache = extract_from(root)
    rejected = {Path(row["path"]).name for row in cache.rejected()}
    assert rejected == {"real0.mp4", "a.mp4", "b.mp4"}
    assert set(reasons(cache).values()) == {"duplicate"}
    assert any("other label" in row["detail"] for row in cache.rejected())


@pytest.mark.parametrize("frames", [None, 20], ids=["own length", "given length"])
def test_where_nothing_is_usable_there_is_no_cache_but_a_list_of_reasons(
    root, make_corpus, extract_from, tmp_path, cut, frames
):
    for path in make_corpus(root, (20, 20), (20, 20)).values():
        cut(path, 0.5)
    with pytest.raises(NothingUsable, match="4 not a video"):
        extract_from(root, frames=frames)
    assert not (tmp_path / "cache" / "index.h5").exists()
    rejected = read_csv(tmp_path / "cache" / "rejected.csv")
    assert Counter(row["reason"] for row in rejected) == {"not a video": 4}


def test_one_label_left_is_not_enough(root, make_corpus, extract_from, tmp_path, cut):
    files = make_corpus(root, (20, 20), (20, 20))
    cut(files["fake0"], 0.5)
    cut(files["fake1"], 0.5)
    with pytest.raises(NothingUsable, match="2 of 4 files are usable, real and fake"):
        extract_from(root)
    assert not (tmp_path / "cache" / "index.h5").exists()
    assert len(read_csv(tmp_path / "cache" / "rejected.csv")) == 2


def test_a_video_may_stand_alone_without_any_identity(root, make_corpus, tmp_path, in_process):
    files = make_corpus(root, (20,), (20,))
    videos = [Video(files["real0"], 0), Video(files["fake0"], 1)]
    cache = extract(videos, tmp_path / "cache", small(), in_process)
    assert all(clip.identities == () for clip in cache.clips)


def test_copies_and_the_same_footage_stay_on_one_side(
    root, moving_texture, write_video, extract_from, tmp_path
):
    """Also where a CSV puts them on two: what shows only when videos are decoded is mended."""
    folder = root / "videos"
    folder.mkdir(parents=True)
    rows = ["path,label,identity,split"]
    for n in range(8):
        frames = moving_texture(40, 64, 48, seed=n)
        write_video(folder / f"{n}.mp4", frames, 25)
        rows.append(f"videos/{n}.mp4,{n % 2},p{n},{'test' if n < 2 else 'train'}")
    again = moving_texture(40, 64, 48, seed=0)
    write_video(folder / "again.mp4", again, 25, options={"crf": "35"})
    rows.append("videos/again.mp4,1,stranger,train")
    (folder / "copy.mp4").write_bytes((folder / "2.mp4").read_bytes())
    rows.append("videos/copy.mp4,0,alias,train")
    (root / "list.csv").write_text("\n".join(rows))
    cache = extract_from(root / "list.csv")
    clips = {Path(cache.names()[clip.video]).stem: clip for clip in cache.clips}
    assert clips["0"].footage == clips["again"].footage != ""
    assert {clip.footage for name, clip in clips.items() if name not in ("0", "again")} == {""}
    assert (clips["0"].split, clips["again"].split) == ("test", "")
    assert "copy" not in clips
    assert clips["2"].identities == ("p2", "alias")
    card = (cache.folder / "datacard.md").read_text()
    assert "2 videos show the same footage as another one" in card
