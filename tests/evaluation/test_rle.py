"""Run-length encodings: measured as pycocotools does, refused where it would go astray."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from eql_d2.evaluation import rle
from eql_d2.evaluation.rle import compressed_counts, is_rle, measure_rles


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def from_runs(runs):
    """The characters of the format, written from its definition: 5 bits each, lowest first."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            digit, value = value & 0x1F, value >> 5
            more = not (value == 0 and not digit & 0x10) and not (value == -1 and digit & 0x10)
            text += chr(48 + digit + 0x20 * more)
            if not more:
                break
    return text.encode()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9)), max_size=9))
def test_areas_and_totals_equal_pycocotools(shapes):
    masks = [
        np.random.default_rng(seed).random((h, w)) < seed / 9
        for seed, (h, w, seed) in enumerate(shapes)
    ]
    encoded = [encode(mask) for mask in masks]
    sizes = measure_rles([code["counts"] for code in encoded])
    assert sizes.areas.tolist() == [int(mask.sum()) for mask in masks]
    assert sizes.areas.tolist() == [int(coco_mask.area(code)) for code in encoded]
    assert sizes.totals.tolist() == [mask.size for mask in masks]
    for mask, span in zip(masks, sizes.spans.tolist(), strict=True):
        inside = np.flatnonzero(mask.ravel(order="F"))
        assert span == ([inside[0], inside[-1] + 1] if len(inside) else [mask.size, mask.size])


@given(st.lists(st.integers(0, 2**29 - 1), min_size=1, max_size=12))
def test_long_runs_written_from_the_definition(runs):
    sizes = measure_rles([from_runs(runs)])
    assert sizes.totals[0] == sum(runs)
    assert sizes.areas[0] == sum(runs[1::2])
    last = runs[-1] if len(runs) % 2 and len(runs) > 1 else 0
    span = [-1, -1] if 0 in runs[1:] else [runs[0], sum(runs) - last]
    assert sizes.spans[0].tolist() == span
    assert compressed_counts({"size": [1, 1], "counts": runs}) == from_runs(runs)


@given(st.lists(st.integers(0, 2**23), min_size=1, max_size=12))
def test_runs_are_written_as_pycocotools_does(runs):
    """Longer ones it may write past the end of its buffer, one byte for 6 characters each."""
    code = coco_mask.frPyObjects({"size": [1, 1], "counts": runs}, 1, 1)
    assert compressed_counts({"size": [1, 1], "counts": runs}) == code["counts"]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"0P",
        b"\xc3\xa9",
        b" 12",
        b"12\n",
        b"PPPPPPPPP1",
        from_runs([5, -2, 7]),
        from_runs([-1, 3]),
        from_runs([2**29, 3]),
        from_runs([5, 2**29 - 1, 7, 2**29 + 1, 7]),
        b"T3\\9T3llooooOPi0",  # -100 in 7 characters, which pycocotools takes for another number
    ],
)
def test_broken_strings_are_told_from_good_ones(broken):
    good = encode(np.eye(7))["counts"]
    sizes = measure_rles([good, broken, good, broken, broken, good])
    assert sizes.totals.tolist() == [49, -1, 49, -1, -1, 49]
    assert sizes.areas.tolist() == [7, 0, 7, 0, 0, 7]


def test_chunks_do_not_show(monkeypatch):
    rng = np.random.default_rng(0)
    counts = [encode(rng.random((9, 8)) < 0.3)["counts"] for _ in range(50)]
    counts[20] = b"P"
    whole = measure_rles(counts)
    monkeypatch.setattr(rle, "CHUNK", 7)
    parts = measure_rles(counts)
    assert parts.areas.tolist() == whole.areas.tolist()
    assert parts.totals.tolist() == whole.totals.tolist()
    assert measure_rles([]).areas.shape == (0,)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_mutated_strings_that_pass_describe_the_image(seed, mutations):
    """What passes may be another mask, but its runs fill the image: pycocotools can decode it."""
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 11)) < rng.random()
    text = bytearray(encode(mask)["counts"])
    for _ in range(mutations):
        place = int(rng.integers(len(text)))
        match int(rng.integers(3)):
            case 0:
                text[place] = int(rng.integers(40, 120))
            case 1:
                text.insert(place, int(rng.integers(48, 112)))
            case _ if len(text) > 1:
                del text[place]
    sizes = measure_rles([bytes(text)])
    if sizes.totals[0] == mask.size:
        decoded = coco_mask.decode({"size": [12, 11], "counts": bytes(text)})
        assert decoded.sum() == sizes.areas[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"size": [4, 5], "counts": "x"}, True),
        ({"size": (4, 5), "counts": [20]}, True),
        ({"size": [4, 5.0], "counts": "x"}, False),
        ({"size": [4, 0], "counts": "x"}, False),
        ({"size": [4], "counts": "x"}, False),
        ({"size": [2**20, 2**20], "counts": "x"}, False),
        ({"size": [4, 5], "counts": [1.5]}, False),
        ({"size": [4, 5], "counts": [2**31]}, False),
        ({"size": [4, 5], "counts": None}, False),
        ("text", False),
    ],
)
def test_the_form_of_an_rle(value, expected):
    assert is_rle(value) is expected


def test_foreign_characters_are_kept_for_the_check_to_find():
    for text in ("é", "\ud800", "日本"):
        counts = compressed_counts({"size": [4, 5], "counts": text})
        assert measure_rles([counts]).totals[0] == -1
