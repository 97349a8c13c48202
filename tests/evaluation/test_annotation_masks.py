"""Masks of annotations in all their forms, checked once and kept as safe strings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from eql_d2.evaluation.annotation_masks import read_masks

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
SIZE = [40, 50]


def read(segmentations, size=SIZE):
    sizes = np.array([size] * len(segmentations)).reshape(-1, 2)
    masks, measured, usable = read_masks(segmentations, sizes)
    rles = [{"size": size, "counts": counts} for counts in masks]
    for rle, area, span in zip(rles, measured.areas, measured.spans, strict=True):
        inside = np.flatnonzero(coco_mask.decode(rle).ravel(order="F"))
        assert area == len(inside)
        assert len(inside) == 0 or span.tolist() == [inside[0], inside[-1] + 1]
    return rles, usable.tolist()


def test_all_forms_give_the_same_mask():
    mask = np.zeros(SIZE, dtype=np.uint8, order="F")
    mask[10:30, 10:30] = 1
    code = coco_mask.encode(mask)
    runs = [10 * 40 + 10, *([20] * 39), 40 * 50 - 10 * 40 - 10 - 20 * 39]
    forms = [
        [[*map(float, SQUARE)]],
        [SQUARE, SQUARE],
        {"size": SIZE, "counts": code["counts"].decode()},
        {"size": SIZE, "counts": code["counts"]},
        {"size": tuple(SIZE), "counts": runs},
    ]
    rles, usable = read(forms)
    assert usable == [True] * 5
    for rle in rles:
        assert (coco_mask.decode(rle) == mask).all()


UNUSABLE = [
    None,
    [],
    [[]],
    [[1, 2, 3, 4]],
    [SQUARE, [1, 2, 3, 4, 5]],
    [[float("nan"), *SQUARE[1:]]],
    [[*SQUARE[:-1], float("nan")]],
    [[*SQUARE[:3], float("nan"), *SQUARE[4:]]],
    [[*SQUARE[:-1], float("-inf")]],
    [[*SQUARE[:-1], 1e12]],
    [[*SQUARE[:-1], "3"]],
    [[*SQUARE[:-1], None]],
    [[[1, 2]] * 6],
    SQUARE,
    {"size": SIZE},
    {"size": [50, 40], "counts": [2000]},
    {"size": SIZE, "counts": [1999]},
    {"size": SIZE, "counts": "PPP"},
    {"size": SIZE, "counts": [-1, 2001]},
]


@pytest.mark.parametrize("segmentation", UNUSABLE)
def test_unusable_ones_become_empty_masks_and_leave_others_alone(segmentation):
    rles, usable = read([[SQUARE], segmentation, [SQUARE]])
    assert usable == [True, False, True]
    assert coco_mask.area(rles).tolist() == [400, 0, 400]
    assert coco_mask.decode(rles).shape == (*SIZE, 3)


def test_nothing_to_read():
    assert read([]) == ([], [])
    assert read(UNUSABLE)[1] == [False] * len(UNUSABLE)


POINTS = st.lists(st.floats(-20, 80, width=32), min_size=6, max_size=20).map(
    lambda values: values[: len(values) // 2 * 2]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(POINTS, min_size=1, max_size=3), max_size=5), st.integers(0, 2**32 - 1))
def test_equals_pycocotools_object_by_object(polygons, seed):
    rng = np.random.default_rng(seed)
    expected = [coco_mask.merge(coco_mask.frPyObjects(parts, *SIZE)) for parts in polygons]
    segmentations = list(polygons)
    for _ in range(int(rng.integers(4))):
        code = coco_mask.encode(np.asfortranarray(rng.random(SIZE) < rng.random(), dtype=np.uint8))
        place = int(rng.integers(len(segmentations) + 1))
        expected.insert(place, code)
        segmentations.insert(place, {"size": SIZE, "counts": code["counts"].decode()})
    rles, usable = read(segmentations)
    assert usable == [True] * len(segmentations)
    decode = lambda codes: [coco_mask.decode(code).tolist() for code in codes]  # noqa: E731
    assert decode(rles) == decode(expected)
