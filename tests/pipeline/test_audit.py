"""The auditor: who is on two sides of a split, in anybody's list of files or in a cache."""

import numpy as np
import pytest
from click.testing import CliRunner

from data.clips import made_up_clip, write_shard
from pipeline.audit import audit, main
from pipeline.cache import write_index
from pipeline.common.errors import NothingUsable, SettingsError


@pytest.fixture
def csv(tmp_path):
    def write(text):
        path = tmp_path / "split.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def found(path, **options):
    return {leak.key for leak in audit(path, **options).leaks()}


def test_a_clean_split_is_one_line_and_0(csv, call):
    path = csv("path,label,identity,split\na.mp4,real,ann,train\nb.mp4,fake,bo;cy,test\n")
    expected = "no identity is on two sides: 2 videos, 3 identities\n"
    assert call(main, path) == (0, expected, "")


def test_a_leak_is_4_with_a_pair_that_shows_it(csv, call):
    path = csv(
        "path,label,identity,split\na.mp4,0,ann,train\nb.mp4,1,ann;bo,test\nc.mp4,1,bo,test\n"
    )
    code, out, err = call(main, path)
    assert code == 4
    assert out.splitlines() == [
        "train a.mp4 and test b.mp4: ann",
        "ann is in train (a.mp4) and in test (b.mp4)",
    ]
    error, hint = err.splitlines()
    assert error.startswith("error: ") and "1 identities" in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    "one,other",
    [(605, 606), (639, 640), (755, 756), (837, 838), (875, 876), (954, 955), (982, 983)],
)
def test_the_seven_leaks_of_the_official_split_of_ffpp_are_found(csv, one, other):
    originals = "original_sequences/youtube/c23/videos"
    path = csv(f"path,split\n{originals}/{one}.mp4,train\n{originals}/{other}.mp4,test\n")
    (leak,) = audit(path).leaks()
    assert leak.key == f"ffpp:{one}+{other}"
    assert leak.sides == {
        "train": [f"{originals}/{one}.mp4"],
        "test": [f"{originals}/{other}.mp4"],
    }


@pytest.mark.parametrize(
    "train,test,identity",
    [
        ("DFD_REAL/01__a.mp4", "DFD_FAKE/02_01__a__ABCDEFGH.mp4", "dfd:01"),
        ("x/01__a.mp4", "y/01__b.mp4", "dfd:01"),
        ("FaceSwap/c23/videos/004_071.mp4", "Deepfakes/c40/videos/071_004.mp4", "ffpp:004"),
        ("Celeb-real/id1_0007.mp4", "Celeb-synthesis/id2_id1_0003.mp4", "celebdf:id1"),
        ("YouTube-real/00170.mp4", "YouTube-real/videos/00170.avi", "celebdf:00170"),
        ("FaceSwap/c23/videos/004_071", "FaceSwap/raw/faces/004_003.npy", "ffpp:004"),
        (r"D:\ff\FaceSwap\c23\videos\004_071.mp4", r"D:\ff\Deepfakes\raw\004_003.mp4", "ffpp:004"),
    ],
)
def test_who_is_in_a_file_is_recognised_from_its_path(csv, train, test, identity):
    assert identity in found(csv(f"path,split\n{train},train\n{test},test\n"))


def test_labels_are_not_needed_and_may_be_wrong(csv):
    rows = "DFD/02_01__a__ABCDEFGH.mp4,0,train\nDFD/01__a.mp4,1,test\n"
    assert found(csv("path,label,split\n" + rows)) == {"dfd:01"}


def test_frames_stand_for_the_video_that_their_folder_is_named_after(csv):
    frames = "original_sequences/youtube/c23/frames"
    path = csv(
        f"path,split\n{frames}/004/012.png,train\n{frames}/012/004.png,test\n{frames}/004/013.png,val\n"
    )
    assert found(path) == {"ffpp:004"}


def test_given_identities_count_before_names(csv):
    rows = "DFD/01__a.mp4,ann,train\nDFD/01__b.mp4,bo,test\n"
    assert found(csv("path,identity,split\n" + rows)) == set()


def test_a_file_on_two_sides_is_found_whoever_is_in_it(csv):
    rows = "a.mp4,train\na.mp4,test\nDFD/01__a.mp4,train\n"
    assert found(csv("path,split\n" + rows)) == {"file:a.mp4"}


def test_rows_without_a_split_are_on_no_side_and_words_for_sides_are_free(csv):
    rows = "DFD/01__a.mp4,Training \nDFD/01__b.mp4,\nDFD/01__c.mp4,training\nDFD/02__c.mp4,eval\n"
    result = audit(csv("path,split\n" + rows))
    assert (result.leaks(), len(result.videos), len(result.identities)) == ([], 3, 2)


def test_videos_of_whom_nobody_is_known_are_counted(csv):
    path = csv("path,split\nDFD/01__a.mp4,train\nx.mp4,test\n")
    done = CliRunner().invoke(main, [str(path)])
    assert "2 videos, 1 identities, 1 videos without a known identity" in done.output


def test_the_layout_can_be_said(csv):
    path = csv("path,split\n004.mp4,train\n004_071.mp4,test\n")
    with pytest.raises(NothingUsable, match="no identity is known in the 2 videos") as error:
        audit(path)
    assert "--layout" in error.value.hint
    assert found(path, layout="ffpp") == {"ffpp:004"}


def test_nothing_in_a_split_is_no_clean_split(csv):
    with pytest.raises(NothingUsable, match=r"no video .* in a split"):
        audit(csv("path,split\nDFD/01__a.mp4,\n"))


@pytest.mark.parametrize("text", ["", "path,split\n"])
def test_a_file_without_rows_is_no_split(csv, text):
    with pytest.raises(SettingsError, match="has no rows"):
        audit(csv(text))


@pytest.mark.parametrize("text", ["path,label\na.mp4,0\n", "file,split\na.mp4,train\n"])
def test_a_missing_column_is_an_error_with_the_line(csv, text):
    with pytest.raises(SettingsError, match="line 2: it needs a path and a split"):
        audit(csv(text))


def test_the_message_about_a_file_of_anything_is_short(csv):
    with pytest.raises(SettingsError) as error:
        audit(csv(",".join(f"{n}" * 50 for n in range(99)) + "\n1\n"))
    assert len(str(error.value)) < 400


def test_a_wrong_path_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="does not exist"):
        audit(tmp_path / "split.csv")
    with pytest.raises(SettingsError, match="is not a cache"):
        audit(tmp_path)


def test_a_cache_is_audited_by_its_own_splits(tmp_path):
    make_cache(tmp_path / "clean", [("ann", "train"), ("ann", "train"), ("bo", "test")])
    result = audit(tmp_path / "clean")
    assert (result.leaks(), len(result.videos), len(result.identities)) == ([], 3, 2)
    make_cache(tmp_path / "dropped", [("ann", "train"), ("ann", ""), ("bo", "test")])
    assert audit(tmp_path / "dropped").leaks() == []
    make_cache(tmp_path / "leaking", [("ann", "train"), ("bo", "train"), ("ann;bo", "holdout")])
    assert found(tmp_path / "leaking") == {"ann", "bo"}


def make_cache(folder, videos):
    """A cache of videos, each of some people and in a split."""
    x = np.zeros((2, 1), np.float16)
    data = {f"v{n}": {"flow": x} for n in range(len(videos))}
    shard = write_shard(folder, "shards/00000.h5", data, attrs={})
    clips = [
        made_up_clip(n, id=f"v{n}", video=f"v{n}", split=split, identities=(who,), n_frames=3)
        for n, (who, split) in enumerate(videos)
    ]
    write_index(folder, stage="extract", settings={}, attrs={}, clips=clips, shards=[shard])


def test_a_fake_beside_its_original_is_a_leak_though_nobody_else_is_shared(csv):
    path = csv(
        "path,identity,original,split\n"
        "real/a.mp4,ann,,train\nfake/b.mp4,bo,real/a.mp4,test\nfake/c.mp4,cy,,test\n"
    )
    (pair,) = audit(path).pairs()
    assert (pair.video_a, pair.video_b) == ("real/a.mp4", "fake/b.mp4")
    assert pair.group_keys == ("file:real/a.mp4",)
