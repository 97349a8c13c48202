"""Detections on disk: conversion, shards, and their one results file."""

import copy
import json
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.data import decode_mask
from eql_d2.errors import UserError
from eql_d2.evaluation import ResultsWriter

with suppress(ImportError):
    from detectron2.evaluation.coco_evaluation import instances_to_coco_json

    from eql_d2.engines.d2.compat import Boxes, Instances, detector_postprocess
    from eql_d2.engines.d2.evaluator import (
        DetectionWriter,
        image_detections,
        join_shards,
        shard_path,
    )

pytestmark = pytest.mark.detectron2

CATEGORY_IDS = (2, 3, 5)


def make_instances(num=2, masks=True):
    """Raw output of a detector that saw a (40, 60) picture; masks are samples on the boxes."""
    instances = Instances((40, 60))
    instances.pred_boxes = Boxes(torch.tensor([[2.0, 4.0, 22.0, 14.0], [0.0, 0.0, 60.0, 40.0]]))
    instances.scores = torch.tensor([0.9, 0.25])
    instances.pred_classes = torch.tensor([2, 0])
    if masks:
        instances.pred_masks = torch.zeros(2, 1, 28, 28)
        instances.pred_masks[0] = 1
    return instances[:num]


def test_detections_in_pixels_of_the_image():
    instances = make_instances()
    found = image_detections(instances, 20, 30)
    assert found.boxes.tolist() == [[1, 2, 10, 5], [0, 0, 30, 20]]
    assert found.categories.tolist() == [2, 0]
    assert found.scores == pytest.approx([0.9, 0.25])
    inside = np.zeros((20, 30), bool)
    inside[2:7, 1:11] = True
    assert np.array_equal(decode_mask(found.masks[0], 20, 30).astype(bool), inside)
    assert found.masks[1]["size"] == [20, 30], "an empty mask is still a detection"
    assert instances.pred_boxes.tensor[0].tolist() == [2, 4, 22, 14], "the input was edited"
    assert instances.has("pred_masks")


def test_without_masks_or_without_anything():
    assert image_detections(make_instances(masks=False), 20, 30).masks is None
    nothing = image_detections(make_instances(0), 20, 30)
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)
    assert nothing.masks == []


def detectron2s_records(instances, height, width):
    """What Detectron2 writes: pasted by its post-processing, encoded one by one."""
    pasted = detector_postprocess(copy.deepcopy(instances), height, width)
    return instances_to_coco_json(pasted, 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    number=st.integers(0, 8),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    kind=st.sampled_from(["smooth", "halves", "near", "undefined"]),
)
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_equals_detectron2s_own_records(seed, number, height, width, kind):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 2, 2, generator=generator) * 80 - 10
    instances = Instances((50, 60))  # some boxes reach out of it, some have no area
    instances.pred_boxes = Boxes(torch.cat([corners.amin(1), corners.amax(1)], 1).round(decimals=1))
    instances.scores = torch.rand(number, generator=generator)
    instances.pred_classes = torch.randint(3, (number,), generator=generator)
    noise = torch.rand(number, 1, 28, 28, generator=generator)
    instances.pred_masks = {
        "smooth": torch.nn.functional.avg_pool2d(noise, 7, 1, 3),
        "halves": (noise * 3).floor() / 2,
        "near": 0.5 + (noise * 7 - 3).floor() * 2.0**-24,
        "undefined": torch.where(noise < 0.1, torch.nan, noise),
    }[kind]
    wanted = detectron2s_records(instances, height, width)
    found = image_detections(instances, height, width)
    assert len(found) == len(wanted)
    for i, record in enumerate(wanted):
        assert found.boxes[i].tolist() == record["bbox"]
        assert float(found.scores[i]) == record["score"]
        assert found.categories[i] == record["category_id"]
        assert found.masks[i] == record["segmentation"]


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """200 more images are 400 records of 150 characters; Python's own caches fill first."""
    with ResultsWriter(tmp_path / "many.json", CATEGORY_IDS) as writer:
        sink = DetectionWriter(writer)

        def most_while_writing(images):
            tracemalloc.reset_peak()
            for image in range(images):
                sink.process([{"image_id": image}], [make_instances()])
            return tracemalloc.get_traced_memory()[1]

        tracemalloc.start()
        before, after = most_while_writing(80), most_while_writing(200)
        tracemalloc.stop()
    assert after < before + 25_000


def write_shards(folder, images_by_rank):
    for rank, images in enumerate(images_by_rank):
        with ResultsWriter(shard_path(folder, rank, len(images_by_rank)), CATEGORY_IDS) as writer:
            sink = DetectionWriter(writer)
            for image in images:
                sink.process([{"image_id": image}], [make_instances()])


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
