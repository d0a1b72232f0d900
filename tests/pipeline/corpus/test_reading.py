"""Which videos there are, real or fake, and of whom: from folder names or a CSV file."""

import os
from pathlib import Path

import pytest

from pipeline.common.errors import NothingUsable, SettingsError
from pipeline.corpus.labelled_video import FAKE, REAL
from pipeline.corpus.reading import known_by_path, read_corpus


def touch(root, *names):
    """Empty files: what is in them is the probe's business."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def labels(root, videos):
    return {video.path.relative_to(root).as_posix(): video.label for video in videos}


@pytest.fixture
def csv(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "corpus.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


# --------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    "real,fake",
    [
        ("REAL", "FAKE"),
        ("DFD_REAL", "DFD_FAKE"),
        ("real", "fake"),
        ("Celeb-real", "fakes_2019"),
        ("original_sequences", "manipulated_sequences"),
        ("Originals", "Manipulated"),
    ],
)
def test_folder_names_say_what_is_real_and_what_is_fake(tmp_path, real, fake):
    touch(tmp_path, f"{real}/a.mp4", f"{fake}/b.mp4")
    expected = {f"{real}/a.mp4": REAL, f"{fake}/b.mp4": FAKE}
    assert labels(tmp_path, read_corpus([tmp_path / real, tmp_path / fake])) == expected
    assert labels(tmp_path, read_corpus([tmp_path])) == expected


def test_folders_are_searched_all_the_way_down(tmp_path):
    touch(
        tmp_path,
        "original_sequences/actors/c23/videos/a.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/b.mp4",
    )
    assert sorted(labels(tmp_path, read_corpus([tmp_path])).values()) == [REAL, FAKE]


def test_the_folder_nearest_to_the_file_decides(tmp_path):
    touch(tmp_path, "fakes/real/a.mp4", "fakes/b.mp4")
    assert labels(tmp_path, read_corpus([tmp_path / "fakes"])) == {
        "fakes/real/a.mp4": REAL,
        "fakes/b.mp4": FAKE,
    }


def test_names_of_files_do_not_label_them(tmp_path):
    touch(tmp_path, "REAL/fake_beard.mp4", "FAKE/real_deal.mp4")
    assert labels(tmp_path, read_corpus([tmp_path])) == {
        "REAL/fake_beard.mp4": REAL,
        "FAKE/real_deal.mp4": FAKE,
    }


def test_folders_that_cannot_be_told_are_listed(tmp_path):
    touch(tmp_path, "REAL/a.mp4", "FAKE/b.mp4", "clips/c.mp4", "real_and_fake/d.mp4")
    with pytest.raises(SettingsError) as error:
        read_corpus([tmp_path])
    assert str(tmp_path / "clips") in str(error.value)
    assert str(tmp_path / "real_and_fake") in str(error.value)
    assert str(tmp_path / "REAL") + "," not in str(error.value)
    assert "CSV" in error.value.hint


def test_a_folder_without_videos_need_not_be_told(tmp_path):
    touch(tmp_path, "REAL/a.mp4", "FAKE/b.mp4", "docs/notes.txt")
    assert set(labels(tmp_path, read_corpus([tmp_path]))) == {"REAL/a.mp4", "FAKE/b.mp4"}


def test_hidden_files_and_folders_are_not_looked_at(tmp_path):
    touch(tmp_path, "REAL/a.mp4", "REAL/.b.mp4", "REAL/.trash/c.mp4", "FAKE/d.mp4", ".DS_Store")
    assert set(labels(tmp_path, read_corpus([tmp_path]))) == {"REAL/a.mp4", "FAKE/d.mp4"}


def test_files_that_are_no_videos_are_listed_so_that_they_are_accounted_for(tmp_path):
    touch(tmp_path, "REAL/a.mp4", "REAL/notes.txt", "FAKE/d.WEBM")
    found = labels(tmp_path, read_corpus([tmp_path]))
    assert set(found) == {"REAL/a.mp4", "REAL/notes.txt", "FAKE/d.WEBM"}


def test_videos_come_sorted_by_path(tmp_path):
    touch(tmp_path, "REAL/b.mp4", "REAL/a.mp4", "FAKE/z.mp4", "FAKE/sub/c.mp4")
    paths = [video.path for video in read_corpus([tmp_path / "REAL", tmp_path / "FAKE"])]
    assert paths == sorted(paths)
    again = [video.path for video in read_corpus([tmp_path / "FAKE", tmp_path / "REAL"])]
    assert paths == again


def test_the_working_folder_may_be_the_root(tmp_path, monkeypatch):
    touch(tmp_path, "REAL/a.mp4", "FAKE/b.mp4")
    monkeypatch.chdir(tmp_path / "REAL")
    found = read_corpus([Path(), Path("../FAKE")])
    assert {(video.path.name, video.label) for video in found} == {("a.mp4", REAL), ("b.mp4", FAKE)}


def test_a_missing_root_is_an_error(tmp_path):
    touch(tmp_path, "REAL/a.mp4")
    with pytest.raises(SettingsError, match=r"FAKE does not exist"):
        read_corpus([tmp_path / "REAL", tmp_path / "FAKE"])


def test_a_video_as_root_is_an_error(tmp_path):
    touch(tmp_path, "REAL/a.mp4")
    with pytest.raises(SettingsError, match=r"a\.mp4 is neither a folder nor a CSV file"):
        read_corpus([tmp_path / "REAL" / "a.mp4"])


def test_real_videos_may_stand_alone_and_fakes_may_not(tmp_path):
    touch(tmp_path, "REAL/a.mp4", "FAKE/b.mp4")
    assert [video.label for video in read_corpus([tmp_path / "REAL"])] == [REAL]
    with pytest.raises(NothingUsable, match="no real video"):
        read_corpus([tmp_path / "FAKE"])


def test_a_text_file_does_not_stand_for_a_label(tmp_path):
    touch(tmp_path, "FAKE/a.mp4", "REAL/readme.txt")
    with pytest.raises(NothingUsable, match="no real video"):
        read_corpus([tmp_path])


def test_folders_without_any_video_are_nothing_usable(tmp_path):
    touch(tmp_path, "REAL/readme.txt", "FAKE/readme.txt")
    with pytest.raises(NothingUsable, match="no video in") as error:
        read_corpus([tmp_path])
    assert ".mp4" in error.value.hint


def test_a_file_under_two_roots_is_there_once(tmp_path):
    touch(tmp_path, "REAL/sub/a.mp4", "FAKE/b.mp4")
    found = read_corpus([tmp_path, tmp_path / "REAL", tmp_path / "REAL" / ".." / "FAKE"])
    assert len(found) == 2


def test_two_roots_that_disagree_about_a_file_are_an_error(tmp_path, csv):
    touch(tmp_path, "REAL/a.mp4", "FAKE/b.mp4")
    listing = csv("path,label\nREAL/a.mp4,fake\n")
    with pytest.raises(SettingsError, match=r"a\.mp4 is listed twice"):
        read_corpus([tmp_path / "REAL", tmp_path / "FAKE", listing])


# ------------------------------------------------------------------------------------ identities


@pytest.mark.parametrize(
    "name,expected",
    [
        ("01__exit_phone_room.mp4", ("dfd:01",)),
        ("28__walking_and_outside_surprised.mp4", ("dfd:28",)),
        ("24_23__outside_talking__YR5OVD4S.mp4", ("dfd:24", "dfd:23")),
        ("004.mp4", ()),
        ("1__a.mp4", ()),
        ("24_23__outside.mp4", ()),
    ],
)
def test_file_names_of_dfd_say_who_is_in_them(name, expected):
    path = Path("clips", name)
    known = known_by_path([path])
    assert (known[path].identities if known else ()) == expected


def test_who_is_in_a_video_does_not_depend_on_its_label(csv):
    rows = "path,label\n02_01__a__ABCDEFGH.mp4,real\n01__a.mp4,fake\n"  # as inverted lists have it
    fake, real = read_corpus([csv(rows)])
    assert (real.label, real.identities) == (REAL, ("dfd:02", "dfd:01"))
    assert (fake.label, fake.identities) == (FAKE, ("dfd:01",))


def test_identities_of_dfd_are_found_in_a_folder(tmp_path):
    touch(tmp_path, "DFD_REAL/07__hugging.mp4", "DFD_FAKE/07_12__hugging__ABCDEFGH.mp4")
    fake, real = read_corpus([tmp_path])
    assert (real.identities, fake.identities) == (("dfd:07",), ("dfd:07", "dfd:12"))


# ------------------------------------------------------------------------------------------- CSV


def test_a_csv_gives_label_identities_and_split(csv, tmp_path):
    path = csv(
        "path,label,identity,split\n"
        "a.mp4,real,ann,Test\n"
        "sub/b.mp4,FAKE, ann ; bo ;,test\n"
        "c.mp4,0,,\n"
        "d.mp4,1,,holdout\n"
    )
    a, b, c, d = sorted(read_corpus([path]), key=lambda video: video.path.name)
    assert (a.path, a.label, a.identities, a.given) == (tmp_path / "a.mp4", REAL, ("ann",), "test")
    assert (b.path, b.label) == (tmp_path / "sub" / "b.mp4", FAKE)
    assert (b.identities, b.given) == (("ann", "bo"), "test")
    assert (c.label, c.identities, c.given) == (REAL, (), "")
    assert (d.label, d.identities, d.given) == (FAKE, (), "holdout")


def test_splits_that_contradict_each_other_are_refused_before_any_work(csv):
    path = csv("path,label,identity,split\na.mp4,real,ann,train\nb.mp4,fake,bo;ann,test\n")
    with pytest.raises(SettingsError, match=r"ann is in train \(.*a.mp4\) and in test \(.*b.mp4\)"):
        read_corpus([path])


def test_a_linked_folder_of_videos_is_searched_and_one_that_leads_back_ends(tmp_path):
    for name in ("REAL/a.mp4", "elsewhere/b.mp4", "FAKE/c.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "REAL" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "REAL")
    found = read_corpus([tmp_path / "REAL", tmp_path / "FAKE"], follow_links=True)
    assert [video.path.name for video in found] == ["c.mp4", "a.mp4", "b.mp4"]
    found = read_corpus([tmp_path])
    assert [video.path.name for video in found if video.path.parent.name == "REAL"] == ["a.mp4"]


def test_links_that_lead_out_of_the_corpus_are_named_and_not_followed(tmp_path, csv):
    for name in ("REAL/a.mp4", "FAKE/c.mp4", "secret/b.mp4", "secret/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "REAL" / "b.mp4").symlink_to(tmp_path / "secret" / "b.mp4")
    (tmp_path / "REAL" / "more").symlink_to(tmp_path / "secret")
    (tmp_path / "REAL" / "again.mp4").symlink_to(tmp_path / "FAKE" / "c.mp4")  # not outside
    found = {v.path.name: v.leads_to for v in read_corpus([tmp_path / "REAL", tmp_path / "FAKE"])}
    secret = f"{tmp_path}/secret"
    nothing = {"a.mp4": "", "again.mp4": "", "c.mp4": ""}
    assert found == nothing | {"b.mp4": f"{secret}/b.mp4", "more": secret}

    listed = tmp_path / "REAL" / "list.csv"
    rows = ("a.mp4,0", "b.mp4,0", "more/d.mp4,1", "../secret/d.mp4,1", f"{tmp_path}/FAKE/c.mp4,1")
    listed.write_text("\n".join(["path,label", *rows]))
    found = {str(v.path): v.leads_to for v in read_corpus([listed])}
    real = tmp_path / "REAL"
    assert found == {
        f"{real}/a.mp4": "",
        f"{real}/b.mp4": f"{secret}/b.mp4",
        f"{real}/more/d.mp4": f"{secret}/d.mp4",
        f"{real}/../secret/d.mp4": "",  # named, not linked
        f"{tmp_path}/FAKE/c.mp4": "",
    }


def test_a_corpus_of_nothing_but_links_elsewhere_says_how_to_follow_them(tmp_path):
    for name in ("store/a.mp4", "store/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    for kind, name in (("REAL", "a.mp4"), ("FAKE", "b.mp4")):
        (tmp_path / "corpus" / kind).mkdir(parents=True)
        (tmp_path / "corpus" / kind / name).symlink_to(tmp_path / "store" / name)
    with pytest.raises(NothingUsable, match=r"not counting 2 links that lead out.*--follow-links"):
        read_corpus([tmp_path / "corpus"])
    assert len(read_corpus([tmp_path / "corpus"], follow_links=True)) == 2


def test_paths_are_relative_to_the_csv_wherever_the_command_runs(csv, tmp_path, monkeypatch):
    path = csv(f"path,label\na.mp4,real\n{tmp_path}/far/b.mp4,fake\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = {video.path for video in read_corpus([path])}
    assert found == {tmp_path / "a.mp4", tmp_path / "far" / "b.mp4"}


def test_columns_may_come_in_any_order_and_others_are_ignored(csv):
    a, b = read_corpus([csv("note,label,path\nx,real,a.mp4\ny,fake,b.mp4\n")])
    assert (a.path.name, a.label, b.path.name, b.label) == ("a.mp4", REAL, "b.mp4", FAKE)


def test_a_csv_saved_by_a_spreadsheet_is_read(csv):
    path = csv("path,label\r\ncafé.mp4,real\r\nb.mp4,fake\r\n", encoding="utf-8-sig")
    assert {video.path.name for video in read_corpus([path])} == {"café.mp4", "b.mp4"}


def test_names_of_dfd_give_identities_where_the_csv_has_none(csv):
    path = csv("path,label\n01__a.mp4,real\n02_01__a__ABCDEFGH.mp4,fake\n")
    assert [video.identities for video in read_corpus([path])] == [
        ("dfd:01",),
        ("dfd:02", "dfd:01"),
    ]


@pytest.mark.parametrize(
    "row,said",
    [
        ("b.mp4,maybe,,", "label 'maybe'"),
        ("b.mp4,fake,,evaluation", "split 'evaluation'"),
        (",fake,,", "needs a path and a label"),
        ("b.mp4", "needs a path and a label"),
    ],
)
def test_a_bad_row_is_named_by_its_line(csv, row, said):
    path = csv(f"path,label,identity,split\na.mp4,real,,\n{row}\n")
    with pytest.raises(SettingsError) as error:
        read_corpus([path])
    assert f"{path} line 3" in str(error.value)
    assert said in str(error.value)
    assert error.value.hint


def test_lines_are_counted_as_an_editor_does(csv):
    path = csv('path,label\n\na.mp4,real\n"b\nb.mp4",real\nc.mp4,maybe\n')
    with pytest.raises(SettingsError, match="line 6"):
        read_corpus([path])


def test_missing_columns_are_an_error_that_says_what_the_first_line_must_be(csv):
    with pytest.raises(SettingsError, match="line 2") as error:
        read_corpus([csv("file,class\na.mp4,real\nb.mp4,fake\n")])
    assert "path,label" in error.value.hint


@pytest.mark.parametrize("content", [b"", b"path,label\n", b"\x00\x01\xff" * 50], ids=repr)
def test_a_csv_with_nothing_in_it_is_an_error_for_the_user(tmp_path, content):
    path = tmp_path / "corpus.csv"
    path.write_bytes(content)
    with pytest.raises((NothingUsable, SettingsError)):
        read_corpus([path])


def test_a_csv_and_a_folder_make_one_corpus(csv, tmp_path):
    touch(tmp_path, "FAKE/b.mp4")
    found = read_corpus([csv("path,label\na.mp4,real\n"), tmp_path / "FAKE"])
    assert [video.label for video in sorted(found, key=lambda v: v.path.name)] == [REAL, FAKE]


def test_a_name_that_is_not_unicode_is_found(tmp_path):
    touch(tmp_path, "REAL/a.mp4", "FAKE/" + os.fsdecode(b"caf\xe9.mp4"))
    assert len(read_corpus([tmp_path])) == 2


def test_a_csv_may_say_what_a_fake_was_made_from_and_how(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "path,label,original,source,manipulation,compression\n"
        "a.mp4,real,,,,\nb.mp4,fake,a.mp4,studio,swap,c23\nc.mp4,fake,,,,\n"
    )
    a, b, c = read_corpus([path])
    assert a.original == b.original == "mine:a.mp4"
    assert (c.original, c.source) == ("", "mine")
    assert (b.source, b.manipulation, b.compression) == ("studio", "swap", "c23")
    assert set(a.group_keys) & set(b.group_keys)


def test_given_splits_that_part_a_fake_from_its_original_are_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("path,label,original,split\na.mp4,real,,train\nb.mp4,fake,a.mp4,test\n")
    with pytest.raises(SettingsError, match=r"mine:a\.mp4 is in train"):
        read_corpus([path])
