"""Every metric that lvis or pycocotools has, on data that hypothesis makes and shrinks.

``EVALUATION_EXAMPLES=5000`` in the environment runs so many cases of each test.
"""

import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from eql_d2.evaluation import evaluate

SIZE = 110
EXAMPLES = int(os.environ.get("EVALUATION_EXAMPLES", "60"))
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
RECALLS = ("AR@300", "ARs@300", "ARm@300", "ARl@300")
search = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

sides = st.sampled_from([0, 1, 31, 32, 33, 60, 96])
boxes = st.tuples(st.integers(0, 9), st.integers(0, 9), sides, sides)
places = st.tuples(st.integers(0, 2), st.integers(0, 2))  # image and category


def rle(box, notch):
    x, y, w, h = box
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    mask[y : y + notch * h // 8, x : x + w // 2] = 0
    code = coco_mask.encode(mask)
    return {"size": code["size"], "counts": code["counts"].decode()}, int(mask.sum())


@st.composite
def federated(draw):
    """Annotations and detections: up to 3 images and categories, many ties and shared boxes."""
    some = st.lists(st.sampled_from([5, 2, 9]), unique=True, max_size=3)
    images = [
        {
            "id": image_id,
            "height": SIZE,
            "width": SIZE,
            "neg_category_ids": draw(some),
            "not_exhaustive_category_ids": draw(some),
        }
        for image_id in (30, 10, 20)
    ]
    shared = draw(st.lists(boxes, min_size=1, max_size=3))
    shape = st.tuples(places, st.sampled_from(shared) | boxes, st.integers(0, 4))
    objects = []
    for place, box, notch in draw(st.lists(shape, max_size=7)):
        code, area = rle(box, notch)
        objects.append(
            {
                "id": len(objects) + 1,
                "image_id": images[place[0]]["id"],
                "category_id": [5, 2, 9][place[1]],
                "bbox": [float(v) for v in box],
                "area": float(draw(st.sampled_from([area, area, 1024, 9216]))),
                "segmentation": code,
                "ignore": draw(st.sampled_from([0, 0, 0, 1])),
            }
        )
    records = []
    for place, box, notch in draw(st.lists(shape, min_size=1, max_size=14)):
        records.append(
            {
                "image_id": images[place[0]]["id"],
                "category_id": [5, 2, 9][place[1]],
                "score": draw(st.sampled_from([0.2, 0.5, 0.5, 0.9])),
                "bbox": [float(v) for v in box],
                "segmentation": rle(box, notch)[0],
            }
        )
    groups = draw(st.tuples(*[st.sampled_from("rcf")] * 3))
    categories = [
        {"id": c, "name": str(c), "frequency": g} for c, g in zip([5, 2, 9], groups, strict=True)
    ]
    return {"images": images, "annotations": objects, "categories": categories}, records


def percent(results, names):
    return [None if results[name] == -1 else results[name] * 100 for name in names]


@search
@given(federated(), st.sampled_from(["bbox", "segm"]))
def test_ap_and_ar_equal_lvis(lvis_run, case, kind):
    theirs = lvis_run(*case, kind).results
    ours = evaluate(*case, iou_types=[kind], metrics=["ap", "ar"]).metrics
    names = (*NAMES, *RECALLS)
    assert [ours[f"{kind}/{n}"] for n in names] == pytest.approx(percent(theirs, names), abs=1e-12)


@search
@given(federated(), st.sampled_from(["bbox", "segm"]), st.integers(1, 6))
def test_limits_equal_lvis(lvis_run, case, kind, limit):
    """``limit`` detections of an image for AP and AR, of a category for AP_fixed."""
    truth, records = case
    theirs = lvis_run(truth, records, kind, max_dets=limit).results
    ours = evaluate(
        truth,
        records,
        iou_types=[kind],
        metrics=["ap", "ar", "fixed"],
        max_detections=limit,
        max_per_category=limit,
    ).metrics
    expected = percent(theirs, [*NAMES, "AR@300"])  # its name whatever the limit
    assert [ours[f"{kind}/{n}"] for n in (*NAMES, f"AR@{limit}")] == pytest.approx(
        expected, abs=1e-12
    )
    cut = [
        record
        for c in (5, 2, 9)
        for record in sorted(
            (r for r in records if r["category_id"] == c), key=lambda r: -r["score"]
        )[:limit]
    ]
    theirs = lvis_run(truth, cut, kind, max_dets=-1).results
    fixed = [ours[f"{kind}/{name}_fixed"] for name in NAMES]
    assert fixed == pytest.approx(percent(theirs, NAMES), abs=1e-12)


@search
@given(federated(), st.sampled_from(["bbox", "segm"]))
def test_ap_without_categories_equals_lvis(lvis_run, case, kind):
    theirs = lvis_run(*case, kind, use_cats=0).eval["precision"][:, :, 0, 0]
    ours = evaluate(*case, iou_types=[kind], metrics=["agnostic"]).metrics[f"{kind}/AP_agnostic"]
    expected = None if theirs.max() == -1 else theirs.mean() * 100
    assert ours == pytest.approx(expected, abs=1e-12)


def with_empty_runs(rng, rle):
    """The same mask with some of its runs cut in two by a run of no pixels."""
    height, width = rle["size"]
    flat = coco_mask.decode(rle).ravel(order="F")
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), height * width]
    runs = [0] * int(flat[0]) + np.diff(edges).tolist()
    for i in sorted(rng.integers(len(runs), size=rng.integers(3)).tolist(), reverse=True):
        part = int(rng.integers(runs[i] + 1))
        runs[i : i + 1] = [part, 0, runs[i] - part]
    return coco_mask.frPyObjects({"size": rle["size"], "counts": runs}, height, width)


@search
@given(federated(), st.integers(0, 2**32 - 1))
def test_masks_with_empty_runs_equal_lvis(lvis_run, case, seed):
    """pycocotools stops comparing two masks where such runs meet; lvis takes what it says."""
    rng = np.random.default_rng(seed)
    for record in (*case[0]["annotations"], *case[1]):
        code = with_empty_runs(rng, record["segmentation"])
        record["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
    theirs = lvis_run(*case, "segm").results
    ours = evaluate(*case, iou_types=["segm"]).metrics
    assert [ours[f"segm/{n}"] for n in NAMES] == pytest.approx(percent(theirs, NAMES), abs=1e-12)


def perturbed(truth, seed, shift):
    """Moved copies of the objects as detections, a fifth with another category."""
    rng = np.random.default_rng(seed)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for annotation in truth["annotations"]:
        for _ in range(int(rng.integers(0, 3))):
            category = annotation["category_id"]
            box = np.array(annotation["bbox"]) + rng.normal(0, 1, 4) * shift
            box[2:] = np.maximum(box[2:], 1)
            polygons = [
                (np.array(p) + rng.normal(0, 0.3) * shift).tolist()
                for p in annotation["segmentation"]
            ]
            code = coco_mask.merge(coco_mask.frPyObjects(polygons, *sizes[annotation["image_id"]]))
            yield {
                "image_id": annotation["image_id"],
                "category_id": category if rng.random() < 0.8 else int(rng.integers(1, 1231)),
                "bbox": box.tolist(),
                "score": float(rng.random()),
                "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
            }


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_real_annotations(kind, shared_data, lvis_run):
    """AP, AR and AP_fixed on LVIS v0.5 val; AP_pool and Boundary AP are lower, as they must be."""
    truth = json.loads((shared_data / "lvis_v0.5_val_100.json").read_text())
    truth["images"] = truth["images"][:40]
    ids = {image["id"] for image in truth["images"]}
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in ids]
    records = list(perturbed(truth, 0, 3))
    assert len(records) > 300
    theirs = lvis_run(truth, records, kind).results
    ours = evaluate(
        truth, records, iou_types=[kind], metrics=["ap", "ar", "fixed", "pool", "agnostic"]
    ).metrics
    names = (*NAMES, *RECALLS)
    assert [ours[f"{kind}/{n}"] for n in names] == pytest.approx(percent(theirs, names), abs=1e-12)
    fixed = [ours[f"{kind}/{n}_fixed"] for n in NAMES]  # no limit is reached
    assert fixed == pytest.approx(percent(theirs, NAMES), abs=1e-12)
    assert 10 < ours[f"{kind}/AP_pool"] < 90
    assert ours[f"{kind}/AP_agnostic"] > ours[f"{kind}/AP_pool"]
    if kind == "segm":
        boundary = evaluate(truth, records, iou_types=["boundary"]).metrics["boundary/AP"]
        assert 5 < boundary < ours["segm/AP"]
