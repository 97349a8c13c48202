"""Label places: inside, apart, near their box."""

from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.plotting.labels import MAX_SHIFT, place_labels


def overlap(a, b):
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def test_a_label_sits_above_its_box():
    assert place_labels([(20, 50, 60, 40)], [(30, 12)], (200, 100)) == [(20, 38, 30, 12)]


def test_at_the_upper_edge_it_goes_inside():
    assert place_labels([(20, 3, 60, 40)], [(30, 12)], (200, 100)) == [(20, 3, 30, 12)]


def test_at_the_right_edge_it_moves_in():
    assert place_labels([(190, 50, 10, 10)], [(30, 12)], (200, 100)) == [(170, 38, 30, 12)]


def test_the_second_label_of_equal_boxes_gives_way():
    first, second = place_labels([(20, 50, 25, 40)] * 2, [(30, 12)] * 2, (200, 100))
    assert first == (20, 38, 30, 12)
    assert second is not None
    assert not overlap(first, second)


def test_a_label_larger_than_the_picture_is_left_out():
    assert place_labels([(0, 0, 5, 5)], [(30, 12)], (20, 100)) == [None]
    assert place_labels([(0, 0, 5, 5)], [(30, 12)], (100, 10)) == [None]


def test_ten_labels_of_one_object_all_find_a_place():
    places = place_labels([(100, 150, 80, 60)] * 10, [(90, 16)] * 10, (480, 480))
    assert None not in places


def test_too_many_labels_are_left_out_from_the_end():
    places = place_labels([(50, 50, 10, 10)] * 80, [(60, 16)] * 80, (160, 160))
    assert places[0] is not None
    assert places[-1] is None


numbers = st.floats(-50, 350, allow_nan=False)
boxes = st.tuples(numbers, numbers, st.floats(0, 300), st.floats(0, 300))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(boxes, st.integers(5, 90)), max_size=25))
def test_labels_never_leave_the_picture_or_overlap(items):
    places = place_labels([b for b, _ in items], [(w, 14) for _, w in items], (300, 200))
    assert len(places) == len(items)
    kept = [p for p in places if p is not None]
    for left, top, width, height in kept:
        assert left >= 0
        assert left + width <= 300
        assert top >= 0
        assert top + height <= 200
    assert not any(overlap(a, b) for i, a in enumerate(kept) for b in kept[:i])


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 270), st.floats(0, 180), st.floats(1, 30), st.floats(1, 20))
def test_a_single_label_stays_with_its_box(x, y, width, height):
    (place,) = place_labels([(x, y, width, height)], [(40, 14)], (300, 200))
    assert place is not None
    left, top, _, label_height = place
    assert abs(top - y) <= MAX_SHIFT * label_height
    assert x - 41 <= left <= x + width + 1
