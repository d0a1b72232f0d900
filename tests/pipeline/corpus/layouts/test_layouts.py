"""Known datasets are recognised, with labels, identities, originals and official splits."""

import importlib
from pathlib import Path

import pytest

from pipeline.common.errors import SettingsError
from pipeline.corpus import layouts
from pipeline.corpus.labelled_video import FAKE, REAL
from pipeline.corpus.reading import read_corpus
from tests.pipeline.conftest import rows, touch, write

# ------------------------------------------------------------------------------------------- DFD

DFD_REAL = "01__exit_phone_room.mp4"
DFD_FAKE = "24_23__outside_talking_still_laughing__YR5OVD4S.mp4"


@pytest.mark.parametrize(
    "real,fake,compression",
    [
        (
            "original_sequences/actors/c23/videos",
            "manipulated_sequences/DeepFakeDetection/c23/videos",
            "c23",
        ),
        (
            "original_sequences/actors/raw/videos",
            "manipulated_sequences/DeepFakeDetection/raw/videos",
            "raw",
        ),
        ("DFD_original sequences", "DFD_manipulated_sequences/DFD_manipulated_sequences", ""),
        ("original_sequences_actors_c23", "manipulated_sequences_DeepFakeDetection_c23", "c23"),
        ("DFD_REAL", "DFD_FAKE", ""),
        ("deepfakes/actors", "deepfakes/swapped", ""),
        ("dfd", "dfd", ""),
    ],
)
def test_dfd_in_all_its_copies(root, real, fake, compression):
    touch(root, f"{real}/{DFD_REAL}", f"{fake}/{DFD_FAKE}")
    expected = {
        DFD_REAL: (
            REAL,
            ("dfd:01",),
            "dfd",
            "",
            compression,
            "dfd:01__exit_phone_room",
            "",
        ),
        DFD_FAKE: (
            FAKE,
            ("dfd:24", "dfd:23"),
            "dfd",
            "DeepFakeDetection",
            compression,
            "dfd:24__outside_talking_still_laughing",
            "",
        ),
    }
    fields = (
        "label identities source manipulation compression original official".split()  # noqa: SIM905
    )
    assert rows(read_corpus([root]), *fields) == expected
    assert rows(read_corpus([root / real, root / fake]), *fields) == expected


def test_who_is_target_and_who_is_source_does_not_change_who_is_there(root):
    touch(root, f"REAL/{DFD_REAL}", "FAKE/02_03__a__ABCDEFGH.mp4", "FAKE/03_02__a__ABCDEFGH.mp4")
    one, other, _ = read_corpus([root])
    assert set(one.identities) == set(other.identities) == {"dfd:02", "dfd:03"}
    assert (one.original, other.original) == ("dfd:02__a", "dfd:03__a")


def test_two_digits_in_a_folder_that_says_nothing_are_no_dataset(root):
    touch(root, "REAL/a.mp4", "FAKE/b.mp4", "holidays/01__beach.mp4")
    with pytest.raises(SettingsError, match=r"cannot tell.*holidays"):
        read_corpus([root])


# --------------------------------------------------------------------------------------- Celeb-DF

# As in the official list: no header, and 1 is real.
CELEB_LIST = (
    "1 YouTube-real/00170.mp4\n1 Celeb-real/id1_0007.mp4\n0 Celeb-synthesis/id1_id2_0007.mp4\n"
)


@pytest.mark.parametrize("between", ["", "videos/"])
@pytest.mark.parametrize("name", ["Celeb-DF", "Celeb-DF-v2", "deepfakes/Celeb-DF", "all_real"])
def test_celeb_df_with_its_inverted_list(root, name, between):
    folder = root / name
    touch(
        folder,
        f"Celeb-real/{between}id1_0007.mp4",
        f"Celeb-real/{between}id1_0008.mp4",
        f"YouTube-real/{between}00170.mp4",
        f"YouTube-real/{between}00171.mp4",
        f"Celeb-synthesis/{between}id1_id2_0007.mp4",
        f"Celeb-synthesis/{between}id2_id1_0008.mp4",
    )
    (folder / "List_of_testing_videos.txt").write_text(CELEB_LIST)
    one, two = "celebdf:id1", "celebdf:id2"
    expected = {
        "id1_0007.mp4": (REAL, (one,), "celebdf:id1_0007", "test"),
        "id1_0008.mp4": (REAL, (one,), "celebdf:id1_0008", "train"),
        "00170.mp4": (REAL, ("celebdf:00170",), "celebdf:00170", "test"),
        "00171.mp4": (REAL, ("celebdf:00171",), "celebdf:00171", "train"),
        "id1_id2_0007.mp4": (FAKE, (one, two), "celebdf:id1_0007", "test"),
        "id2_id1_0008.mp4": (FAKE, (two, one), "celebdf:id2_0008", "train"),
    }
    fields = ("label", "identities", "original", "official")
    videos = [video for video in read_corpus([root]) if video.path.suffix == ".mp4"]
    assert rows(videos, *fields) == expected
    assert {video.given for video in videos} == {""}
    parts = [folder / part for part in ("Celeb-real", "YouTube-real", "Celeb-synthesis")]
    assert rows(read_corpus(parts), *fields) == expected


def test_celeb_df_without_its_list_has_no_official_split(root):
    touch(root, "Celeb-real/id1_0007.mp4", "Celeb-synthesis/id1_id2_0007.mp4")
    assert {video.official for video in read_corpus([root])} == {""}


# ------------------------------------------------------------------------------------------- DFDC


def test_a_train_part_of_dfdc_is_labelled_by_its_metadata(root):
    part = root / "deepfake-detection-challenge" / "dfdc_train_part_0"
    touch(part, "aaa.mp4", "bbb.mp4", "ccc.mp4")
    real = {"label": "REAL", "split": "train", "original": None}
    fake = {"label": "FAKE", "split": "train", "original": "aaa.mp4"}
    write(
        part / "metadata.json", {"aaa.mp4": real, "bbb.mp4": fake, "ccc.mp4": real, "d.mp4": fake}
    )
    videos = [video for video in read_corpus([root]) if video.path.suffix == ".mp4"]
    assert rows(videos, "label", "identities", "original", "official", "source") == {
        "aaa.mp4": (REAL, ("dfdc:aaa.mp4",), "dfdc:aaa.mp4", "train", "dfdc"),
        "bbb.mp4": (FAKE, ("dfdc:aaa.mp4",), "dfdc:aaa.mp4", "train", "dfdc"),
        "ccc.mp4": (REAL, ("dfdc:ccc.mp4",), "dfdc:ccc.mp4", "train", "dfdc"),
    }  # and d.mp4 is not there: parts may be incomplete


def test_a_video_that_the_metadata_does_not_name_is_an_error(root):
    part = root / "deepfakes" / "dfdc_train_part_0"
    touch(part, "aaa.mp4", "stranger.mp4")
    write(part / "metadata.json", {"aaa.mp4": {"label": "REAL", "split": "train"}})
    with pytest.raises(SettingsError, match=r"1 of 2 videos .* not in the list.*stranger\.mp4"):
        read_corpus([root])


@pytest.mark.parametrize(
    "name,content",
    [
        ("metadata.json", {"aalscayrfi.mp4": {"is_fake": 0}, "bbhtdfuqxq.mp4": {"is_fake": 1}}),
        (
            "videos/metadata.json",
            {"aalscayrfi.mp4": {"is_fake": 0}, "bbhtdfuqxq.mp4": {"is_fake": 1}},
        ),
        ("labels.csv", "filename,label\naalscayrfi.mp4,0\nbbhtdfuqxq.mp4,1\n"),
    ],
)
def test_the_test_set_of_dfdc_has_no_originals(root, name, content):
    touch(root, "test/videos/aalscayrfi.mp4", "test/videos/bbhtdfuqxq.mp4")
    write(root / "test" / name, content)
    assert rows(read_corpus([root]), "label", "identities", "original", "official") == {
        "aalscayrfi.mp4": (REAL, ("dfdc:aalscayrfi.mp4",), "dfdc:aalscayrfi.mp4", "test"),
        "bbhtdfuqxq.mp4": (FAKE, (), "", "test"),
    }


def test_labels_of_another_dataset_are_left_alone(root):
    touch(root, "REAL/a.mp4", "FAKE/b.mp4")
    write(root / "labels.csv", "filename,label\na.mp4,1\nb.mp4,0\n")
    found = rows(read_corpus([root]), "label", "source")
    assert (found["a.mp4"], found["b.mp4"]) == ((REAL, "data"), (FAKE, "data"))


def test_a_csv_may_list_what_the_metadata_does_not(root):
    write(root / "metadata.json", {"aaa.mp4": {"label": "FAKE", "original": "bbb.mp4"}})
    write(root / "list.csv", "path,label\naaa.mp4,fake\nstranger.mp4,real\n")
    assert rows(read_corpus([root / "list.csv"]), "label", "identities") == {
        "aaa.mp4": (FAKE, ("dfdc:bbb.mp4",)),
        "stranger.mp4": (REAL, ()),
    }


def test_the_preview_of_dfdc_names_its_actors(root):
    real, fake = "original_videos/643183/r.mp4", "method_A/643183/643183_A/f.mp4"
    touch(root, real, fake)
    listed = {
        real: {"label": "real", "set": "test", "target_id": None, "swapped_id": None},
        fake: {"label": "fake", "set": "train", "target_id": "643183", "swapped_id": 2040724},
    }
    write(root / "dataset.json", listed)
    assert rows(read_corpus([root]), "label", "identities", "official") == {
        "r.mp4": (REAL, ("dfdc:643183",), "test"),
        "f.mp4": (FAKE, ("dfdc:643183", "dfdc:2040724"), "train"),
    }


@pytest.mark.parametrize("content", ["{", "\x00", "[1"])
def test_a_damaged_list_is_an_error_with_its_name(root, content):
    touch(root, "a.mp4")
    write(root / "metadata.json", content)
    with pytest.raises(SettingsError, match=r"cannot read .*metadata\.json"):
        read_corpus([root])


@pytest.mark.parametrize("content", [[], {}, {"a.mp4": "real"}, {"b.mp4": {"width": 640}}])
def test_a_metadata_file_of_something_else_is_ignored(root, content):
    touch(root, "REAL/a.mp4", "FAKE/b.mp4")
    write(root / "metadata.json", content)
    assert {(video.label, video.identities) for video in read_corpus([root])} == {(0, ()), (1, ())}


# ------------------------------------------------------------------------------ all of them alike


def test_datasets_may_be_mixed_and_each_file_remembers_its_own(root):
    touch(root, "ff/youtube/c23/videos/001.mp4", "ff/Deepfakes/c23/videos/001_002.mp4")
    touch(root, f"DFD_REAL/{DFD_REAL}", f"DFD_FAKE/{DFD_FAKE}", "DFD_REAL/stray.mp4")
    touch(root, "celeb/Celeb-real/id1_0001.mp4", "mine/REAL/001.mp4", "mine/FAKE/x.mp4")
    write(root / "list.csv", "path,label\nlisted.mp4,real\nDeepfakes/003_001.mp4,fake\n")
    write(root / "dfdc/metadata.json", {"a.mp4": {"label": "REAL"}})
    touch(root, "dfdc/a.mp4")
    found = {v.path.relative_to(root).as_posix(): v for v in read_corpus([root, root / "list.csv"])}
    assert {name: video.source for name, video in found.items()} == {
        "ff/youtube/c23/videos/001.mp4": "ffpp",
        "ff/Deepfakes/c23/videos/001_002.mp4": "ffpp",
        f"DFD_REAL/{DFD_REAL}": "dfd",
        f"DFD_FAKE/{DFD_FAKE}": "dfd",
        "DFD_REAL/stray.mp4": "dfd",
        "celeb/Celeb-real/id1_0001.mp4": "celebdf",
        "mine/REAL/001.mp4": "data",
        "mine/FAKE/x.mp4": "data",
        "listed.mp4": "list",
        "Deepfakes/003_001.mp4": "ffpp",
        "dfdc/a.mp4": "dfdc",
    }
    assert found["mine/REAL/001.mp4"].identities == ()
    ids = [identity for video in found.values() for identity in video.identities]
    assert {"ffpp:001", "dfd:01", "celebdf:id1", "dfdc:a.mp4"} <= set(ids)


def test_a_pair_of_folders_is_one_source(root):
    touch(root, "REAL/a.mp4", "FAKE/b.mp4")
    assert {video.source for video in read_corpus([root / "REAL", root / "FAKE"])} == {"data"}


def test_names_may_have_spaces_accents_and_upper_case_extensions(root):
    touch(root, "Été à la mer/original sequences/actors/c23/01__ça va.MP4")
    touch(root, "Été à la mer/youtube/c23/videos/004.MOV", "日本/FaceSwap/c23/004_071.Mp4")
    assert rows(read_corpus([root]), "label", "identities") == {
        "01__ça va.MP4": (REAL, ("dfd:01",)),
        "004.MOV": (REAL, ("ffpp:004",)),
        "004_071.Mp4": (FAKE, ("ffpp:004", "ffpp:071")),
    }


def test_links_are_followed_and_read_by_their_own_names(root, tmp_path):
    store = tmp_path / "store"
    touch(store, "8f3a", "originals_of_somebody/004.mp4")
    (root / "Deepfakes").mkdir()
    (root / "Deepfakes" / "004_071.mp4").symlink_to(store / "8f3a")
    (root / "youtube").mkdir()
    (root / "youtube" / "c23").symlink_to(store / "originals_of_somebody")
    (root / "youtube" / "again").symlink_to(root)
    videos = read_corpus([root], follow_links=True)
    assert len(videos) == 2
    assert rows(videos, "label", "identities") == {
        "004.mp4": (REAL, ("ffpp:004",)),
        "004_071.mp4": (FAKE, ("ffpp:004", "ffpp:071")),
    }


def test_a_stray_file_is_labelled_by_its_folder_and_known_to_nobody(root):
    touch(root, "manipulated_sequences/FaceSwap/c23/videos/004_071.mp4")
    touch(root, "manipulated_sequences/FaceSwap/c23/videos/readme.txt")
    touch(root, "original_sequences/youtube/c23/videos/holiday.mp4")
    found = rows(read_corpus([root]), "label", "identities")
    assert found["readme.txt"] == (FAKE, ())
    assert found["holiday.mp4"] == (REAL, ())


def test_a_csv_overrules_labels_and_identities_but_not_what_else_is_known(root):
    write(root / "list.csv", "path,label,identity\nyoutube/004.mp4,fake,ann\nREAL/x.mp4,real,\n")
    known = rows(read_corpus([root / "list.csv"]), "label", "identities", "source")["004.mp4"]
    assert known == (FAKE, ("ann",), "ffpp")


@pytest.mark.parametrize("layout", ["dfd", "ffpp", "celebdf", "dfdc"])
def test_a_layout_that_is_not_there_is_an_error_that_says_what_was_looked_for(root, layout):
    touch(root, "REAL/a.mp4", "FAKE/b.mp4")
    with pytest.raises(SettingsError, match=f"no videos in the layout {layout}") as error:
        read_corpus([root], layout)
    assert "looked for" in error.value.hint
    assert {"dfd": "01__", "ffpp": "004_982", "celebdf": "id1_id2", "dfdc": "metadata.json"}[
        layout
    ] in error.value.hint


def test_folders_alone_may_decide(root):
    touch(root, f"REAL/{DFD_FAKE}", f"FAKE/{DFD_REAL}")
    found = rows(read_corpus([root], "folders"), "label", "identities")
    assert found == {DFD_FAKE: (REAL, ()), DFD_REAL: (FAKE, ())}


def test_the_example_of_a_new_layout_in_the_documentation_works(root, tmp_path, monkeypatch):
    text = (Path(__file__).parents[4] / "data" / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "studio.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    studio = importlib.import_module("studio")
    monkeypatch.setitem(layouts.LAYOUTS, "studio", studio)
    touch(root, "takes/ann-01.mp4", "swaps/ann-01_bo.mp4", "REAL/ann-01.mp4")
    assert rows(
        read_corpus([root / "takes", root / "swaps"]), "label", "identities", "original"
    ) == {
        "ann-01.mp4": (REAL, ("studio:ann",), "studio:ann-01"),
        "ann-01_bo.mp4": (FAKE, ("studio:ann", "studio:bo"), "studio:ann-01"),
    }
