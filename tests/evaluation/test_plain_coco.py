"""Plain COCO files: every absent category is known to be absent, and crowds are ignored."""

import copy

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from eql_d2.evaluation import evaluate


@pytest.mark.parametrize("seed", range(4000, 4012))
def test_plain_coco_file_means_every_category_is_negative(seed, random_case, assert_official):
    truth, records = random_case(seed)
    for annotation in truth["annotations"]:
        annotation.pop("iscrowd", None)
    for image in truth["images"]:
        image["neg_category_ids"] = [category["id"] for category in truth["categories"]]
        image["not_exhaustive_category_ids"] = []
    assert_official(truth, records)
    plain = copy.deepcopy(truth)
    for image in plain["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    assert evaluate(plain, records) == evaluate(truth, records)


@pytest.mark.parametrize("seed", range(5000, 5016))
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_crowds_of_plain_coco_files_as_in_pycocotools(seed, kind, random_case):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, records = random_case(seed)
    for image in truth["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    for annotation in truth["annotations"]:
        annotation.pop("ignore", None)
        annotation["iscrowd"] = int(annotation["id"] % 3 == 0)
    # pycocotools keeps what has no area, lvis and we leave it out
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] > 0]
    area = lambda r: coco_mask.area(r["segmentation"]) if kind == "segm" else np.prod(r["bbox"][2:])  # noqa: E731
    records = [r for r in records if area(r) > 0]
    if not records or not truth["annotations"]:
        return
    coco = COCO()
    coco.dataset = copy.deepcopy(truth)
    coco.createIndex()
    loaded = copy.deepcopy(records)
    if kind == "segm":
        for record in loaded:
            del record["bbox"]
    reference = COCOeval(coco, coco.loadRes(loaded), kind)
    reference.params.maxDets = [300]
    reference.evaluate()
    reference.accumulate()
    precision = reference.eval["precision"][..., 0]
    metrics = evaluate(truth, records, iou_types=[kind]).metrics
    for a, name in enumerate(("AP", "APs", "APm", "APl")):
        part = precision[..., a][precision[..., a] > -1]
        expected = part.mean() * 100 if len(part) else None
        assert metrics[f"{kind}/{name}"] == pytest.approx(expected, abs=1e-12)
