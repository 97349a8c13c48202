"""The official evaluation as an oracle, and random federated annotations with detections."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

Json = dict[str, Any]
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
BOX_SIDES = (0, 5, 16, 31, 32, 33, 64, 95, 96, 97, 120)  # 32 and 96 bound the size classes


@pytest.fixture
def lvis_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``lvis_run(annotations, records, kind)`` -> ``lvis.LVISEval`` of lvis 0.5.3 after its work.

    ``max_dets`` is its limit per image, -1 for none; ``iou(detection masks, object masks)`` takes
    the place of its IoU; ``use_cats=0`` merges the categories, which it cannot summarize.
    """
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis predates NumPy 1.24
    lvis = pytest.importorskip("lvis")
    logging.getLogger("lvis").setLevel(logging.ERROR)

    class Evaluation(lvis.LVISEval):
        iou = None

        def _get_gt_dt(self, img_id, cat_id):
            if self.params.use_cats:
                return super()._get_gt_dt(img_id, cat_id)
            # lvis means this, but looks for the category -1 and so finds nothing at all
            keys = [(img_id, c) for c in self.params.cat_ids]
            return tuple([x for key in keys for x in part[key]] for part in (self._gts, self._dts))

        def compute_iou(self, img_id, cat_id):
            gt, dt = self._get_gt_dt(img_id, cat_id)
            if self.iou is None or not gt or not dt:
                return super().compute_iou(img_id, cat_id)
            dt = [dt[i] for i in np.argsort([-d["score"] for d in dt], kind="mergesort")]
            return self.iou([d["segmentation"] for d in dt], [g["segmentation"] for g in gt])

    def run(
        annotations: Json,
        records: list[Json],
        kind: str,
        *,
        max_dets: int = 300,
        use_cats: int = 1,
        iou: Callable[..., Any] | None = None,
    ) -> Any:
        truth = lvis.LVIS.__new__(lvis.LVIS)
        truth.logger = logging.getLogger("lvis")
        truth.dataset = copy.deepcopy(annotations)
        truth._create_index()
        records = copy.deepcopy(records)
        if kind == "segm":  # as Detectron2 does, so that mask areas decide the size class
            for record in records:
                record.pop("bbox", None)
        evaluation = Evaluation(truth, lvis.LVISResults(truth, records, max_dets), kind)
        evaluation.iou = iou
        evaluation.params.use_cats = use_cats
        evaluation.evaluate()
        evaluation.accumulate()
        if use_cats:
            evaluation.summarize()
        return evaluation

    return run


def percent(value: float) -> float | None:
    """A number of lvis or pycocotools, where -1 is undefined, in percent."""
    return None if value == -1 else value * 100


@pytest.fixture
def official(lvis_run: Callable[..., Any]) -> Callable[[Json, list[Json], str], dict[str, Any]]:
    """``lvis`` 0.5.3 on parsed json: metric -> percent or None, and "per_category"."""

    def run(annotations: Json, records: list[Json], kind: str, **options: Any) -> dict[str, Any]:
        evaluation = lvis_run(annotations, records, kind, **options)
        results = {name: percent(evaluation.results[name]) for name in METRICS}
        precision = evaluation.eval["precision"][..., 0]
        results["per_category"] = [
            None if part.max() == -1 else part.mean() * 100 for part in np.moveaxis(precision, 2, 0)
        ]
        return results

    return run


@pytest.fixture
def assert_official(official):
    """Assert that all metrics of this package are those of lvis, to 1e-12 of a percent."""
    from eql_d2.evaluation import evaluate

    def check(annotations: Json, records: list[Json], kinds=("bbox", "segm")) -> None:
        ours = evaluate(annotations, records, iou_types=kinds)
        for kind in kinds:
            theirs = official(annotations, records, kind)
            ap = [row.ap[kind] for row in ours.categories]
            assert ap == pytest.approx(theirs.pop("per_category"), abs=1e-12)
            assert {name: ours.metrics[f"{kind}/{name}"] for name in theirs} == pytest.approx(
                theirs, abs=1e-12
            )

    return check


def _random_mask(rng: np.random.Generator, box: list[float], size: int) -> np.ndarray:
    """A rectangle, sometimes with a missing corner, sometimes outside the image and so empty."""
    mask = np.zeros((size, size), dtype=np.uint8, order="F")
    x, y, w, h = (round(v) for v in box)
    mask[y : y + h, x : x + w] = 1
    if rng.random() < 0.5:
        mask[y : y + h // 2, x : x + w // 2] = 0
    return mask


def _rle(mask: np.ndarray) -> Json:
    rle = coco_mask.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _random_box(rng: np.random.Generator, size: int) -> list[float]:
    w, h = rng.choice(BOX_SIDES, 2).tolist()
    if rng.random() < 0.3:
        h = w
    return [float(rng.integers(0, size - w + 1)), float(rng.integers(0, size - h + 1)), w, h]


def _random_truth(rng: np.random.Generator, size: int) -> Json:
    num_images, num_categories = int(rng.integers(1, 6)), int(rng.integers(1, 7))
    category_ids = rng.choice(50, num_categories, replace=False).tolist()
    image_ids = rng.choice(10_000, num_images, replace=False).tolist()
    some = lambda p: [c for c in category_ids if rng.random() < p]  # noqa: E731
    images = [
        {
            "id": image_id,
            "height": size,
            "width": size,
            "neg_category_ids": [*some(0.4), 999],
            "not_exhaustive_category_ids": some(0.2),
        }
        for image_id in image_ids
    ]
    annotations = []
    for number in range(int(rng.integers(0, 14))):
        box = _random_box(rng, size)
        mask = _random_mask(rng, box, size)
        annotation = {
            "id": number + 1,
            "image_id": int(rng.choice(image_ids)),
            "category_id": int(rng.choice(category_ids)),
            "bbox": box,
            "area": float(rng.choice([mask.sum(), 1024.0, 9216.0])) if box[2] * box[3] else 0,
            "segmentation": _rle(mask),
        }
        if rng.random() < 0.15:
            annotation["ignore"] = int(rng.integers(0, 2))
        if rng.random() < 0.15:
            annotation["iscrowd"] = 1
        if rng.random() < 0.3 and box[2] * box[3]:
            x, y, w, h = box
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(annotation)
    categories = [
        {"id": c, "name": f"category {c}", "frequency": str(rng.choice(["r", "c", "f"]))}
        for c in category_ids
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _random_records(rng: np.random.Generator, truth: Json, number: int, size: int) -> list[Json]:
    """Perturbed objects and noise; few distinct scores, so that ties are common."""
    image_ids = [image["id"] for image in truth["images"]]
    category_ids = [category["id"] for category in truth["categories"]]
    levels = int(rng.choice([3, 10, 1000]))
    records = []
    for _ in range(number):
        box, image, category = _random_box(rng, size), rng.choice(image_ids), None
        if truth["annotations"] and rng.random() < 0.7:
            target = truth["annotations"][rng.integers(len(truth["annotations"]))]
            image, category, box = target["image_id"], target["category_id"], list(target["bbox"])
            shift = int(rng.choice([0, 0, 1, 4]))
            box[0] = min(box[0] + shift, size - box[2])
        if category is None or rng.random() < 0.1:
            category = rng.choice(category_ids)
        records.append(
            {
                "image_id": int(image),
                "category_id": int(category),
                "score": float(rng.integers(levels)) / levels,
                "bbox": box,
                "segmentation": _rle(_random_mask(rng, box, size)),
            }
        )
    return records


@pytest.fixture
def random_case() -> Callable[..., tuple[Json, list[Json]]]:
    """``random_case(seed, number of detections)`` -> annotations, detections."""

    def make(seed: int, number: int | None = None, size: int = 128) -> tuple[Json, list[Json]]:
        rng = np.random.default_rng(seed)
        truth = _random_truth(rng, size)
        if number is None:
            number = int(rng.integers(1, 60))
        return truth, _random_records(rng, truth, number, size)

    return make
