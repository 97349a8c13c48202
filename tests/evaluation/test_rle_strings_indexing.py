"""RleStrings are a list of strings, however they came and whichever are asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.evaluation.rle_strings import JoinedRles, RleStrings

STRINGS = st.lists(st.binary(max_size=4), max_size=4)
# Empty batches are a third of all, so that several stand side by side, first and last too.
BATCHES = st.lists(st.just([]) | STRINGS | STRINGS, max_size=8)
quick = settings(max_examples=150, deadline=None, derandomize=True)


def joined(strings):
    lengths = np.array(list(map(len, strings)), dtype=np.int64)
    return JoinedRles(np.ones((len(strings), 2), np.int64), b"".join(strings), lengths)


def filled(batches, ways):
    """Batches put in by turns as strings and as one text; with a reading in between or not."""
    strings = RleStrings()
    for batch, (as_text, read) in zip(batches, ways, strict=False):
        if as_text:
            strings.append(joined(batch))
        else:
            strings.append_strings(batch)
        if read:
            list(strings)
    return strings


@st.composite
def cases(draw):
    """Strings, and the list that they should equal."""
    batches = draw(BATCHES)
    size = len(batches)
    ways = draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=size, max_size=size))
    return filled(batches, ways), [one for batch in batches for one in batch]


@quick
@given(cases())
def test_length_order_and_iteration(case):
    strings, expected = case
    assert len(strings) == len(expected)
    assert list(strings) == expected
    assert list(reversed(strings)) == expected[::-1]
    assert [one in strings for one in expected] == [True] * len(expected)


@quick
@given(cases(), st.integers(-40, 40))
def test_one_index_counts_from_either_end(case, index):
    strings, expected = case
    if -len(expected) <= index < len(expected):
        assert strings[index] == expected[index]
        assert strings[np.int64(index)] == expected[index]
    else:
        with pytest.raises(IndexError, match=f"index {index} of {len(expected)} strings"):
            strings[index]


PLACES = st.none() | st.integers(-40, 40)


@quick
@given(cases(), PLACES, PLACES, st.none() | st.integers(-5, 5).filter(bool))
def test_slices(case, start, stop, step):
    strings, expected = case
    assert strings[start:stop:step] == expected[start:stop:step]


@quick
@given(st.data(), cases())
def test_take_and_subset_in_any_order_with_repetitions(data, case):
    strings, expected = case
    places = st.lists(st.integers(0, len(expected) - 1)) if expected else st.just([])
    indices = data.draw(places)
    wanted = [expected[i] for i in indices]
    array = np.array(indices, dtype=np.int64)
    assert strings.take(array) == wanted
    part = strings.subset(array)
    assert isinstance(part, RleStrings)
    assert list(part) == wanted
    assert list(strings) == expected, "taking changed what was taken from"


@quick
@given(cases(), STRINGS)
def test_a_subset_goes_its_own_way(case, more):
    """What is appended to a part is not in the whole, nor the other way round."""
    strings, expected = case
    part = strings.subset(np.arange(len(expected), dtype=np.int64))
    part.append_strings(more)
    strings.append(joined(more[::-1]))
    assert list(part) == expected + more
    assert list(strings) == expected + more[::-1]


def test_empty_batches_alone():
    strings = RleStrings()
    for _ in range(3):
        strings.append_strings([])
        strings.append(joined([]))
    assert list(strings) == strings[:] == strings.take(np.zeros(0, np.int64)) == []
    strings.append_strings([b""])
    assert (len(strings), strings[0], strings[-1]) == (1, b"", b"")


@pytest.mark.parametrize("wrong", [1.0, "1", None, b"1"])
def test_indices_are_whole_numbers(wrong):
    strings = RleStrings()
    strings.append_strings([b"a", b"b"])
    with pytest.raises(TypeError):
        strings[wrong]
