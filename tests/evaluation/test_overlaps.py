"""Overlaps of existing pairs against pycocotools on every combination."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from eql_d2.evaluation import overlaps
from eql_d2.evaluation.overlaps import alike, box_overlaps, mask_overlaps, shared_pairs

SIZE = 40


def make(seed, num_detections=30, num_truths=12, num_pairs=5):
    """Sorted pairs of detections, pairs of objects, their whole-number boxes and crowd flags."""
    rng = np.random.default_rng(seed)

    def boxes(n):
        wh = rng.integers(0, 20, (n, 2))
        return np.concatenate([rng.integers(0, 20, (n, 2)), wh], axis=1).astype(float)

    pairs = np.sort(rng.integers(0, num_pairs, num_detections))
    truth_pairs = rng.integers(0, num_pairs + 2, num_truths)
    return (
        pairs,
        truth_pairs,
        boxes(num_detections),
        boxes(num_truths),
        rng.random(num_truths) < 0.3,
    )


def expected_overlaps(pairs, truth_pairs, detections, truths, crowd, minimum):
    iou = coco_mask.iou(detections, truths, crowd.astype(np.uint8).tolist())
    return [
        (d, g, iou[d, g])
        for d in range(len(pairs))
        for g in range(len(truth_pairs))
        if pairs[d] == truth_pairs[g] and iou[d, g] >= minimum
    ]


def as_list(found):
    return list(
        zip(found.detection.tolist(), found.truth.tolist(), found.iou.tolist(), strict=True)
    )


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("seed", range(5))
def test_boxes_to_the_last_bit(seed, chunk, monkeypatch):
    monkeypatch.setattr(overlaps, "CHUNK", chunk)
    pairs, truth_pairs, boxes, truths, crowd = make(seed)
    boxes, truths = boxes * 1.1, truths * 1.1  # no whole numbers: rounding must agree too
    shared = shared_pairs(pairs, truth_pairs)
    found = box_overlaps(shared, boxes, truths, crowd, 0.1)
    expected = expected_overlaps(pairs, truth_pairs, boxes, truths, crowd, 0.1)
    assert len(expected) > 3
    assert as_list(found) == expected


def rles(boxes):
    masks = np.zeros((SIZE, SIZE, len(boxes)), dtype=np.uint8, order="F")
    for i, (x, y, w, h) in enumerate(boxes.astype(int)):
        masks[y : y + h, x : x + w, i] = 1
    return coco_mask.encode(masks)


@pytest.mark.parametrize("seed", range(5))
def test_masks(seed):
    pairs, truth_pairs, boxes, truths, crowd = make(seed)
    detection_rles, truth_rles = rles(boxes), rles(truths)
    asked = []

    def detection_masks(index):
        asked.extend(index.tolist())
        return [detection_rles[i] for i in index]

    found = mask_overlaps(
        shared_pairs(pairs, truth_pairs),
        detection_masks,
        lambda index: [truth_rles[i] for i in index],
        crowd,
        0.1,
    )
    expected = expected_overlaps(pairs, truth_pairs, detection_rles, truth_rles, crowd, 0.1)
    assert len(expected) > 3
    assert as_list(found) == expected
    assert asked == np.flatnonzero(np.isin(pairs, truth_pairs)).tolist()  # existing pairs only


@pytest.mark.parametrize("seed", range(5))
def test_masks_of_unlike_area_need_no_comparison(seed):
    pairs, truth_pairs, boxes, truths, crowd = make(seed)
    detection_rles, truth_rles = rles(boxes), rles(truths)
    areas = [np.array([coco_mask.area(r) for r in part]) for part in (detection_rles, truth_rles)]
    near = alike(shared_pairs(pairs, truth_pairs), *areas, crowd, 0.5)
    found = expected_overlaps(pairs, truth_pairs, detection_rles, truth_rles, crowd, 0.5)
    assert {d for d, _, _ in found} <= set(np.flatnonzero(near).tolist())
    assert not near[~np.isin(pairs, truth_pairs)].any()


def test_areas_that_are_just_alike():
    """The areas 100 and 50 may have IoU 0.5; with a crowd any areas may."""
    shared = shared_pairs(np.zeros(4, int), np.zeros(1, int))
    areas = np.array([100.0, 50.0, 49.0, 201.0])
    for crowd, expected in ((False, [True, True, False, False]), (True, [True] * 4)):
        assert alike(shared, areas, areas[:1], np.array([crowd]), 0.5).tolist() == expected


def test_shared_pairs_are_the_intersection():
    shared = shared_pairs(np.array([2, 2, 3, 7, 9, 9]), np.array([9, 1, 2, 9, 8]))
    assert shared.first_detection.tolist() == [0, 4]
    assert shared.num_detections.tolist() == [2, 2]
    truth = [
        shared.truth_order[start : start + count].tolist()
        for start, count in zip(shared.first_truth, shared.num_truths, strict=True)
    ]
    assert truth == [[2], [0, 3]]


def test_nothing_in_common():
    shared = shared_pairs(np.array([1, 2]), np.array([3]))
    crowd = np.zeros(1, bool)
    assert as_list(box_overlaps(shared, np.ones((2, 4)), np.ones((1, 4)), crowd, 0.5)) == []
    assert as_list(mask_overlaps(shared, list, list, crowd, 0.5)) == []
