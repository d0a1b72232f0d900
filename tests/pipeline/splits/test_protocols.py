"""Every protocol keeps ties apart and does what its name says."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common.errors import SettingsError
from pipeline.corpus.labelled_video import FAKE, REAL, Video
from pipeline.corpus.leaks import find_leaks
from pipeline.splits.protocols import Splitting, split_videos

MANIPULATIONS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")


def split(videos, by="identity", **options):
    names = [str(video.path) for video in videos]
    return split_videos(videos, names, Splitting(by=by, **options))


def leaks(videos, splits):
    return find_leaks([video.group_keys for video in videos], splits)


def ffpp(pairs=40, official=True):
    """FaceForensics++ in small: 720/140/140 of its clips, in pairs, five fakes of each order."""
    videos = []
    for n in range(pairs):
        a, b = f"{2 * n:03}", f"{2 * n + 1:03}"
        share = n / pairs
        side = ("train" if share < 0.72 else "val" if share < 0.86 else "test") if official else ""
        for target, source in ((a, b), (b, a)):
            who = tuple(f"ffpp:{c}" for c in (target, source))
            path = Path(f"youtube/{target}.mp4")
            videos.append(Video(path, REAL, who[:1], "", "ffpp", original=who[0], official=side))
            videos += [
                Video(
                    Path(f"{m}/{target}_{source}.mp4"), FAKE, who, "", "ffpp", m, "", who[0], side
                )
                for m in MANIPULATIONS
            ]
    return videos


def celebs(people=10):
    """Celeb-DF in small: nearly everybody is in the official test set."""
    videos = []
    for n in range(people):
        who = f"celebdf:id{n}"
        for take in range(4):
            side = "test" if take == 0 else "train"
            path = Path(f"Celeb-real/id{n}_{take:04}.mp4")
            videos.append(
                Video(path, REAL, (who,), "", "celebdf", original=f"{who}_{take}", official=side)
            )
            other = f"celebdf:id{(n + take + 1) % people}"
            path = Path(f"Celeb-synthesis/id{n}_{other[8:]}_{take:04}.mp4")
            videos.append(
                Video(
                    path, FAKE, (who, other), "", "celebdf", "synthesis", "", f"{who}_{take}", side
                )
            )
    for n in range(20):
        side = "test" if n < 5 else "train"
        path = Path(f"YouTube-real/{n:05}.mp4")
        videos.append(Video(path, REAL, (f"celebdf:{n:05}",), "", "celebdf", official=side))
    return videos


MIXED = ("A", "B", "own:blend", "own:drift", "own:blend+drift")


@st.composite
def corpora(draw):
    n = draw(st.integers(4, 30))
    people = [f"p{i}" for i in range(draw(st.integers(1, 8)))]
    ties = st.lists(st.sampled_from(people), max_size=2, unique=True).map(tuple)
    sides = st.sampled_from(["", "train", "val", "test"])
    return [
        Video(
            Path(f"{i}.mp4"),
            draw(st.integers(0, 1)),
            draw(ties),
            draw(st.sampled_from(["", "", "", "train", "val", "test"])),
            draw(st.sampled_from(["one", "two"])),
            draw(st.sampled_from(MIXED)),
            original=draw(st.sampled_from(["", "o1", "o2"])),
            official=draw(sides),
        )
        for i in range(n)
    ]


PROTOCOLS = st.sampled_from(
    ["identity", "official", "leave-out:A", "leave-out:own:drift", "test-on:one", "fold:1/2"]
)
TRAIN_ON = st.sampled_from([None, "own", "real", "all"])


@settings(deadline=None, max_examples=60)
@given(corpora(), PROTOCOLS, st.sampled_from([0.0, 0.2]), TRAIN_ON, st.integers(0, 2))
def test_nothing_straddles_whatever_the_protocol(videos, by, val, train_on, seed):
    options = {"val": val, "train_on": train_on, "seed": seed}
    try:
        splits = split(videos, by, **options)
    except SettingsError:
        return
    assert leaks(videos, splits) == []
    assert splits == split(videos, by, **options)


@settings(deadline=None, max_examples=60)
@given(corpora(), st.sampled_from(["identity", "official", "fold:1/2"]), st.integers(0, 2))
def test_own_fakes_train_and_real_ones_test_whoever_is_in_them(videos, by, seed):
    videos = [dataclasses.replace(video, given="") for video in videos]
    try:
        splits = split(videos, by, val=0.0 if by == "fold:1/2" else 0.2, seed=seed)
    except SettingsError:
        return
    fakes = [(v.is_own_fake, s) for v, s in zip(videos, splits, strict=True) if v.label == FAKE]
    if {own for own, _ in fakes} == {True, False}:
        assert {s for own, s in fakes if own} <= {"train", "val", None}
        assert {s for own, s in fakes if not own} <= {"test", "holdout", None}


@settings(deadline=None, max_examples=20)
@given(corpora(), st.sampled_from(["identity", "official", "published", "fold:1/2"]), TRAIN_ON)
def test_a_corpus_of_own_fakes_alone_is_split_as_any_other(videos, by, train_on):
    def split_as(manipulation):
        of_one = [dataclasses.replace(v, manipulation=manipulation) for v in videos]
        try:
            return split(of_one, by, train_on=train_on)
        except SettingsError:
            return None

    assert split_as("own:blend") == split_as("Deepfakes")


@settings(deadline=None, max_examples=20)
@given(corpora())
def test_of_splits_that_contradict_test_wins_and_then_validation(videos):
    splits = split(videos)
    taken = set()
    for given_side in ("test", "val", "train"):
        here = [(v, s) for v, s in zip(videos, splits, strict=True) if v.given == given_side]
        for video, side in here:
            assert side == (None if taken & set(video.group_keys) else given_side)
        taken |= {tie for video, side in here if side for tie in video.group_keys}


def test_an_official_split_without_leaks_is_applied_as_it_is():
    videos = ffpp()
    assert split(videos, "official", holdout=0) == [video.official for video in videos]


def test_the_leaks_of_an_official_split_are_repaired_for_the_test_set():
    videos = ffpp()
    one = {
        "ffpp:000": "ffpp:000+079",
        "ffpp:079": "ffpp:000+079",
    }  # train and test, one YouTube video
    videos = [
        dataclasses.replace(v, identities=tuple(one.get(who, who) for who in v.identities))
        for v in videos
    ]
    published = split(videos, "published", holdout=0)
    assert published == [video.official for video in videos]
    assert [leak.key for leak in leaks(videos, published)] == ["ffpp:000+079"]
    repaired = split(videos, "official", holdout=0)
    dropped = [v for v, side in zip(videos, repaired, strict=True) if side is None]
    assert leaks(videos, repaired) == []
    assert len(dropped) == 11  # 000 itself, and the fakes of it and 001; 001 stays
    assert {v.official for v in dropped} == {"train"}


def test_celeb_dfs_official_split_leaves_hardly_anything_once_repaired():
    videos = celebs()
    repaired = split(videos, "official", holdout=0)
    kept = Counter((s, v.label) for v, s in zip(videos, repaired, strict=True) if s)
    assert kept["test", REAL] == 15
    assert kept["train", FAKE] == 0  # everybody is in the test set
    assert leaks(videos, repaired) == []
    assert len(leaks(videos, split(videos, "published"))) == 10


def test_videos_without_an_official_split_are_divided_beside_those_with_one():
    strangers = [Video(Path(f"s{n}.mp4"), n % 2, (f"s{n}",)) for n in range(40)]
    splits = split([*ffpp(), *strangers], "official", holdout=0)
    assert Counter(splits[-40:])["test"] > 0
    assert leaks([*ffpp(), *strangers], splits) == []


def test_no_official_split_is_an_error():
    with pytest.raises(SettingsError, match="no video here is in an official split"):
        split(ffpp(official=False), "official")


def test_a_manipulation_left_out_is_only_tested():
    videos = ffpp(official=False)
    splits = split(videos, "leave-out:Face2Face")
    sides = {
        (video.manipulation == "Face2Face", side)
        for video, side in zip(videos, splits, strict=True)
        if video.label == FAKE and side
    }
    assert sides == {(True, "test"), (True, "holdout"), (False, "train")}
    assert {s for v, s in zip(videos, splits, strict=True) if v.label == REAL} >= {"train", "test"}


def own_fakes(videos, kinds=("blend", "drift", "blend+drift")):
    """Real videos encoded again, and own fakes of them, as data.fakes lists them."""
    made = []
    for v in videos:
        if v.label == REAL:
            name = f"real/{v.path.stem}.mp4"
            again = dataclasses.replace(v, path=Path(name), original=f"videos:{name}", official="")
            made.append(again)
            made += [
                dataclasses.replace(
                    again,
                    path=Path(f"fake/{v.path.stem}-{n}.mp4"),
                    label=FAKE,
                    manipulation=f"own:{kind}",
                )
                for n, kind in enumerate(kinds)
            ]
    return made


def sides(videos, splits, chosen):
    return Counter(s for v, s in zip(videos, splits, strict=True) if chosen(v))


def is_encoded_again(video):
    return video.original.startswith("videos:")


@pytest.mark.parametrize("by", ["identity", "official", "fold:1/4"])
def test_real_videos_train_or_test_beside_the_fakes_that_are_encoded_like_them(by):
    videos = [*ffpp(), *own_fakes(ffpp())]
    splits = split(videos, by)
    assert leaks(videos, splits) == []
    again = sides(videos, splits, lambda v: v.label == REAL and is_encoded_again(v))
    other = sides(videos, splits, lambda v: v.label == REAL and not is_encoded_again(v))
    assert {"train"} <= set(again) <= {"train", "val", None}
    assert other["test"] > 0
    assert set(other) <= {"test", "holdout", None}
    assert sides(videos, splits, lambda v: v.is_own_fake)["train"] == 3 * again["train"]


def test_people_without_own_fakes_all_test_and_those_with_them_all_train():
    others = celebs()
    videos = [*own_fakes(ffpp(8, official=False)), *others]
    splits = split(videos)
    assert set(splits[: -len(others)]) == {"train"}
    assert set(splits[-len(others) :]) == {"test"}


def test_own_fakes_are_validated_on_and_real_ones_held_out():
    videos = [*ffpp(official=False), *own_fakes(ffpp(official=False))]
    splits = split(videos, val=0.2)
    assert leaks(videos, splits) == []
    assert sides(videos, splits, lambda v: True)["holdout"] == 2
    assert sides(videos, splits, lambda v: v.is_own_fake).keys() >= {"train", "val"}


@pytest.mark.parametrize(
    "train_on,own,real",
    [("own", {"train"}, set()), ("real", set(), {"train"}), ("all", {"train"}, {"train"})],
)
def test_it_can_be_chosen_which_fakes_train(train_on, own, real):
    videos = [*ffpp(), *own_fakes(ffpp())]
    splits = split(videos, train_on=train_on)
    assert leaks(videos, splits) == []
    of_own = sides(videos, splits, lambda v: v.is_own_fake)
    of_real = sides(videos, splits, lambda v: v.label == FAKE and not v.is_own_fake)
    assert set(of_own) - {None} == own
    assert set(of_real) - {None} == real | {"test", "holdout"}


def test_splits_that_a_csv_file_prescribes_win_over_the_rule():
    videos = [*ffpp(2, official=False), *own_fakes(ffpp(2, official=False))]
    videos = [
        dataclasses.replace(v, given="train" if v.identities[0] < "ffpp:002" else "test")
        for v in videos
    ]
    assert split(videos) == [video.given for video in videos]


@pytest.mark.parametrize("others", [[], ffpp(official=False)])
def test_an_own_kind_left_out_is_only_tested_also_where_it_is_mixed(others):
    videos = [*others, *own_fakes(ffpp(official=False))]
    splits = split(videos, "leave-out:own:drift")
    assert leaks(videos, splits) == []
    with_drift = sides(videos, splits, lambda v: "drift" in v.manipulation)
    without = sides(videos, splits, lambda v: v.manipulation == "own:blend")
    assert set(with_drift) - {None} == {"test", "holdout"}
    assert set(without) - {None} == {"train"}
    assert set(sides(videos, splits, lambda v: v.manipulation in MANIPULATIONS)) <= {None}


def test_one_source_tests_and_the_others_train():
    videos = [*ffpp(8), *celebs()]
    tied = Video(Path("x.mp4"), REAL, ("celebdf:id1", "ffpp:strange"), source="ffpp")
    splits = split([*videos, tied], "test-on:celebdf", val=0.2)
    for video, side in zip(videos, splits[:-1], strict=True):
        assert side == "test" if video.source == "celebdf" else side != "test"
    assert splits[-1] is None
    assert {"train", "val"} <= set(splits)


@pytest.mark.parametrize(
    "by,match",
    [
        ("leave-out:Deepfake", "there is .*Deepfakes"),
        ("leave-out:own:drift", "there is .*Deepfakes"),
        ("test-on:dfd", "there is ffpp"),
        ("fold:1/30", "allow .* folds"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_is(by, match):
    with pytest.raises(SettingsError, match=match):
        split(ffpp(5), by)


def test_folds_test_every_video_once():
    videos = ffpp(12)
    tested = Counter()
    for n in range(1, 5):
        splits = split(videos, f"fold:{n}/4")
        tested += Counter(v.path for v, s in zip(videos, splits, strict=True) if s == "test")
    assert tested == Counter(video.path for video in videos)


@pytest.mark.parametrize(
    "by", ["", "random", "fold", "fold:0/5", "fold:6/5", "fold:1", "leave-out", "official:x"]
)
def test_a_protocol_that_does_not_exist_is_refused_with_those_that_do(by):
    with pytest.raises(SettingsError, match="no split") as error:
        Splitting(by=by)
    assert "fold" in error.value.hint
