"""A small federated data set, detections for it, and the official evaluation."""

import copy
import json
import logging
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask

SIZES = {3: (40, 60), 5: (32, 32), 8: (50, 30)}  # image id -> height, width
CATEGORY_IDS = (2, 3, 4, 10, 11)


def encode(box, height, width):
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    x, y, w, h = (int(v) for v in box)
    mask[y : y + h, x : x + w] = 1
    rle = coco_mask.encode(mask)
    return {"size": [height, width], "counts": rle["counts"].decode()}


@pytest.fixture
def truth():
    """Three images, five categories with a gap in their ids, two objects an image."""
    images = [
        {
            "id": image_id,
            "height": height,
            "width": width,
            "neg_category_ids": [3, 11],
            "not_exhaustive_category_ids": [],
        }
        for image_id, (height, width) in SIZES.items()
    ]
    annotations = [
        {
            "id": 2 * i + k + 1,  # lvis takes a match with id 0 for none
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [2.0, 3.0, 10.0, 12.0],
            "area": 120.0,
            "segmentation": encode([2, 3, 10, 12], *SIZES[image_id]),
        }
        for i, image_id in enumerate(SIZES)
        for k, category_id in enumerate((2, 10))
    ]
    categories = [{"id": c, "name": f"name {c}", "frequency": "r"} for c in CATEGORY_IDS]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def make_records():
    """``make_records(number, seed)``: valid detections of all images, all different."""

    def make(number=24, seed=0):
        rng = np.random.default_rng(seed)
        records = []
        for i in range(number):
            image_id = list(SIZES)[i % len(SIZES)]
            height, width = SIZES[image_id]
            w, h = rng.integers(1, 20, 2).tolist()
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            records.append(
                {
                    "image_id": image_id,
                    "category_id": int(rng.choice(CATEGORY_IDS)),
                    "score": float(np.float32(rng.random())),
                    "bbox": [x + 0.25, float(y), w - 0.5, float(h)],
                    "segmentation": encode([x, y, w, h], height, width),
                }
            )
        return records

    return make


@pytest.fixture
def many_categories():
    """Annotations of 30 categories in 60 images, and what a working detector finds there."""
    rng = np.random.default_rng(0)
    truth = {
        "images": [
            {
                "id": i,
                "height": 40,
                "width": 60,
                "neg_category_ids": rng.integers(1, 31, 4).tolist(),
            }
            for i in range(60)
        ],
        "categories": [{"id": c, "name": f"name {c}", "frequency": "r"} for c in range(1, 31)],
        "annotations": [],
    }
    records = []
    for image in range(60):
        shown = rng.choice(30, 3, replace=False) + 1
        found = [*((c, 0.3) for c in shown.tolist()), *((c, 0.02) for c in rng.integers(1, 31, 9))]
        for category in shown.tolist():
            annotation = {"id": len(truth["annotations"]) + 1, "image_id": image, "area": 120.0}
            annotation |= {"category_id": category, "bbox": [2.0, 3.0, 10.0, 12.0]}
            truth["annotations"].append(annotation)
        for number, (category, score) in enumerate(found):
            box = [2.0 + number, 3.0, 10.0, 12.0]
            record = {"image_id": image, "category_id": int(category), "score": score, "bbox": box}
            records.append(record)
    return truth, records


@pytest.fixture
def official_ap(monkeypatch):
    """``official_ap(truth, records, kind)``: AP of lvis 0.5.3 in percent, None if undefined."""
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis predates NumPy 1.24
    lvis = pytest.importorskip("lvis")
    logging.getLogger("lvis").setLevel(logging.ERROR)

    def run(truth, records, kind):
        annotations = lvis.LVIS.__new__(lvis.LVIS)
        annotations.logger = logging.getLogger("lvis")
        annotations.dataset = copy.deepcopy(truth)
        annotations._create_index()
        unused = "bbox" if kind == "segm" and "segmentation" in records[0] else None
        records = [{k: v for k, v in record.items() if k != unused} for record in records]
        results = lvis.LVISResults(annotations, copy.deepcopy(records))
        evaluation = lvis.LVISEval(annotations, results, kind)
        evaluation.run()
        ap = evaluation.results["AP"]
        return None if ap == -1 else ap * 100

    return run


@pytest.fixture(params=["orjson", "json"])
def encoder(request, monkeypatch):
    """With and without orjson."""
    if request.param == "json":
        monkeypatch.setitem(sys.modules, "orjson", None)
    else:
        pytest.importorskip("orjson")


@pytest.fixture
def files(tmp_path, truth, make_records):
    """``files(records)`` -> paths of annotations and results, with AP between 0 and 100."""

    def write(records=None):
        if records is None:
            records = near_objects(truth, make_records)
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        (tmp_path / "results.json").write_text(json.dumps(records))
        return tmp_path / "truth.json", tmp_path / "results.json"

    return write


def near_objects(truth, make_records, number=90):
    """Half of the records are moved copies of objects."""
    rng = np.random.default_rng(7)
    records = make_records(number)
    for i in range(0, number, 2):
        target = truth["annotations"][i % len(truth["annotations"])]
        moved = np.array(target["bbox"]) + rng.random(4) * [1, 1, 3, 3]
        records[i] |= {
            "image_id": target["image_id"],
            "category_id": target["category_id"],
            "bbox": moved.astype(np.float32).astype(float).tolist(),
            "segmentation": target["segmentation"],
        }
    return records
