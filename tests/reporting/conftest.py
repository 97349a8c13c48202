"""Finished runs of a small data set, as train_net.py leaves them."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from eql_d2.evaluation import evaluate

NAMES = ("cup", "plate", '<b>fork</b> & "knife"', "spoon", "bowl", "lamp")
GROUPS = "rrrccf"
SIDE, IMAGES = 64, 24


def rle(box):
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
    x, y, w, h = (round(v) for v in box)
    mask[max(y, 0) : y + h, max(x, 0) : x + w] = 1
    encoded = coco_mask.encode(mask)
    return {"size": [SIDE, SIDE], "counts": encoded["counts"].decode()}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Annotations (file, parsed) and folder of the images."""
    folder = tmp_path_factory.mktemp("report_data")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(1, IMAGES + 1):
        images.append(
            {"id": i, "file_name": f"{i:03d}.png", "height": SIDE, "width": SIDE,
             "neg_category_ids": [1, 2, 3, 4, 5, 6], "not_exhaustive_category_ids": []}
        )  # fmt: skip
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        for category in {1 + i % 3, 4 + i % 3}:
            x, y = rng.integers(0, 30, 2).tolist()
            w, h = rng.integers(12, 30, 2).tolist()
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": category,
                 "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
                 "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            )  # fmt: skip
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": k + 1, "name": name, "frequency": group}
            for k, (name, group) in enumerate(zip(NAMES, GROUPS, strict=True))
        ],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return folder / "truth.json", content, folder


def detect(content, seed, found):
    """Objects moved by a pixel or two; the cup is found by nobody, and taken for a bowl."""
    rng = np.random.default_rng(seed)
    records = []
    for a in content["annotations"]:
        if rng.random() < found:
            shift = rng.integers(-2, 3, 2).tolist()
            box = [a["bbox"][0] + shift[0], a["bbox"][1] + shift[1], *a["bbox"][2:]]
            category = 5 if a["category_id"] == 1 else a["category_id"]
            records.append(
                {"image_id": a["image_id"], "category_id": category, "bbox": box,
                 "score": float(rng.uniform(0.2, 1)), "segmentation": rle(box)}
            )  # fmt: skip
    return records


@pytest.fixture(scope="session")
def make_run(dataset, tmp_path_factory):
    """``make_run(name, seed, found)`` -> its folder."""
    root = tmp_path_factory.mktemp("runs")

    def make(name, seed=0, found=0.8, log=True, results=True):
        run = root / name
        if run.is_dir():
            return run
        records = detect(dataset[1], seed, found)
        evaluate(dataset[1], records).write(run)
        if results:
            (run / "inference").mkdir()
            (run / "inference/lvis_instances_results.json").write_text(json.dumps(records))
        if log:
            lines = [
                {"iteration": i, "total_loss": 3 / (i + 1), "loss_cls": 1 / (i + 1), "lr": 0.1}
                for i in range(0, 1000, 2)
            ]
            text = "\n".join(map(json.dumps, lines)) + "\n"
            (run / "metrics.jsonl").write_text(text)
        return run

    return make
