"""Reading annotations: what is kept, what is left out, what stops."""

import copy
import logging

import numpy as np
import pytest

from eql_d2.errors import DataError
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.ground_truth import find_ids

POLYGON = [[0, 0, 9, 0, 9, 9, 0, 9]]


@pytest.fixture
def annotations():
    return {
        "images": [
            {"id": 30, "height": 20, "width": 10, "neg_category_ids": [7, 2, 99]},
            {"id": 10, "height": 40, "width": 50, "neg_category_ids": [],
             "not_exhaustive_category_ids": [7]},
        ],
        "annotations": [
            {"id": 1, "image_id": 30, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 11.5,
             "segmentation": POLYGON, "iscrowd": 1},
            {"id": 2, "image_id": 10, "category_id": 2, "bbox": [0, 0, 9, 9], "area": 81,
             "segmentation": POLYGON, "ignore": 1},
        ],
        "categories": [
            {"id": 7, "name": "seven", "frequency": "r"},
            {"id": 2, "name": "two", "frequency": "f"},
        ],
    }  # fmt: skip


def read(annotations, need_masks=True):
    return read_ground_truth(annotations, need_masks=need_masks)


def test_arrays_are_sorted_by_id(annotations):
    truth = read(annotations)
    assert truth.image_ids.tolist() == [10, 30]
    assert truth.sizes.tolist() == [[40, 50], [20, 10]]
    assert truth.category_ids.tolist() == [2, 7]
    assert truth.names == ("two", "seven")
    assert truth.groups == ("f", "r")
    assert truth.image.tolist() == [1, 0]
    assert truth.category.tolist() == [1, 0]
    assert truth.boxes.tolist() == [[1, 2, 3, 4], [0, 0, 9, 9]]
    assert truth.areas.tolist() == [11.5, 81]
    assert truth.pairs.tolist() == [3, 0]
    assert truth.negative_pairs.tolist() == [1, 3]  # the unknown category 99 is left out
    assert truth.not_exhaustive_pairs.tolist() == [2]
    assert not truth.exhaustive.any()


def test_crowd_counts_in_plain_coco_files_only(annotations):
    lvis = read(annotations)
    assert not lvis.crowd.any()
    assert lvis.ignored.tolist() == [False, True]
    for image in annotations["images"]:
        image.pop("neg_category_ids")
    coco = read(annotations)
    assert coco.crowd.tolist() == [True, False]
    assert coco.ignored.tolist() == [True, True]


def test_images_without_negative_categories_are_exhaustive(annotations, caplog):
    caplog.set_level(logging.INFO, logger="eql_d2.evaluation")
    read(annotations)
    assert not caplog.records
    del annotations["images"][1]["neg_category_ids"]
    truth = read(annotations)
    assert truth.exhaustive.tolist() == [True, False]
    assert "1 of 2 images have no neg_category_ids" in caplog.text


def test_what_does_not_take_part(annotations, caplog):
    first = annotations["annotations"][0]
    annotations["annotations"] += [
        first | {"id": 3, "area": 0},
        first | {"id": 4, "image_id": 31},
        first | {"id": 5, "category_id": 8},
        first | {"id": 6},
    ]
    assert read(annotations).areas.tolist() == [11.5, 81, 11.5]
    assert "2 of 6 annotations name an unknown image or category" in caplog.text


def test_missing_areas_come_from_the_box(annotations):
    del annotations["annotations"][0]["area"]
    assert read(annotations).areas.tolist() == [12, 81]


def test_unusable_segmentations_are_counted(annotations, caplog):
    annotations["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]
    truth = read(annotations)
    assert truth.without_mask.tolist() == [False, True]
    assert "1 of 2 annotations have no usable segmentation" in caplog.text
    assert not read(annotations, need_masks=False).without_mask.any()
    del annotations["annotations"][1]["segmentation"]
    assert read(annotations, need_masks=False).masks is None


def test_categories_without_frequency(annotations):
    for category in annotations["categories"]:
        del category["frequency"]
    assert read(annotations).groups is None


def change(path, value):
    """A function that sets ``annotations[path[0]][path[1]]...`` or, for ..., deletes it."""

    def apply(annotations):
        target = annotations
        for key in path[:-1]:
            target = target[key]
        if value is ...:
            del target[path[-1]]
        else:
            target[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("mutation", "message"),
    [
        (change(["images"], ...), "no list 'images'"),
        (change(["annotations"], ...), "no list 'annotations'.*test split"),
        (change(["categories"], {}), "no list 'categories'"),
        (change(["images", 0], 3), "1 of 2 images: no 'id'"),
        (change(["images", 0, "id"], "a"), "1 of 2 images: 'id' is not an integer"),
        (change(["images", 0, "id"], 10), r"1 of 2 images: the id is repeated \(number 1: 10\)"),
        (change(["images", 0, "height"], "20"), "'height' is not an integer"),
        (change(["images", 0, "height"], 0), "1 of 2 images: no 'height' and 'width' above 0"),
        (change(["images", 1, "width"], ...), "1 of 2 images: no 'height' and 'width' above 0"),
        (change(["images", 0, "neg_category_ids"], None), "'neg_category_ids' is not a list"),
        (
            change(["images", 0, "neg_category_ids"], ["x"]),
            "entries of neg_category_ids: 'category_id' is not an integer",
        ),
        (change(["categories", 0, "id"], 2), "id is repeated"),
        (change(["categories", 0, "frequency"], "rare"), "'frequency' is not r, c or f"),
        (change(["categories", 0, "frequency"], ...), "'frequency' is not r, c or f"),
        (change(["annotations", 0], None), "1 of 2 annotations: no 'image_id'"),
        (change(["annotations", 0, "bbox"], ...), "1 of 2 annotations: no 'bbox'"),
    ],
)
def test_files_that_cannot_be_used(mutation, message, annotations):
    read(copy.deepcopy(annotations))
    mutation(annotations)
    with pytest.raises(DataError, match=message):
        read(annotations)


def test_what_training_mends_or_leaves_out_is_mended_or_left_out(annotations, caplog):
    first, second = annotations["annotations"]
    more = [copy.deepcopy(first) | {"id": 7}, copy.deepcopy(first) | {"id": 8}]
    more[0]["bbox"] = [1, 2, 3]
    more[1]["area"] = float("nan")
    del second["segmentation"]
    annotations["annotations"] += more
    truth = read(annotations)
    assert len(truth.image) == len(truth.masks) == 3
    assert truth.areas[2] == first["bbox"][2] * first["bbox"][3]
    assert truth.without_mask.tolist() == [False, True, False]
    assert "1 of 4 annotations have no usable bbox" in caplog.text


def test_boxes_that_are_mostly_unusable_are_refused(annotations):
    for annotation in annotations["annotations"]:
        annotation["bbox"] = [1, 2, 3]
    with pytest.raises(DataError, match="2 of 2 annotations: 'bbox' is not"):
        read(annotations)


def test_masks_are_needed_for_mask_ap(annotations):
    for annotation in annotations["annotations"]:
        del annotation["segmentation"]
    with pytest.raises(DataError, match="2 of 2 annotations: no 'segmentation'"):
        read(annotations)
    assert read(annotations, need_masks=False).masks is None


@pytest.mark.parametrize("content", [[], "text", None])
def test_files_that_hold_no_object(content, tmp_path):
    import json

    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"truth\.json: expected a json object"):
        read(path)


def test_finding_ids():
    ids = np.array([3, 5, 9])
    index, known = find_ids(ids, np.array([9, 4, 3, 10, -1]))
    assert known.tolist() == [True, False, True, False, False]
    assert index[known].tolist() == [2, 0]
    index, known = find_ids(np.zeros(0, int), np.array([1, 2]))
    assert not known.any()
    assert len(index) == 2


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, -3, 4], [0, 0, float("nan"), 1], "box", None])
def test_objects_without_a_usable_box_are_left_out_and_counted(box, annotations, caplog):
    annotations["annotations"][0]["bbox"] = box
    truth = read(annotations)
    assert len(truth.boxes) == 1
    assert "1 of 2 annotations have no usable bbox; left out" in caplog.text
    annotations["annotations"][1]["bbox"] = box
    with pytest.raises(DataError, match="2 of 2 annotations: 'bbox' is not"):
        read(annotations)


@pytest.mark.parametrize("area", [None, float("nan"), "11.5", True])
def test_an_area_that_is_no_number_is_that_of_the_box(area, annotations):
    annotations["annotations"][1]["area"] = area
    assert sorted(read(annotations).areas.tolist()) == [11.5, 81.0]


def test_a_missing_segmentation_is_ignored_for_masks_unless_all_are_missing(annotations, caplog):
    del annotations["annotations"][0]["segmentation"]
    assert read(annotations).without_mask.sum() == 1
    assert "1 of 2 annotations have no usable segmentation" in caplog.text
    del annotations["annotations"][1]["segmentation"]
    with pytest.raises(DataError, match="2 of 2 annotations: no 'segmentation'"):
        read(annotations)


def test_incomplete_groups_do_not_matter_where_others_are_given(annotations):
    annotations["categories"][0]["frequency"] = "rare"
    assert read_ground_truth(annotations, need_masks=False, need_groups=False).groups is None
