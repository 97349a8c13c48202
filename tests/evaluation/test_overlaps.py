"""Overlaps of existing pairs against pycocotools on every combination."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from eql_d2.evaluation import overlaps
from eql_d2.evaluation.overlaps import (
    Extents,
    box_overlaps,
    comparable,
    mask_overlaps,
    shared_pairs,
)

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


def rles(boxes, pairs=None):
    """Masks of these boxes; those of each pair in images of a size of their own."""
    result = []
    for i, (x, y, w, h) in enumerate(boxes.astype(int)):
        more = 0 if pairs is None else 3 * int(pairs[i])
        mask = np.zeros((SIZE + more, SIZE + more // 3), dtype=np.uint8, order="F")
        mask[y : y + h, x : x + w] = 1
        result.append(coco_mask.encode(mask))
    return result


@pytest.mark.parametrize("masks", [1, 9, overlaps.MASKS])
@pytest.mark.parametrize("seed", range(5))
def test_masks(seed, masks, monkeypatch):
    monkeypatch.setattr(overlaps, "MASKS", masks)
    pairs, truth_pairs, boxes, truths, crowd = make(seed)
    detection_rles, truth_rles = rles(boxes, pairs), rles(truths, truth_pairs)
    asked = []

    def detection_masks(index):
        asked.extend(index.tolist())
        return [dict(detection_rles[i]) for i in index]

    found = mask_overlaps(
        shared_pairs(pairs, truth_pairs),
        detection_masks,
        lambda index: [dict(truth_rles[i]) for i in index],
        crowd,
        0.1,
    )
    expected = expected_overlaps(pairs, truth_pairs, detection_rles, truth_rles, crowd, 0.1)
    assert len(expected) > 3
    assert as_list(found) == expected
    assert asked == np.flatnonzero(np.isin(pairs, truth_pairs)).tolist()  # existing pairs only


def extents(codes):
    """By definition: the columns of the mask one below the other."""
    areas, spans = [], []
    for code in codes:
        pixels = np.flatnonzero(coco_mask.decode(code).ravel(order="F"))
        areas.append(float(len(pixels)))
        spans.append((pixels[0], pixels[-1] + 1) if len(pixels) else (0, 0))
    return Extents(np.array(areas), np.array(spans, dtype=np.int32).reshape(-1, 2))


@pytest.mark.parametrize("seed", range(20))
def test_masks_left_out_by_their_extents_cannot_match(seed):
    pairs, truth_pairs, boxes, truths, crowd = make(seed)
    codes = rles(boxes), rles(truths)
    shared = shared_pairs(pairs, truth_pairs)
    near = comparable(shared, extents(codes[0]), extents(codes[1]), crowd, 0.5)
    found = expected_overlaps(pairs, truth_pairs, *codes, crowd, 0.5)
    assert {d for d, _, _ in found} <= set(np.flatnonzero(near).tolist())
    assert not near[~np.isin(pairs, truth_pairs)].any()
    assert near.sum() < np.isin(pairs, truth_pairs).sum()


def test_areas_that_are_just_alike():
    """The areas 100 and 50 may have IoU 0.5; a crowd may hold half of the detection at least."""
    shared = shared_pairs(np.zeros(5, int), np.zeros(1, int))
    areas = np.array([100.0, 50.0, 49.0, 200.0, 201.0])
    own = Extents(areas, np.array([[0, 300]] * 5, dtype=np.int32))
    other = Extents(areas[:1], own.spans[:1])
    for crowd, expected in ((False, [1, 1, 0, 1, 0]), (True, [1, 1, 1, 1, 0])):
        assert comparable(shared, own, other, np.array([crowd]), 0.5).tolist() == expected


def test_spans_that_just_share_enough():
    """Two masks of 90 pixels have IoU 0.5 if they share 60."""
    shared = shared_pairs(np.zeros(4, int), np.zeros(1, int))
    spans = np.array([[0, 100], [100, 200], [60, 160], [39, 139]], dtype=np.int32)
    own = Extents(np.full(4, 90.0), spans)
    other = Extents(np.full(1, 90.0), np.array([[0, 100]], dtype=np.int32))
    assert comparable(shared, own, other, np.zeros(1, bool), 0.5).tolist() == [1, 0, 0, 1]
    spans[3, 0] = 41  # 59 pixels
    assert comparable(shared, own, other, np.zeros(1, bool), 0.5).tolist() == [1, 0, 0, 0]


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
