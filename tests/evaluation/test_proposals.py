"""Recall of proposals against the loops that define it and against Detectron2's own function."""

import importlib
import logging

import numpy as np
import pytest

from eql_d2.errors import ResultsError
from eql_d2.evaluation import evaluate
from eql_d2.evaluation.overlaps import Overlaps
from eql_d2.evaluation.proposals import best_coverage

RANGES = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def box_iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def by_definition(truth, records, limit, area):
    """Percent; the pair of highest IoU first, each proposal and object once."""
    covered, number = [], 0
    for image in truth["images"]:
        objects = [
            a["bbox"]
            for a in truth["annotations"]
            if a["image_id"] == image["id"]
            and not a.get("ignore")
            and a["area"] > 0
            and RANGES[area][0] <= a["area"] <= RANGES[area][1]
        ]
        found = [r for r in records if r["image_id"] == image["id"]]
        found = [r["bbox"] for r in sorted(found, key=lambda r: -r["score"])[:limit]]
        number += len(objects)
        iou = np.array([[box_iou(f, o) for o in objects] for f in found])
        for _ in range(min(len(found), len(objects))):
            row, column = np.unravel_index(iou.argmax(), iou.shape)
            covered.append(iou[row, column])
            iou[row, :] = iou[:, column] = -1
    if number == 0:
        return None
    return 100 * np.mean([sum(c >= t for c in covered) / number for t in THRESHOLDS])


def shaken(case, seed):
    """The boxes moved a little, so that no two overlaps are equal."""
    rng = np.random.default_rng(seed)
    truth, records = case
    for record in records:
        record["bbox"] = (np.array(record["bbox"]) + rng.random(4)).tolist()
        record["score"] = float(rng.random())
    return truth, records


@pytest.mark.parametrize("seed", range(30))
def test_equals_the_definition(seed, random_case):
    truth, records = shaken(random_case(seed), seed)
    ours = evaluate(truth, records, iou_types=["bbox"], metrics=["proposals"]).metrics
    assert ours == pytest.approx(
        {
            f"proposals/AR{area}@{limit}": by_definition(truth, records, limit, area)
            for limit in (100, 1000)
            for area in RANGES
        },
        abs=1e-10,
    )


def test_the_highest_100_of_an_image_are_its_proposals(random_case):
    truth, records = shaken(random_case(6, number=300), 6)
    for part in (truth["annotations"], records):
        for item in part:
            item["image_id"] = truth["images"][0]["id"]
    ours = evaluate(truth, records, iou_types=["bbox"], metrics=["proposals"]).metrics
    for limit in (100, 1000):
        expected = by_definition(truth, records, limit, "")
        assert ours[f"proposals/AR@{limit}"] == pytest.approx(expected, abs=1e-10)
    assert ours["proposals/AR@100"] < ours["proposals/AR@1000"]


@pytest.mark.parametrize("seed", range(20))
def test_coverage_in_steps_is_coverage_one_by_one(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.random((12, 9)) * (rng.random((12, 9)) < 0.6)
    row, column = np.nonzero(matrix >= 0.3)
    counts = rng.random(9) < 0.8
    found = best_coverage(Overlaps(row, column, matrix[row, column]), counts)
    left, expected = np.where(counts, matrix, 0), []
    while left.max() >= 0.3:
        d, g = np.unravel_index(left.argmax(), left.shape)
        expected.append(left[d, g])
        left[d, :] = left[:, g] = 0
    assert sorted(found.tolist(), reverse=True) == expected


@pytest.mark.detectron2
@pytest.mark.parametrize("seed", range(8))
def test_equals_detectron2(seed, random_case):
    evaluation = importlib.import_module("detectron2.evaluation.lvis_evaluation")
    import torch
    from detectron2.structures import Boxes, Instances
    from lvis import LVIS

    truth, records = shaken(random_case(seed, number=120), seed)
    for annotation in truth["annotations"]:
        annotation.pop("ignore", None)  # unknown there
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] > 0]
    have = {record["image_id"] for record in records}  # the others do not count there
    truth["images"] = [image for image in truth["images"] if image["id"] in have]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in have]
    lvis = LVIS.__new__(LVIS)
    lvis.dataset, lvis.logger = truth, logging.getLogger("lvis")
    lvis._create_index()
    predictions = []
    for image_id in have:
        mine = [r for r in records if r["image_id"] == image_id]
        boxes = torch.tensor([r["bbox"] for r in mine])
        boxes[:, 2:] += boxes[:, :2]
        logits = torch.tensor([r["score"] for r in mine])
        proposals = Instances((128, 128), proposal_boxes=Boxes(boxes), objectness_logits=logits)
        predictions.append({"image_id": image_id, "proposals": proposals})
    ours = evaluate(truth, records, iou_types=["bbox"], metrics=["proposals"]).metrics
    areas = {"all": "", "small": "s", "medium": "m", "large": "l"}
    for area, suffix in areas.items():
        for limit in (100, 1000):
            theirs = evaluation._evaluate_box_proposals(predictions, lvis, area=area, limit=limit)
            expected = None if theirs["num_pos"] == 0 else float(theirs["ar"]) * 100
            value = ours[f"proposals/AR{suffix}@{limit}"]
            assert value == pytest.approx(expected, abs=1e-4)


def test_objects_of_images_without_proposals_are_missed(random_case):
    truth, records = shaken(random_case(5), 5)
    image = truth["annotations"][0]["image_id"]
    before = evaluate(truth, records, iou_types=["bbox"], metrics=["proposals"])
    fewer = [record for record in records if record["image_id"] != image]
    after = evaluate(truth, fewer, iou_types=["bbox"], metrics=["proposals"])
    assert after.support == before.support
    assert after.metrics["proposals/AR@100"] < before.metrics["proposals/AR@100"]


def test_no_proposals_and_no_objects(random_case):
    truth, records = random_case(5)
    metrics = evaluate(truth, [], iou_types=["bbox"], metrics=["proposals"]).metrics
    assert metrics["proposals/AR@100"] == 0
    truth["annotations"] = []
    metrics = evaluate(truth, records, iou_types=["bbox"], metrics=["proposals"]).metrics
    assert set(metrics.values()) == {None}


def test_boxes_are_needed(random_case):
    truth, records = random_case(5)
    del records[0]["bbox"]
    with pytest.raises(ResultsError, match="no 'bbox'"):
        evaluate(truth, records, iou_types=["segm"], metrics=["proposals"])
