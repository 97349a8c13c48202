"""COCO's twelve numbers against pycocotools; metrics without categories against lvis and it."""

import contextlib
import copy
import io

import numpy as np
import pytest

from eql_d2.errors import UserError
from eql_d2.evaluation import evaluate

TWELVE = (
    *("AP_coco", "AP50_coco", "AP75_coco", "APs_coco", "APm_coco", "APl_coco"),
    *("AR_coco@1", "AR_coco@10", "AR_coco@100", "ARs_coco@100", "ARm_coco@100", "ARl_coco@100"),
)


def plain(case, crowds=True):
    """The case as exhaustively annotated data."""
    truth, records = case
    for image in truth["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = int(crowds and annotation["id"] % 3 == 0)
        annotation["area"] = float(annotation["area"])
    return truth, records


def pycocotools_numbers(truth, records, kind, use_cats=True):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        loaded = copy.deepcopy(records)
        if kind == "segm":
            for record in loaded:
                del record["bbox"]
        evaluation = COCOeval(coco, coco.loadRes(loaded), kind)
        evaluation.params.useCats = use_cats
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if v == -1 else v * 100 for v in evaluation.stats]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(30))
def test_coco_equals_pycocotools(seed, kind, random_case):
    """With ``ignore`` fields, crowds, and objects and detections without area."""
    truth, records = plain(random_case(seed))
    ours = evaluate(truth, records, iou_types=[kind], metrics=["coco"]).metrics
    theirs = pycocotools_numbers(truth, records, kind)
    assert ours == pytest.approx(
        {f"{kind}/{name}": v for name, v in zip(TWELVE, theirs, strict=True)}, abs=1e-12
    )


def test_the_cases_have_what_they_are_to_show(random_case):
    cases = [plain(random_case(seed)) for seed in range(30)]
    objects = [a for truth, _ in cases for a in truth["annotations"]]
    assert any(a.get("ignore") and not a["iscrowd"] for a in objects)
    assert any(a["area"] == 0 and not a["iscrowd"] for a in objects)
    assert any(a["iscrowd"] for a in objects)
    assert any(r["bbox"][2] * r["bbox"][3] == 0 for _, records in cases for r in records)
    names = [name for name in TWELVE if "@1" not in name or name == "AR_coco@1"]
    values = [evaluate(*case, iou_types=["bbox"], metrics=["coco"]).metrics for case in cases]
    for name in names:
        assert len({v[f"bbox/{name}"] for v in values}) >= 4


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_more_than_100_detections_of_a_category(seed, kind, random_case):
    truth, records = plain(random_case(seed, number=420))
    truth["images"] = truth["images"][:1]
    truth["categories"] = truth["categories"][:2]
    for i, item in enumerate([*truth["annotations"], *records]):
        item["image_id"] = truth["images"][0]["id"]
        item["category_id"] = truth["categories"][i % len(truth["categories"])]["id"]
    ours = evaluate(truth, records, iou_types=[kind], metrics=["coco"]).metrics
    theirs = pycocotools_numbers(truth, records, kind)
    assert list(ours.values()) == pytest.approx(theirs, abs=1e-12)
    less = evaluate(truth, records[:50], iou_types=[kind], metrics=["coco"]).metrics
    assert less != ours


def test_real_annotations_equal_pycocotools(shared_data):
    """Perturbed boxes of LVIS v0.5 annotations, taken as if they were exhaustive."""
    import json

    truth = json.loads((shared_data / "lvis_v0.5_val_100.json").read_text())
    for image in truth["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    rng = np.random.default_rng(0)
    records = []
    for a in truth["annotations"]:
        a["iscrowd"] = 0
        for _ in range(int(rng.integers(0, 4))):
            box = np.array(a["bbox"]) + rng.normal(0, 4, 4)
            box[2:] = np.maximum(box[2:], 1)
            records.append(
                {
                    "image_id": a["image_id"],
                    "category_id": a["category_id"],
                    "bbox": box.tolist(),
                    "score": float(rng.random()),
                }
            )
    ours = evaluate(truth, records, iou_types=["bbox"], metrics=["coco"]).metrics
    theirs = pycocotools_numbers(truth, records, "bbox")
    assert 5 < ours["bbox/AP_coco"] < 95
    assert list(ours.values()) == pytest.approx(theirs, abs=1e-12)


def test_zero_area_counts_for_coco_alone(random_case):
    truth, records = plain(random_case(2))
    together = evaluate(truth, records, metrics=["ap", "ar", "coco"]).metrics
    assert {k: v for k, v in together.items() if "coco" not in k} == evaluate(
        truth, records, metrics=["ap", "ar"]
    ).metrics


def test_federated_annotations_are_refused(random_case):
    with pytest.raises(UserError, match="exhaustively annotated"):
        evaluate(*random_case(2), metrics=["ap", "coco"])


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(30))
def test_agnostic_equals_lvis_without_categories(seed, kind, random_case, lvis_run):
    truth, records = random_case(seed)
    evaluation = lvis_run(truth, records, kind, use_cats=0)
    precision, recall = evaluation.eval["precision"][:, :, 0], evaluation.eval["recall"][:, 0]
    mean = lambda part: None if part.max() == -1 else part.mean() * 100  # noqa: E731
    expected = {"AP": mean(precision[..., 0])}
    expected |= {"AP50": mean(precision[0, :, 0]), "AP75": mean(precision[5, :, 0])}
    expected |= {f"AP{size}": mean(precision[..., a]) for a, size in enumerate("sml", 1)}
    expected = {f"{kind}/{name}_agnostic": value for name, value in expected.items()}
    for a, size in enumerate(("", "s", "m", "l")):
        expected[f"{kind}/AR{size}_agnostic@300"] = mean(recall[:, a])
    ours = evaluate(truth, records, iou_types=[kind], metrics=["agnostic"]).metrics
    assert ours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_agnostic_equals_pycocotools_without_categories(seed, random_case):
    """On plain data, where no object or detection lacks area and 100 are enough."""
    truth, records = plain(random_case(seed), crowds=True)
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] > 0]
    for annotation in truth["annotations"]:
        annotation.pop("ignore", None)
    records = [r for r in records if r["bbox"][2] * r["bbox"][3] > 0]
    theirs = pycocotools_numbers(truth, records, "bbox", use_cats=False)
    ours = evaluate(
        truth, records, iou_types=["bbox"], metrics=["agnostic"], max_detections=100
    ).metrics
    names = [name.replace("_coco", "_agnostic") for name in TWELVE]
    for name, value in zip(names, theirs, strict=True):
        if name not in ("AR_agnostic@1", "AR_agnostic@10"):
            assert ours[f"bbox/{name}"] == pytest.approx(value, abs=1e-12)


def test_confused_categories_are_forgiven():
    box = [0, 0, 50, 50]
    truth = {
        "images": [{"id": 1, "height": 99, "width": 99}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 2500}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    records = [{"image_id": 1, "category_id": 2, "bbox": box, "score": 0.5}]
    evaluation = evaluate(truth, records, iou_types=["bbox"], metrics=["ap", "agnostic"])
    assert evaluation.metrics["bbox/AP"] == 0
    assert evaluation.metrics["bbox/AP_agnostic"] == pytest.approx(100)
    assert evaluation.support["AP_agnostic"] == "1 objects"
