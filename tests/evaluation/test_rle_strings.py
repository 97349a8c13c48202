"""Masks of results records joined into one buffer: what is_rle takes, and nothing is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from eql_d2.evaluation import rle_strings
from eql_d2.evaluation.rle import compressed_counts, is_rle
from eql_d2.evaluation.rle_strings import RleStrings, join_rles

SIDES = st.integers(-1, 5) | st.sampled_from([2**16, 2**31, 2**62, 2**70, True, 3.0, "3"])
COUNTS = st.text("019PQno\\é", max_size=6) | st.binary(max_size=3) | st.lists(st.integers(0, 9))
VALUES = (
    st.fixed_dictionaries(
        {}, optional={"size": st.lists(SIDES, max_size=3), "counts": COUNTS | st.none()}
    )
    | st.fixed_dictionaries(
        {
            "size": st.lists(st.integers(1, 5), min_size=2, max_size=2),
            "counts": st.text("019PQno\\", max_size=6),
        }
    )
    | st.none()
)


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, max_size=5))
def test_joins_what_is_an_rle_and_nothing_else(values):
    joined = join_rles(values)
    if not all(map(is_rle, values)):
        assert joined is None
        return
    strings = RleStrings()
    strings.append(joined)
    assert list(strings) == [compressed_counts(value) for value in values]
    assert joined.sizes.tolist() == [value["size"] for value in values]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=6))
def test_the_short_way_is_taken_and_equal(seeds):
    codes = [
        coco_mask.encode(np.asfortranarray(np.random.default_rng(s).random((6, 7)) < 0.5))
        for s in seeds
    ]
    values = [{"size": [6, 7], "counts": code["counts"].decode()} for code in codes]
    usual = rle_strings._join_usual(values)
    assert (usual is None) == (not values)
    joined = join_rles(values)
    assert joined.text == b"".join(code["counts"] for code in codes)
    assert joined.boxes().tolist() == [coco_mask.toBbox(code).tolist() for code in codes]


def test_strings_come_back_by_any_index():
    parts = [[b"a", b"", b"bcd"], [], [b"ef"] * 3]
    strings = RleStrings()
    for part in parts:
        strings.append_strings(part)
        len(strings)  # reading in between must not matter
    expected = [text for part in parts for text in part]
    assert list(strings) == expected
    assert [strings[i] for i in range(-6, 6)] == expected * 2
    assert strings[1:5:2] == expected[1:5:2]
    assert strings.take(np.array([5, 0, 0, 2])) == [b"ef", b"a", b"a", b"bcd"]
    assert strings.take(np.array([], dtype=np.int64)) == []
    assert list(strings.subset(np.array([2, 1]))) == [b"bcd", b""]
    for wrong in (6, -7):
        with pytest.raises(IndexError, match="of 6 strings"):
            strings[wrong]
    assert len(RleStrings()) == 0
