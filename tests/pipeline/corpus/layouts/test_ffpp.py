"""FaceForensics++ is recognised in all its copies, whole or in part, and so are its people."""

import os
from pathlib import Path

import pytest

from pipeline.common.errors import NothingUsable, SettingsError
from pipeline.corpus.labelled_video import FAKE, REAL
from pipeline.corpus.layouts import ffpp
from pipeline.corpus.reading import read_corpus
from tests.pipeline.conftest import rows, touch, write

DFD_FAKE = "24_23__outside_talking_still_laughing__YR5OVD4S.mp4"


@pytest.fixture
def ff(root):
    for level in ("raw", "c23", "c40"):
        touch(root, f"original_sequences/youtube/{level}/videos/004.mp4")
        for name in ffpp.MANIPULATIONS:
            touch(root, f"manipulated_sequences/{name}/{level}/videos/004_071.mp4")
    return root


def test_ffpp_has_five_manipulations_at_three_levels(ff):
    found = {
        (v.label, v.manipulation, v.compression, v.identities, v.original, v.source)
        for v in read_corpus([ff])
    }
    levels = ("raw", "c23", "c40")
    real = {(REAL, "", level, ("ffpp:004",), "ffpp:004", "ffpp") for level in levels}
    both = ("ffpp:004", "ffpp:071")
    fake = {
        (FAKE, name, level, both, "ffpp:004", "ffpp")
        for name in ffpp.MANIPULATIONS
        for level in levels
    }
    assert found == real | fake


@pytest.mark.parametrize(
    "real,fake",
    [
        ("original_sequences", "manipulated_sequences"),
        ("original_sequences/youtube", "manipulated_sequences/Face2Face"),
        ("original_sequences/youtube/c40", "manipulated_sequences/Face2Face/c40"),
        ("original_sequences/youtube/c40/videos", "manipulated_sequences/Face2Face/c40/videos"),
    ],
)
def test_ffpp_can_be_given_one_tree_at_a_time(ff, real, fake):
    found = read_corpus([ff / real, ff / fake])
    assert {(v.label, v.identities) for v in found} == {
        (REAL, ("ffpp:004",)),
        (FAKE, ("ffpp:004", "ffpp:071")),
    }
    assert {video.label for video in read_corpus([ff / real])} == {REAL}
    with pytest.raises(NothingUsable, match="no real video"):
        read_corpus([ff / fake])


def test_ffpp_without_its_upper_folders(root):
    copy = "FaceForensics++_C23"
    touch(root, f"{copy}/original/004.mp4", f"{copy}/FaceShifter/004_071.mp4")
    touch(root, f"{copy}/DeepFakeDetection/{DFD_FAKE}")
    found = rows(read_corpus([root]), "label", "identities", "compression", "source")
    assert found == {
        "004.mp4": (REAL, ("ffpp:004",), "c23", "ffpp"),
        "004_071.mp4": (FAKE, ("ffpp:004", "ffpp:071"), "c23", "ffpp"),
        DFD_FAKE: (FAKE, ("dfd:24", "dfd:23"), "c23", "dfd"),
    }


def test_a_copy_of_ffpp_under_any_name_is_told_by_the_folders_beside(root):
    touch(root, "original/004.mp4", "Deepfakes/004_071.mp4")
    assert rows(read_corpus([root]), "identities")["004.mp4"] == (("ffpp:004",),)


@pytest.mark.parametrize(
    "one,other",
    [(605, 606), (639, 640), (755, 756), (837, 838), (875, 876), (954, 955), (982, 983)],
)
def test_clips_of_one_youtube_video_are_one_identity(root, one, other):
    touch(root, f"youtube/c23/videos/{one}.mp4", f"youtube/c23/videos/{other}.mp4")
    touch(root, f"FaceSwap/c23/videos/{other}_003.mp4", f"FaceSwap/c23/videos/003_{one}.mp4")
    found = rows(read_corpus([root]), "identities")
    (real,) = found[f"{one}.mp4"]
    assert found[f"{other}.mp4"] == (real,)
    assert found[f"{other}_003.mp4"] == ((*real, "ffpp:003"),)
    assert found[f"003_{one}.mp4"] == (("ffpp:003", *real),)


def test_the_official_split_of_ffpp_is_remembered_and_not_applied(ff):
    write(ff / "splits/train.json", [["000", "003"]])
    write(ff / "splits/val.json", [["071", "004"]])
    videos = read_corpus([ff])
    assert {(video.official, video.given) for video in videos} == {("val", "")}


def test_among_the_fakes_of_ffpp_no_name_is_real(root):
    touch(root, "Deepfakes/c0/videos/004.mp4", "youtube/c0/videos/004.mp4")
    found = {(v.label, v.identities, v.compression) for v in read_corpus([root])}
    assert found == {(FAKE, (), ""), (REAL, ("ffpp:004",), "raw")}
    touch(root, "Face2Face/c23/videos/004.mp4")
    with pytest.raises(SettingsError, match=r"cannot tell.*Face2Face"):
        read_corpus([root])


@pytest.mark.parametrize("name", ["FaceForensics", "FF++", "my_ffpp_c23"])
def test_a_folder_named_after_ffpp_is_enough(root, name):
    touch(root, f"{name}/REAL/004.mp4", f"{name}/FAKE/004_071.mp4")
    found = rows(read_corpus([root]), "label", "identities")
    assert found == {
        "004.mp4": (REAL, ("ffpp:004",)),
        "004_071.mp4": (FAKE, ("ffpp:004", "ffpp:071")),
    }


def test_three_digits_alone_are_no_dataset(root):
    touch(root, "REAL/004.mp4", "FAKE/004_071.mp4", "FAKE/youtube/005.mp4")
    assert {video.identities for video in read_corpus([root])} == {()}
    assert rows(read_corpus([root]), "label")["005.mp4"] == (FAKE,)


def test_the_layout_can_be_said_where_folders_do_not_tell(root):
    touch(root, "REAL/004.mp4", "FAKE/004_071.mp4")
    found = rows(read_corpus([root], "ffpp"), "label", "identities")
    assert found == {
        "004.mp4": (REAL, ("ffpp:004",)),
        "004_071.mp4": (FAKE, ("ffpp:004", "ffpp:071")),
    }


def test_the_working_folder_may_be_part_of_a_dataset(ff, monkeypatch):
    monkeypatch.chdir(ff / "manipulated_sequences" / "Face2Face" / "c40")
    originals = Path(os.pardir, os.pardir, os.pardir, "original_sequences")
    found = {(v.label, v.manipulation, v.compression) for v in read_corpus([Path(), originals])}
    assert (FAKE, "Face2Face", "c40") in found
