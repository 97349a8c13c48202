"""Boundary IoU against erosion step by step, and Boundary AP against lvis with that IoU."""

import copy

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from eql_d2.evaluation import evaluate
from eql_d2.evaluation.boundary import (
    boundary_region,
    boundary_width,
    inner_boundary,
    region_iou,
)


def eroded_once(mask):
    """A pixel stays if its 8 neighbours and itself are set; beyond the image nothing is."""
    padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), dtype=bool)
    padded[1:-1, 1:-1] = mask
    result = np.ones(mask.shape, dtype=bool)
    for dy in range(3):
        for dx in range(3):
            result &= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
    return result


def slow_boundary(mask):
    mask = mask.astype(bool)
    height, width = mask.shape
    inside = mask
    for _ in range(max(1, round(0.02 * np.sqrt(height**2 + width**2)))):
        inside = eroded_once(inside)
    return mask & ~inside


def slow_iou(a, b):
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def slow_overlaps(detections, objects):
    """The smaller of mask and boundary IoU of every pair of RLEs."""
    found, wanted = ([coco_mask.decode(r) > 0 for r in rles] for rles in (detections, objects))
    return np.array(
        [
            [min(slow_iou(d, g), slow_iou(slow_boundary(d), slow_boundary(g))) for g in wanted]
            for d in found
        ]
    )


def random_mask(rng, height=70, width=90):
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    for _ in range(int(rng.integers(1, 5))):
        y, x = rng.integers(0, height), rng.integers(0, width)
        mask[y : y + rng.integers(1, 60), x : x + rng.integers(1, 70)] ^= 1
    mask[rng.integers(0, height), rng.integers(0, width)] = 1
    return mask


@pytest.mark.parametrize("width", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("seed", range(6))
def test_boundary_equals_erosion_step_by_step(seed, width):
    mask = random_mask(np.random.default_rng(seed)) > 0
    inside = mask
    for _ in range(width):
        inside = eroded_once(inside)
    np.testing.assert_array_equal(inner_boundary(mask, width), mask & ~inside)


@pytest.mark.parametrize("seed", range(6))
def test_boundary_equals_opencv(seed):
    cv2 = pytest.importorskip("cv2")
    mask = random_mask(np.random.default_rng(100 + seed))
    padded = cv2.copyMakeBorder(np.ascontiguousarray(mask), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    for width in (1, 2, 5):
        inside = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
        np.testing.assert_array_equal(inner_boundary(mask > 0, width), (mask - inside) > 0)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(480, 640, 16), (10, 10, 1), (1, 1, 1), (500, 375, 12), (640, 427, 15)],
)
def test_width_is_two_percent_of_the_diagonal(height, width, expected):
    assert boundary_width(height, width) == expected


@pytest.mark.parametrize("seed", range(10))
def test_regions_in_their_boxes_are_those_of_the_whole_image(seed):
    rng = np.random.default_rng(seed)
    masks = [random_mask(rng) for _ in range(4)]
    regions = [boundary_region(coco_mask.encode(mask)) for mask in masks]
    slow = [slow_boundary(mask) for mask in masks]
    for region, expected in zip(regions, slow, strict=True):
        whole = np.zeros_like(expected)
        height, width = region.pixels.shape
        whole[region.top : region.top + height, region.left : region.left + width] = region.pixels
        np.testing.assert_array_equal(whole, expected)
        assert region.area == expected.sum()
    for a in range(4):
        for b in range(4):
            assert region_iou(regions[a], regions[b]) == slow_iou(slow[a], slow[b])


def test_regions_apart():
    corner = np.zeros((20, 20), dtype=np.uint8, order="F")
    corner[:3, :3] = 1
    other = np.asfortranarray(corner[::-1, ::-1])
    assert region_iou(*(boundary_region(coco_mask.encode(m)) for m in (corner, other))) == 0


@pytest.mark.parametrize("seed", range(40))
def test_boundary_ap_equals_lvis_with_the_slow_iou(seed, random_case, official):
    truth, records = random_case(seed, number=40)
    theirs = official(truth, records, "segm", iou=slow_overlaps)
    ours = evaluate(truth, records, iou_types=["boundary"])
    assert [row.ap["boundary"] for row in ours.categories] == pytest.approx(
        theirs.pop("per_category"), abs=1e-12
    )
    expected = {f"boundary/{name}": value for name, value in theirs.items()}
    assert ours.metrics == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_challenge_of_2021(seed, random_case, official):
    """Boundary IoU, 10,000 detections a category, no limit per image."""
    truth, records = random_case(seed, number=400)
    for part in (truth["annotations"], records):
        for item in part:
            item["image_id"] = truth["images"][0]["id"]
    theirs = official(truth, records, "segm", iou=slow_overlaps, max_dets=-1)
    del theirs["per_category"]
    ours = evaluate(truth, records, iou_types=["boundary"], metrics=["fixed"]).metrics
    expected = {f"boundary/{name}_fixed": value for name, value in theirs.items()}
    assert ours == pytest.approx(expected, abs=1e-12)


def test_boundary_is_stricter_and_differs(random_case):
    lower = 0
    for seed in range(20):
        metrics = evaluate(*random_case(seed, number=40), iou_types=["segm", "boundary"]).metrics
        if metrics["segm/AP"] is not None:
            lower += metrics["boundary/AP"] < metrics["segm/AP"]
    assert lower >= 5


@pytest.mark.parametrize("seed", range(10))
def test_crowds_keep_their_mask_iou(seed, random_case):
    """What is matched to a crowd is neither right nor wrong, whatever its outline."""
    truth, records = random_case(seed, number=40)
    for image in truth["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    everything = copy.deepcopy(truth)
    for annotation in everything["annotations"]:
        annotation["iscrowd"] = 1
    metrics = evaluate(everything, records, iou_types=["boundary"]).metrics
    assert set(metrics.values()) == {None}
    filled = np.ones((128, 128), dtype=np.uint8, order="F")
    rle = coco_mask.encode(filled)
    crowd = {
        "id": 999,
        "image_id": truth["images"][0]["id"],
        "category_id": truth["categories"][0]["id"],
        "bbox": [0, 0, 128, 128],
        "area": 128 * 128,
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
        "iscrowd": 1,
    }
    truth["annotations"] = [
        *(a | {"iscrowd": 0} for a in truth["annotations"]),
        crowd,
    ]
    inside = [
        r
        for r in records
        if (r["image_id"], r["category_id"]) == (crowd["image_id"], crowd["category_id"])
    ]
    others = [r for r in records if r not in inside]
    with_crowd = evaluate(truth, records, iou_types=["boundary"]).metrics["boundary/AP"]
    objects = [a for a in truth["annotations"] if a["id"] != 999]
    if any(
        (a["image_id"], a["category_id"]) == (crowd["image_id"], crowd["category_id"])
        for a in objects
    ):
        return
    assert with_crowd == evaluate(truth, others, iou_types=["boundary"]).metrics["boundary/AP"]


def test_needs_masks(random_case):
    from eql_d2.errors import ResultsError

    truth, records = random_case(3)
    for record in records:
        del record["segmentation"]
    with pytest.raises(ResultsError, match="mask AP needs"):
        evaluate(truth, records, iou_types=["boundary"])
