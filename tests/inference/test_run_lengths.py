"""Crops encode as pycocotools encodes the whole mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from eql_d2.inference.run_lengths import Crops, encode_crops


def whole_rle(mask):
    rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def encode_parts(masks, edges, height, width):
    """Encode the part of each (height, width) mask inside its (left, top, right, bottom)."""
    crops = Crops.from_edges(np.array(edges, np.int64).reshape(-1, 4), height, width)
    flat, views = crops.buffer()
    for mask, view, left, top in zip(masks, views, crops.left, crops.top, strict=True):
        columns, rows = view.shape
        view[:] = mask[top : top + rows, left : left + columns].T
    return encode_crops(flat, crops)


def outside_cleared(mask, edges):
    left, top, right, bottom = (max(v, 0) for v in edges)
    cleared = np.zeros_like(mask)
    cleared[top:bottom, left:right] = mask[top:bottom, left:right]
    return cleared


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    number=st.integers(0, 6),
    share=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
)
def test_equals_pycocotools(seed, height, width, number, share):
    rng = np.random.default_rng(seed)
    masks = rng.random((number, height, width)) < share
    x = np.sort(rng.integers(-5, width + 6, (number, 2)), axis=1)
    y = np.sort(rng.integers(-5, height + 6, (number, 2)), axis=1)
    whole = rng.random((number, 2)) < 0.4  # from edge to edge, where columns join
    x[whole[:, 0]], y[whole[:, 1]] = (0, width), (0, height)
    edges = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
    wanted = [whole_rle(outside_cleared(m, e)) for m, e in zip(masks, edges, strict=True)]
    assert encode_parts(masks, edges, height, width) == wanted


def test_numbers_of_every_length():
    """Runs of 1 to 2**25 pixels, growing and shrinking: up to six characters and both signs."""
    height, width = 4096, 9000
    mask = np.zeros(height * width, dtype=bool)
    ends = np.cumsum([2**k for k in range(12)] + [2**k for k in range(23, 0, -1)] + [3] * 9)
    for start, stop in zip(ends[::2], ends[1::2], strict=False):
        mask[start:stop] = True
    mask = mask.reshape(width, height).T
    found = encode_parts(mask[None], [[0, 0, width, height]], height, width)
    assert found == [whole_rle(mask)]
    assert mask_api.decode(found[0]).sum() == mask.sum()


@pytest.mark.parametrize(
    ("edges", "counts"),
    [
        ([0, 0, 3, 4], [0, 12, 8]),  # full columns are one run
        ([3, 0, 5, 4], [12, 8]),  # and one that ends with the image is the last
        ([0, 0, 5, 4], [0, 20]),
        ([1, 1, 3, 3], [5, 2, 2, 2, 9]),
        ([2, 2, 2, 4], [20]),
        ([9, 9, 12, 12], [20]),
        ([-8, -8, 0, 0], [20]),
    ],
)
def test_a_filled_rectangle(edges, counts):
    (found,) = encode_parts(np.ones((1, 4, 5), bool), [edges], 4, 5)
    wanted = mask_api.frPyObjects({"size": [4, 5], "counts": counts}, 4, 5)
    assert found == {"size": [4, 5], "counts": wanted["counts"].decode()}


def test_no_mask_at_all():
    assert encode_parts(np.zeros((0, 4, 5), bool), [], 4, 5) == []
