"""Records for Detectron2: conversion, packing, registration, repeat factors."""

import json
import math
import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from eql_d2.data import encode_rle, load_detection_data
from eql_d2.errors import DataError, MissingPackageError

with suppress(MissingPackageError):
    from eql_d2.engines.d2.compat import (
        BoxMode,
        DatasetCatalog,
        DatasetMapper,
        MetadataCatalog,
        RepeatFactorTrainingSampler,
        get_cfg,
    )
    from eql_d2.engines.d2.datasets import (
        PackedDataset,
        needs_bitmasks,
        register,
        training_dicts,
    )
    from eql_d2.engines.d2.datasets import (
        test_dicts as records_to_test_on,
    )

pytestmark = pytest.mark.detectron2

TRIANGLE = [[4.0, 4.0, 24.0, 4.0, 4.0, 24.0]]


@pytest.fixture
def make_data(tmp_path):
    """Write a COCO file with sparse ids: image 1 is annotated, 2 has a crowd only, 3 nothing."""

    def make(segmentation=TRIANGLE):
        annotation = {"id": 1, "image_id": 1, "category_id": 9, "bbox": [4, 4, 20, 20], "area": 200}
        annotation |= {"iscrowd": 0, "segmentation": segmentation}
        other = {**annotation, "id": 2, "category_id": 5, "segmentation": TRIANGLE}
        crowd_mask = np.ones((32, 40), np.uint8)
        crowd = {**annotation, "id": 3, "image_id": 2, "iscrowd": 1}
        crowd["segmentation"] = encode_rle(crowd_mask)
        content = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "height": 32, "width": 40} for i in (1, 2, 3)
            ],
            "annotations": [annotation, other, crowd],
            "categories": [{"id": 9, "name": "nine"}, {"id": 5, "name": "five"}],
        }
        for i in (1, 2, 3):
            Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(tmp_path / f"{i}.png")
        (tmp_path / "data.json").write_text(json.dumps(content))
        return load_detection_data(tmp_path / "data.json", tmp_path)

    return make


def test_training_records(make_data, tmp_path):
    (record,) = training_dicts(make_data(), masks=True)
    assert record["file_name"] == str(tmp_path / "1.png")
    assert (record["image_id"], record["height"], record["width"]) == (1, 32, 40)
    assert [a["category_id"] for a in record["annotations"]] == [1, 0], "contiguous, by sorted id"
    assert record["annotations"][0]["bbox"] == [4, 4, 20, 20]
    assert record["annotations"][0]["bbox_mode"] == BoxMode.XYWH_ABS
    assert record["annotations"][0]["segmentation"] == TRIANGLE


def test_images_without_objects_are_left_out_unless_wanted(make_data):
    data = make_data()
    assert [r["image_id"] for r in training_dicts(data, masks=True)] == [1]
    kept = training_dicts(data, masks=True, keep_empty=True)
    assert [len(r["annotations"]) for r in kept] == [2, 0, 0], "a crowd is no training target"
    assert [r["image_id"] for r in records_to_test_on(data)] == [1, 2, 3]
    assert "annotations" not in records_to_test_on(data)[0]


def test_boxes_only(make_data):
    (record,) = training_dicts(make_data(), masks=False)
    assert all("segmentation" not in a for a in record["annotations"])


def test_nothing_to_train_on_is_an_error(make_data):
    data = make_data()
    for image in data.images:
        image.instances = [i for i in image.instances if i.iscrowd]
    with pytest.raises(DataError, match="no image has an annotation"):
        training_dicts(data, masks=True)


def test_run_length_coded_masks_reach_the_model(make_data):
    mask = np.zeros((32, 40), np.uint8)
    mask[4:24, 4:24] = 1
    polygons = training_dicts(make_data(), masks=True)
    mixed = training_dicts(make_data(encode_rle(mask)), masks=True)
    assert not needs_bitmasks(polygons)
    assert needs_bitmasks(mixed)
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (32,)
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MASK_FORMAT = "bitmask"
    instances = DatasetMapper(cfg, is_train=True)(mixed[0])["instances"]
    assert torch.equal(instances.gt_masks.tensor[0], torch.from_numpy(mask).bool())
    assert 150 < int(instances.gt_masks.tensor[1].sum()) < 250, "half of the 20 x 20 square"
    assert instances.gt_classes.tolist() == [1, 0]


def test_packed_records_are_the_records(make_data, tmp_path):
    records = training_dicts(make_data(), masks=True, keep_empty=True)
    packed = PackedDataset.write(records, tmp_path / "packed.bin")
    assert len(packed) == 3
    assert list(packed) == records
    assert packed[1] == records[1]
    for outside in (-1, 3):
        with pytest.raises(IndexError):
            packed[outside]


def test_packed_records_travel_as_a_path(tmp_path):
    records = [{"image_id": i, "blob": "x" * 10_000} for i in range(50)]
    packed = PackedDataset.write(records, tmp_path / "packed.bin")
    message = pickle.dumps(packed)
    assert len(message) < 1000, "the data would be copied to every worker"
    assert list(pickle.loads(message)) == records


def test_what_is_returned_is_not_shared(tmp_path):
    packed = PackedDataset.write([{"annotations": [1]}], tmp_path / "packed.bin")
    packed[0]["annotations"].clear()
    assert packed[0] == {"annotations": [1]}


@pytest.mark.parametrize("name", ["mydata_v1_train", "lvis_v0.5_of_mine"])
def test_registration_reads_nothing_from_the_name(make_data, name):
    data = make_data()
    try:
        assert register(data, name) == name
        register(data, name)  # again: replaces
        assert len(DatasetCatalog.get(name)) == 3
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_classes == ["five", "nine"]
        assert metadata.thing_dataset_id_to_contiguous_id == {5: 0, 9: 1}
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_repeat_factors_follow_the_rarest_category():
    def image(*labels):
        return {"annotations": [{"category_id": label} for label in labels]}

    # Of 8 images category 0 is in 8, 1 in 2, 2 in 1.
    records = [image(0)] * 5 + [image(0, 1), image(0, 1), image(0, 2, 2)]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.5)
    expected = [1.0] * 5 + [math.sqrt(0.5 / 0.25)] * 2 + [math.sqrt(0.5 / 0.125)]
    assert factors.tolist() == pytest.approx(expected)
