import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from eql_d2.data import decode_mask, encode_rle
from eql_d2.data.masks import compressed_rle, polygon_problem, run_lengths, segmentation_problem

masks = st.builds(
    lambda h, w, seed, share: (np.random.default_rng(seed).random((h, w)) < share).astype(np.uint8),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.floats(0.0, 1.0),
)


def lengths_by_hand(mask):
    """Run lengths down the columns, background first."""
    runs, current = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != current:
            runs.append(0)
            current = pixel
        runs[-1] += 1
    return runs


@given(masks)
def test_a_mask_survives_encoding_and_json(mask):
    rle = json.loads(json.dumps(encode_rle(mask)))
    assert rle["size"] == list(mask.shape)
    assert rle == encode_rle(mask.astype(bool))
    if mask.any():
        decoded = decode_mask(rle, *mask.shape)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, mask)


@given(masks)
def test_run_lengths_equal_a_walk_over_the_pixels(mask):
    assert run_lengths(encode_rle(mask)["counts"]) == lengths_by_hand(mask)


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=12))
def test_run_lengths_of_any_size_are_read(runs):
    rle = {"size": [1, sum(runs)], "counts": runs}
    compressed = mask_api.frPyObjects(rle, 1, sum(runs))
    assert run_lengths(compressed["counts"]) == runs


@given(masks.filter(lambda m: m.any()))
def test_uncompressed_bytes_and_str_mean_the_same(mask):
    height, width = mask.shape
    uncompressed = {"size": [height, width], "counts": lengths_by_hand(mask)}
    expected = encode_rle(mask)
    assert compressed_rle(uncompressed) == expected
    as_bytes = {"size": (height, width), "counts": expected["counts"].encode()}
    assert compressed_rle(as_bytes) == expected
    for form in (uncompressed, as_bytes, expected):
        np.testing.assert_array_equal(decode_mask(form, height, width), mask)


def test_encoding_does_not_depend_on_memory_layout():
    mask = np.random.default_rng(0).random((9, 14)) < 0.5
    assert encode_rle(np.asfortranarray(mask)) == encode_rle(np.ascontiguousarray(mask))
    assert encode_rle(mask[::-1]) == encode_rle(mask[::-1].copy())


def test_only_two_dimensional_masks_are_encoded():
    with pytest.raises(ValueError, match=r"\(H, W\), got \(2, 3, 1\)"):
        encode_rle(np.zeros((2, 3, 1)))


@pytest.mark.parametrize("integers", [True, False])
def test_polygons_on_pixel_corners_fill_whole_pixels(integers):
    corner = int if integers else float
    polygon = [corner(v) for v in (2, 1, 7, 1, 7, 4, 2, 4)]
    expected = np.zeros((6, 10), np.uint8)
    expected[1:4, 2:7] = 1
    np.testing.assert_array_equal(decode_mask([polygon], 6, 10), expected)


def test_several_polygons_are_joined():
    left, right = [0, 0, 3, 0, 3, 3, 0, 3], [2, 0, 5, 0, 5, 3, 2, 3]
    mask = decode_mask([left, right], 4, 6)
    assert mask.max() == 1
    assert mask[:3, :5].all()
    assert mask.sum() == 15


@given(st.data())
@settings(max_examples=40)
def test_polygons_equal_even_odd_ray_casting_inside(data):
    """Away from the outline a rasterised polygon holds the points that lie inside of it."""
    radii = data.draw(st.lists(st.floats(4.0, 14.0), min_size=3, max_size=9))
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    points = np.stack([16 + radii * np.cos(angles), 16 + radii * np.sin(angles)], 1)
    mask = decode_mask([points.ravel().tolist()], 32, 32)
    for y in range(32):
        for x in range(0, 32, 3):
            inside, near = ray_casting(points, x + 0.5, y + 0.5)
            if not near:
                assert mask[y, x] == inside


def ray_casting(points, x, y):
    """Whether the point lies inside, and whether it lies within 1.5 pixels of the outline."""
    crossings, nearest = 0, np.inf
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        if (y0 > y) != (y1 > y):
            crossings += x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
        along = np.array([x1 - x0, y1 - y0])
        t = np.clip(((x - x0) * along[0] + (y - y0) * along[1]) / (along @ along), 0, 1)
        nearest = min(nearest, np.hypot(x0 + t * along[0] - x, y0 + t * along[1] - y))
    return crossings % 2 == 1, nearest < 1.5


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ([], "empty list"),
        (7, "neither"),
        ("text", "neither"),
        ([[1, 1, 5, 1]], "under 3 points"),
        ([[]], "under 3 points"),
        ([[1, 1, 5, 1, 5, 5, 2]], "odd number"),
        ([1, 1, 5, 1, 5, 5], "list of lists"),
        ([None], "list of lists"),
        ([{"x": 1}], "list of lists"),
        ([[1, 1, 5, 1, 5, float("nan")]], "not finite"),
        ([[1, 1, 5, 1, float("inf"), float("-inf")]], "not finite"),
        ([[1, 1, 5, 1, 5, "5"]], "not finite"),
        ([[1, 1, 5, 1, 5, [5]]], "not finite"),
        ([[1, 1, 5, 1, 5, 10**400]], "not finite"),
        ([[1, 1, 5, 1, 5, 1e9]], "far outside"),
        ([[1, 1, 5, 1, -11, 5]], "far outside"),
        ([[0, 0, 4, 0, 4, 4], [1, 1]], "under 3 points"),
        ({}, "size is not the image's"),
        ({"size": [6, 10]}, "not lengths of runs"),
        ({"size": [10, 6], "counts": [10, 50]}, "size is not the image's"),
        ({"size": 60, "counts": [10, 50]}, "size is not the image's"),
        ({"size": [6, 10], "counts": [10, 49]}, "do not add up"),
        ({"size": [6, 10], "counts": [70, -10]}, "not lengths of runs"),
        ({"size": [6, 10], "counts": [10.0, 50.0]}, "not lengths of runs"),
        ({"size": [6, 10], "counts": [60]}, "without a single pixel"),
        ({"size": [6, 10], "counts": [0, 0, 60]}, "without a single pixel"),
        ({"size": [6, 10], "counts": "00 00"}, "contain ' '"),
        ({"size": [6, 10], "counts": "ä"}, "contain 'ä'"),
        ({"size": [6, 10], "counts": "o"}, "cut off"),
        ({"size": [6, 10], "counts": "PPPPPP0L1"}, "more than 6 characters"),
        ({"size": [6, 10], "counts": "0" * 20}, "do not add up"),
        ({"size": [6, 10], "counts": ""}, "do not add up"),
    ],
)
def test_broken_segmentations_are_named_and_not_decoded(segmentation, problem):
    with pytest.raises(ValueError, match=f"cannot decode this segmentation: .*{problem}"):
        decode_mask(segmentation, 6, 10)


def test_a_polygon_may_reach_out_of_the_image_by_the_images_size():
    assert polygon_problem([-10, -6, 20, -6, 20, 12], 6, 10) is None
    assert decode_mask([[-10, -6, 20, -6, 20, 12, -10, 12]], 6, 10).all()


@given(st.text(alphabet=[chr(c) for c in range(32, 127)], max_size=12), st.integers(1, 9))
def test_random_texts_as_run_lengths_are_refused_or_decoded(counts, side):
    rle = {"size": [side, side], "counts": counts}
    problem = segmentation_problem(rle, side, side)
    if problem is None:
        runs = run_lengths(counts)
        assert decode_mask(rle, side, side).sum() == sum(runs[1::2])


def test_real_masks_have_the_area_that_coco_gives(shared_data):
    content = json.loads((shared_data / "coco128" / "instances.json").read_text())
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    crowds = [a for a in content["annotations"] if a["iscrowd"]]  # their areas are rough
    objects = [a for a in content["annotations"] if a["area"] > 5000 and not a["iscrowd"]]
    assert len(crowds) == 10
    assert len(objects) > 200
    for annotation in objects:
        mask = decode_mask(annotation["segmentation"], *sizes[annotation["image_id"]])
        assert mask.sum() == pytest.approx(annotation["area"], rel=0.02)
    for annotation in crowds:
        size = sizes[annotation["image_id"]]
        expected = mask_api.area(mask_api.frPyObjects(annotation["segmentation"], *size))
        assert decode_mask(annotation["segmentation"], *size).sum() == expected
