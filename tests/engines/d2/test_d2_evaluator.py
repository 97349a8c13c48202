"""Detections on disk: conversion, shards, and their one results file."""

import json
from contextlib import suppress

import numpy as np
import pytest
import torch

from eql_d2.data import decode_mask
from eql_d2.errors import MissingPackageError, UserError
from eql_d2.evaluation import ResultsWriter

with suppress(MissingPackageError):
    from eql_d2.engines.d2.compat import Boxes, Instances
    from eql_d2.engines.d2.evaluator import (
        DetectionWriter,
        image_detections,
        join_shards,
        shard_path,
    )

pytestmark = pytest.mark.detectron2

CATEGORY_IDS = (2, 3, 5)


def make_instances(num=2, masks=True):
    instances = Instances((20, 30))
    instances.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 11.0, 7.0], [0.0, 0.0, 30.0, 20.0]]))
    instances.scores = torch.tensor([0.9, 0.25])
    instances.pred_classes = torch.tensor([2, 0])
    if masks:
        instances.pred_masks = torch.zeros(2, 20, 30, dtype=torch.bool)
        instances.pred_masks[0, 2:7, 1:11] = True
    return instances[:num]


def test_detections_in_pixels_of_the_image():
    instances = make_instances()
    found = image_detections(instances)
    assert found.boxes.tolist() == [[1, 2, 10, 5], [0, 0, 30, 20]]
    assert found.categories.tolist() == [2, 0]
    assert found.scores == pytest.approx([0.9, 0.25])
    mask = decode_mask(found.masks[0], 20, 30)
    assert np.array_equal(mask.astype(bool), instances.pred_masks[0].numpy())
    assert found.masks[1]["size"] == [20, 30], "an empty mask is still a detection"
    assert instances.pred_boxes.tensor[0].tolist() == [1, 2, 11, 7], "the input was edited"


def test_without_masks_or_without_anything():
    assert image_detections(make_instances(masks=False)).masks is None
    nothing = image_detections(make_instances(0))
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)
    assert nothing.masks == []


def write_shards(folder, images_by_rank):
    for rank, images in enumerate(images_by_rank):
        with ResultsWriter(shard_path(folder, rank, len(images_by_rank)), CATEGORY_IDS) as writer:
            sink = DetectionWriter(writer)
            for image in images:
                sink.process([{"image_id": image}], [{"instances": make_instances()}])


@pytest.mark.parametrize("parts", [[[7, 8, 9]], [[7, 8], [9]], [[7], [8], [9]], [[7, 8, 9], []]])
def test_shards_give_the_file_of_one_process(tmp_path, parts):
    write_shards(tmp_path, parts)
    path = join_shards(tmp_path, len(parts))
    assert path == tmp_path / "lvis_instances_results.json"
    records = json.loads(path.read_text())
    assert [r["image_id"] for r in records] == [7, 7, 8, 8, 9, 9]
    assert [r["category_id"] for r in records[:2]] == [5, 2], "the data set's own ids"
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "shards were left behind"


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path, [[7], [8]])
    shard_path(tmp_path, 1, 2).unlink()
    with pytest.raises(UserError, match=r"1 of 2 processes .* shard_00001_of_00002"):
        join_shards(tmp_path, 2)


def test_shards_of_another_number_of_processes_are_not_taken(tmp_path):
    write_shards(tmp_path, [[7], [8]])
    with pytest.raises(UserError, match="3 of 3 processes"):
        join_shards(tmp_path, 3)
