"""Leaks are found, each offending pair once."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus.leaks import find_leaks, offending_pairs

videos = st.lists(
    st.tuples(
        st.frozensets(st.sampled_from("abcd"), max_size=3),
        st.sampled_from(["train", "test", "val", None, ""]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(videos)
def test_every_pair_on_two_sides_that_shares_something_is_told_once(rows):
    ties, splits = [t for t, _ in rows], [s for _, s in rows]
    told = [
        (frozenset({pair.video_a, pair.video_b}), pair.group_keys)
        for pair in offending_pairs(ties, splits)
    ]
    expected = {
        (frozenset({f"row {i}", f"row {j}"}), tuple(sorted(ties[i] & ties[j])))
        for i, j in itertools.combinations(range(len(rows)), 2)
        if splits[i] and splits[j] and splits[i] != splits[j] and ties[i] & ties[j]
    }
    assert set(told) == expected
    assert len(told) == len(expected)
    leaks = find_leaks(ties, splits)
    assert {leak.key for leak in leaks} == {tie for _, shared in expected for tie in shared}
    assert sum(leak.n_pairs for leak in leaks) == sum(len(shared) for _, shared in expected)


def test_a_leak_and_a_pair_say_who_and_where():
    ties = [{"ann", "scene"}, {"ann", "bo", "scene"}, {"bo"}, {"ann"}, {"cy"}]
    splits = ["train", "test", "test", "train", None]
    names = ["a", "b", "c", "d", "e"]
    assert [str(leak) for leak in find_leaks(ties, splits, names)] == [
        "ann is in train (a) and in test (b), 2 such pairs",
        "scene is in train (a) and in test (b)",
    ]
    assert [str(pair) for pair in offending_pairs(ties, splits, names)] == [
        "train a and test b: ann, scene",
        "train d and test b: ann",
    ]


def test_three_sides_are_all_named():
    (leak,) = find_leaks([{"x"}] * 3, ["1", "2", "3"])
    assert str(leak) == "x is in 1 (row 0) and in 2 (row 1) and in 3 (row 2), 3 such pairs"
