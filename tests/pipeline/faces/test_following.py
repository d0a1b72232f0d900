"""Whose face a clip is about, and the one box that it gets."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import Rejected
from pipeline.faces.following import Look, choose
from pipeline.faces.policy import FaceCrop, steady_box
from pipeline.video.resize import Geometry

TIMES = [0.0, 0.5, 1.0, 1.5]
NOBODY = np.zeros((0, 5))


def faces(*boxes):
    return np.array([[x, y, size, size, score] for x, y, size, score in boxes], float)


def looks(found, times=TIMES):
    return [Look(time, some) for time, some in zip(times, found, strict=True)]


def test_the_largest_face_is_followed_through_the_clip():
    found = [faces((300, 90, 40, 0.95), (100 + 9 * n, 80, 90, 0.9)) for n in range(4)]
    followed = choose(looks(found), FaceCrop())
    np.testing.assert_array_equal(followed.boxes[:, 0], [100, 109, 118, 127])
    assert followed.share == 1 and followed.n_faces == 2


def test_a_passing_false_alarm_does_not_win_over_a_face_that_stays():
    found = [faces((100, 80, 90, 0.9)) for _ in range(4)]
    found[2] = faces((100, 80, 90, 0.9), (400, 20, 200, 0.7))
    np.testing.assert_array_equal(choose(looks(found), FaceCrop()).boxes[:, 0], [100] * 4)


def test_where_a_face_is_missed_it_is_between_where_it_was_seen():
    found = [faces((100, 80, 90, 0.9)), NOBODY, faces((140, 80, 90, 0.9)), NOBODY]
    followed = choose(looks(found), FaceCrop())
    assert followed.share == 0.5
    np.testing.assert_allclose(
        followed.at(np.array([0.5, 1.0, 9.0]))[:, 0], [120, 140, 140], atol=1e-4
    )


def test_two_who_change_places_are_not_mixed_up():
    left, right = np.linspace(100, 200, 11), np.linspace(400, 300, 11)
    found = [faces((a, 80, 60, 0.9), (b, 80, 62, 0.9))[:: 1 if n % 2 else -1]
             for n, (a, b) in enumerate(zip(left, right, strict=True))]  # fmt: skip
    followed = choose(looks(found, range(11)), FaceCrop())
    np.testing.assert_allclose(followed.boxes[:, 0], right, atol=1e-3)


def test_no_face_is_a_reason_or_the_whole_picture():
    with pytest.raises(Rejected) as rejected:
        choose(looks([NOBODY] * 4), FaceCrop())
    assert rejected.value.reason == "no face"
    nobody = choose(looks([NOBODY] * 4), FaceCrop(no_face="whole"))
    assert not nobody.seen.any() and nobody.share == 0


def test_several_faces_are_a_reason_only_if_asked_for_and_if_they_stay():
    both = [faces((100, 80, 90, 0.9), (300, 80, 70, 0.9)) for _ in range(4)]
    assert len(choose(looks(both), FaceCrop()).boxes) == 4
    strict = FaceCrop(several="reject")
    with pytest.raises(Rejected) as rejected:
        choose(looks(both), strict)
    assert (rejected.value.reason, rejected.value.detail) == ("several faces", "2 that stay")
    far_off = [faces((100, 80, 90, 0.9), (300, 80, 30, 0.9)) for _ in range(4)]
    assert len(choose(looks(far_off), strict).boxes) == 4
    once = [*[faces((100, 80, 90, 0.9))] * 3, both[0]]
    assert len(choose(looks(once), strict).boxes) == 4


def test_a_face_that_leaves_is_a_reason_from_a_share_on():
    found = [faces((100, 80, 90, 0.9)), NOBODY, NOBODY, NOBODY]
    with pytest.raises(Rejected) as rejected:
        choose(looks(found), FaceCrop())
    assert rejected.value.reason == "face leaves"
    assert rejected.value.detail == "found at 1 of 4 moments, 50% are needed"
    assert len(choose(looks(found), FaceCrop(share=0.25)).boxes) == 1


# ------------------------------------------------------------------------------------------ box


def test_the_box_holds_all_places_with_the_margin():
    places = np.array([[100.0, 100, 50, 60], [130, 90, 50, 60]])
    assert steady_box(places, 640, 480, margin=0.5) == (70, 55, 140, 140)  # 80x70, and 30 around
    assert steady_box(places, 640, 480, margin=0.0) == (100, 85, 80, 80)


def test_a_box_at_the_edge_moves_inside_and_keeps_its_size():
    places = np.array([[0.0, 0, 50, 50]])
    assert steady_box(places, 640, 480, margin=0.5) == (0, 0, 100, 100)


@given(
    x=st.floats(-50, 600),
    y=st.floats(-50, 440),
    w=st.floats(4, 400),
    h=st.floats(4, 400),
    margin=st.floats(0, 3),
    aspect=st.sampled_from([Fraction(1), Fraction(7, 4), Fraction(1, 3)]),
    pixel_aspect=st.sampled_from([Fraction(1), Fraction(16, 11), Fraction(1, 2)]),
)
def test_a_box_lies_in_the_picture_and_has_the_aspect_of_the_result(
    x, y, w, h, margin, aspect, pixel_aspect
):
    left, top, width, height = steady_box(
        np.array([[x, y, w, h]]), 640, 480, margin=margin, aspect=aspect, pixel_aspect=pixel_aspect
    )
    assert left >= 0 and top >= 0 and left + width <= 640 and top + height <= 480
    shape = Geometry(60 * aspect.numerator, 60 * aspect.denominator, (left, top, width, height))
    assert shape.box(640, 480, pixel_aspect) == (left, top, width, height)  # nothing is cut off
    assert abs(width - height * aspect / pixel_aspect) <= 0.5 + max(1, aspect / pixel_aspect)
