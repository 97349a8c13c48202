"""evaluate() against the official lvis code, and where the two differ on purpose."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from eql_d2.evaluation import evaluate


def box_truth(boxes, *, areas=None, categories=(1,), **image):
    """One image, 200 x 200, with one object of the first category for each box."""
    annotations = [
        {
            "id": i + 1,
            "image_id": 7,
            "category_id": categories[0],
            "bbox": list(box),
            "area": box[2] * box[3] if areas is None else areas[i],
        }
        for i, box in enumerate(boxes)
    ]
    fields = {"neg_category_ids": [], "not_exhaustive_category_ids": []} | image
    return {
        "images": [{"id": 7, "height": 200, "width": 200} | fields],
        "annotations": annotations,
        "categories": [{"id": c, "name": str(c), "frequency": "f"} for c in categories],
    }


def detection(box, score=0.5, category=1, image=7):
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


def rectangle_rle(x, y, w, h, size=200):
    mask = np.zeros((size, size), dtype=np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    rle = coco_mask.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


@pytest.mark.parametrize("first", range(0, 240, 24))
def test_random_cases_equal_lvis(first, random_case, assert_official):
    for seed in range(first, first + 24):
        assert_official(*random_case(seed))


def test_random_cases_are_not_trivial(random_case):
    """The parity above means something only if the metrics are defined and differ."""
    values = [evaluate(*random_case(seed)).metrics for seed in range(24)]
    for key in values[0]:
        defined = [v[key] for v in values if v[key] is not None]
        assert len(defined) >= 5
        assert len(set(defined)) >= 3


@pytest.mark.parametrize("seed", range(1000, 1008))
def test_more_than_300_detections_an_image_equal_lvis(seed, random_case, assert_official):
    truth, records = random_case(seed, number=700)
    truth["images"] = truth["images"][:1]
    image_id = truth["images"][0]["id"]
    for part in (truth["annotations"], records):
        for item in part:
            item["image_id"] = image_id
    assert_official(truth, records, ("bbox",))
    assert_official(truth, records[:350], ("segm",))


def test_limit_counts_over_all_categories():
    truth = box_truth([(0, 0, 10, 10)], categories=(1, 2, 3))
    others = [detection((50, 50, 9, 9), 0.9, category=2 + i % 2) for i in range(300)]
    records = [*others, detection((0, 0, 10, 10), 0.8)]
    assert evaluate(truth, records, iou_types=["bbox"]).metrics["bbox/AP"] == 0
    relaxed = evaluate(truth, records, iou_types=["bbox"], max_detections=301)
    assert relaxed.metrics["bbox/AP"] == pytest.approx(100)


@pytest.mark.parametrize("seed", range(2000, 2012))
def test_equal_scores_keep_file_order(seed, random_case, assert_official):
    truth, records = random_case(seed, number=40)
    for record in records:
        record["score"] = 0.5
    assert_official(truth, records)
    assert_official(truth, records[::-1])


@pytest.mark.parametrize("seed", range(3000, 3010))
def test_records_without_bbox_equal_lvis(seed, random_case, official):
    """lvis then takes the boxes around the masks, with the masks' areas."""
    truth, records = random_case(seed)
    for record in records:
        del record["bbox"]
    ours = evaluate(truth, records).metrics
    for kind in ("bbox", "segm"):
        theirs = official(truth, records, kind)
        del theirs["per_category"]
        assert {k: ours[f"{kind}/{k}"] for k in theirs} == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("shift", [0, 4])
def test_real_annotations_equal_lvis(shift, shared_data, assert_official):
    """Perturbed ground truth of LVIS v0.5 val as detections, with noise of other categories."""
    truth = json.loads((shared_data / "lvis_v0.5_val_100.json").read_text())
    rng = np.random.default_rng(shift)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    records = []
    for annotation in truth["annotations"]:
        for _ in range(int(rng.integers(0, 4))):
            category = annotation["category_id"]
            moved = np.array(annotation["bbox"]) + rng.normal(0, 1, 4) * shift
            moved[2:] = np.maximum(moved[2:], 1)
            polygons = [
                (np.array(polygon) + rng.normal(0, 0.3) * shift).tolist()
                for polygon in annotation["segmentation"]
            ]
            rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *sizes[annotation["image_id"]]))
            records.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": category if rng.random() < 0.8 else int(rng.integers(1, 1231)),
                    "bbox": moved.tolist(),
                    "score": float(rng.random()),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    assert len(records) > 1000
    assert_official(truth, records)


@pytest.mark.parametrize("shift", [-1, 1])
def test_shifted_category_ids_are_warned_of(shift, shared_data, caplog):
    truth = json.loads((shared_data / "lvis_v0.5_val_100.json").read_text())
    records = [
        detection(a["bbox"], 0.9, a["category_id"], a["image_id"]) for a in truth["annotations"]
    ]
    assert evaluate(truth, records, iou_types=["bbox"]).warnings == ()
    assert not caplog.records
    for record in records:
        record["category_id"] = (record["category_id"] + shift - 1) % 1230 + 1
    evaluation = evaluate(truth, records, iou_types=["bbox"])
    (warning,) = evaluation.warnings
    assert f"with category ids {-shift:+d}: are" in warning
    assert warning in evaluation.table()
    assert "are the category ids shifted?" in caplog.text


def test_shifted_ids_show_below_a_detectors_doubtful_detections(shared_data):
    """Most detections of a full limit are guesses of any category; the scores tell them apart."""
    truth = json.loads((shared_data / "lvis_v0.5_val_100.json").read_text())
    rng = np.random.default_rng(0)
    sure = [
        detection(a["bbox"], 0.5, a["category_id"], a["image_id"]) for a in truth["annotations"]
    ]
    doubtful = [
        detection(a["bbox"], 0.01, (a["category_id"] + shift) % 1230 + 1, a["image_id"])
        for a in truth["annotations"]
        for shift in rng.integers(-2, 1, 20).tolist()
    ]
    assert evaluate(truth, sure + doubtful, iou_types=["bbox"]).warnings == ()
    shifted = [r | {"category_id": r["category_id"] % 1230 + 1} for r in sure + doubtful]
    (warning,) = evaluate(truth, shifted, iou_types=["bbox"]).warnings
    assert "with category ids -1" in warning


def test_no_detections_at_all_are_warned_of():
    truth = box_truth([(0, 0, 9, 9)])
    said = "there are no detections in the evaluated images: AP is 0 where there are objects"
    assert evaluate(truth, [], iou_types=["bbox"]).warnings == (said,)
    truth["images"].append(truth["images"][0] | {"id": 77})
    elsewhere = [detection((0, 0, 9, 9))]
    assert evaluate(truth, elsewhere, iou_types=["bbox"], image_ids=[77]).warnings == (said,)


def test_noise_of_all_categories_is_no_shift(shared_data, caplog):
    truth = json.loads((shared_data / "lvis_v0.5_val_100.json").read_text())
    rng = np.random.default_rng(0)
    images = [image["id"] for image in truth["images"]]
    records = [
        detection((0, 0, 50, 50), float(rng.random()), int(rng.integers(1, 1231)), image)
        for image in images
        for _ in range(300)
    ]
    assert evaluate(truth, records, iou_types=["bbox"]).warnings == ()


def test_detections_that_do_not_count_are_warned_of(caplog):
    truth = box_truth([(0, 0, 50, 50)], categories=(1, 20, 300))
    records = [detection((0, 0, 50, 50), category=300) for _ in range(200)]
    (warning,) = evaluate(truth, records, iou_types=["bbox"]).warnings
    assert "200 of 200 detections are of categories that are neither annotated" in warning
    assert warning in caplog.text
    counting = [detection((0, 0, 50, 50)) for _ in range(3)]
    assert evaluate(truth, records + counting, iou_types=["bbox"]).warnings == ()


@pytest.mark.parametrize(
    ("side", "expected"),
    [(32, {"s", "m"}), (31, {"s"}), (33, {"m"}), (96, {"m", "l"}), (97, {"l"})],
)
def test_size_classes_include_both_ends(side, expected):
    box = (0, 0, side, side)
    metrics = evaluate(box_truth([box]), [detection(box)], iou_types=["bbox"]).metrics
    defined = {size for size in "sml" if metrics[f"bbox/AP{size}"] is not None}
    assert defined == expected
    assert all(metrics[f"bbox/AP{size}"] == pytest.approx(100) for size in expected)


def test_mask_area_decides_the_size_class_of_masks_even_with_a_bbox():
    """A large box around a small mask that matches nothing is no false positive of APl."""
    truth = box_truth([(0, 0, 100, 100)])
    truth["annotations"][0]["segmentation"] = [[0, 0, 100, 0, 100, 100, 0, 100]]
    wrong = detection((0, 0, 150, 150), 0.9) | {"segmentation": rectangle_rle(150, 150, 5, 5)}
    right = detection((0, 0, 100, 100), 0.5) | {"segmentation": rectangle_rle(0, 0, 100, 100)}
    metrics = evaluate(truth, [wrong, right]).metrics
    assert metrics["segm/APl"] == pytest.approx(100)
    assert metrics["segm/AP"] == pytest.approx(50)
    assert metrics["bbox/APl"] == pytest.approx(50)


def test_detections_without_label_are_dropped_and_not_exhaustive_ones_forgiven():
    box, far = (0, 0, 50, 50), (100, 100, 50, 50)
    records = [detection(far, 0.9, category=1), detection(box, 0.5, category=1)]
    ap = lambda truth, r: evaluate(truth, r, iou_types=["bbox"]).metrics["bbox/AP"]  # noqa: E731
    assert ap(box_truth([box]), records) == pytest.approx(50)
    forgiving = box_truth([box], not_exhaustive_category_ids=[1])
    assert ap(forgiving, records) == pytest.approx(100)

    two = box_truth([box], categories=(1, 2))
    second = {"id": 8, "height": 200, "width": 200, "not_exhaustive_category_ids": []}
    two["images"].append(second | {"neg_category_ids": []})
    records = [detection(box, 0.9, image=8), detection(box, 0.5)]
    assert ap(two, records) == pytest.approx(100)
    two["images"][1]["neg_category_ids"] = [1]
    assert ap(two, records) == pytest.approx(50)


def test_no_detections_is_zero_and_no_objects_is_undefined():
    some = evaluate(box_truth([(0, 0, 50, 50)]), [], iou_types=["bbox"]).metrics
    assert some["bbox/AP"] == some["bbox/APm"] == some["bbox/APf"] == 0
    assert some["bbox/APs"] is None
    assert some["bbox/APr"] is None
    for records in ([], [detection((0, 0, 9, 9))]):
        none = evaluate(box_truth([]), records, iou_types=["bbox"]).metrics
        assert set(none.values()) == {None}
    no_images = {"images": [], "annotations": [], "categories": []}
    assert set(evaluate(no_images, []).metrics.values()) == {None}


def test_annotation_id_zero_is_an_ordinary_object():
    """lvis takes a match with the id 0 for no match."""
    truth = box_truth([(0, 0, 50, 50)])
    truth["annotations"][0]["id"] = 0
    metrics = evaluate(truth, [detection((0, 0, 50, 50))], iou_types=["bbox"]).metrics
    assert metrics["bbox/AP"] == pytest.approx(100)
