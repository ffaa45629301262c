"""Identities of faces: by overlap and motion, over short gaps, of several at once."""

from __future__ import annotations

import numpy as np

from emofuse.predict.tracks import FaceTracks


def box(left, top=0.0, side=100.0):
    return np.array([left, top, left + side, top + side], dtype=np.float32)


def test_faces_are_numbered_from_one_in_the_order_of_their_boxes():
    assert FaceTracks().update([box(0), box(300)], 0.0) == [1, 2]


def test_a_face_keeps_its_number_wherever_its_box_is_listed():
    tracks = FaceTracks()
    tracks.update([box(0), box(300)], 0.0)
    assert tracks.update([box(310), box(5)], 0.04) == [2, 1]
    assert tracks.update([box(8)], 0.08) == [1]
    assert tracks.update([box(320), box(10)], 0.12) == [2, 1]


def test_the_sum_of_overlaps_decides_and_not_the_first_box():
    """The first box overlaps most with face 2, but then face 1 would lose its only box."""
    tracks = FaceTracks()
    tracks.update([box(0), box(60)], 0.0)
    assert tracks.update([box(35), box(75)], 0.04) == [1, 2]


def test_faces_that_cross_keep_their_numbers_by_their_motion():
    tracks = FaceTracks()
    for step in range(21):
        at = step * 0.04
        numbers = tracks.update([box(20 * step), box(400 - 20 * step, top=30)], at)
        assert numbers == [1, 2], step


def test_a_fast_small_face_that_no_longer_overlaps_is_the_same():
    tracks = FaceTracks()
    assert [tracks.update([box(left, side=20)], time) for left, time in ((0, 0), (12, 0.1), (26, 0.2))] == [[1]] * 3


def test_a_short_absence_keeps_the_number_and_a_long_one_gives_a_new_one():
    tracks = FaceTracks(gap_s=1.0)
    tracks.update([box(0)], 0.0)
    assert tracks.update([], 0.5) == []
    assert tracks.update([box(4)], 0.9) == [1]
    assert tracks.known == {1}
    assert tracks.update([box(4)], 2.0) == [2]


def test_a_face_elsewhere_or_of_another_size_is_a_new_one():
    tracks = FaceTracks()
    tracks.update([box(0)], 0.0)
    assert tracks.update([box(500)], 0.04) == [2]
    assert tracks.update([box(40, top=40, side=20)], 0.08) == [3]


def test_numbers_are_never_used_again():
    tracks = FaceTracks(gap_s=0.1)
    assert [tracks.update([box(0)], float(second)) for second in range(4)] == [[1], [2], [3], [4]]
