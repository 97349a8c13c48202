"""Masks for drawing: every form, also empty predictions."""

import numpy as np
import pytest
from pycocotools import mask as mask_api

from eql_d2.errors import DataError
from eql_d2.plotting.masks import mask_pixels

MASK = np.zeros((30, 40), dtype=np.uint8)
MASK[5:20, 8:31] = 1


def rle(pixels, text=True):
    encoded = mask_api.encode(np.asfortranarray(pixels))
    return encoded | {"counts": encoded["counts"].decode()} if text else encoded


def uncompressed(pixels):
    flat = pixels.flatten(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(pixels.shape), "counts": [0, *runs] if flat[0] else runs}


@pytest.mark.parametrize("form", [rle(MASK), rle(MASK, False), uncompressed(MASK)])
def test_run_lengths(form):
    assert np.array_equal(mask_pixels(form, 30, 40), MASK)


def test_polygons():
    pixels = mask_pixels([[8, 5, 31, 5, 31, 20, 8, 20]], 30, 40)
    assert np.array_equal(pixels, MASK)


def test_an_empty_prediction_is_an_empty_mask():
    pixels = mask_pixels(rle(np.zeros((30, 40), dtype=np.uint8)), 30, 40)
    assert pixels.shape == (30, 40)
    assert not pixels.any()


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_nothing_is_no_mask(nothing):
    assert mask_pixels(nothing, 30, 40) is None


@pytest.mark.parametrize("change", [{"size": [40, 30]}, {"size": None}, {"counts": None}])
def test_wrong_run_lengths_are_named(change):
    form = {k: v for k, v in (rle(MASK) | change).items() if v is not None}
    with pytest.raises(DataError, match=r"size \[30, 40\]"):
        mask_pixels(form, 30, 40)


def test_broken_polygons_are_named():
    with pytest.raises(DataError, match=r"size \[30, 40\].* cannot decode"):
        mask_pixels([[1, 2, 3, 4]], 30, 40)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("zz", "counts contain 'z'"),
        ("Q2", "do not add up"),
        ("P", "cut off"),
        ([600, 601], "do not add up"),
        ([-1, 1201], "not lengths of runs"),
        ("", "do not add up"),
    ],
)
def test_damaged_counts_never_reach_the_decoder_in_c(monkeypatch, counts, message):
    # pycocotools reads and writes out of bounds with them, which mostly goes unnoticed.
    monkeypatch.setattr(mask_api, "decode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(mask_api, "frPyObjects", lambda *_: pytest.fail("converted"))
    with pytest.raises(DataError, match=message):
        mask_pixels({"size": [30, 40], "counts": counts}, 30, 40)
