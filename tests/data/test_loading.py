import copy
import gzip
import logging
import zipfile

import numpy as np
import pytest

from eql_d2.categories import CategoryStatistics
from eql_d2.data import check_content, decode_mask, load_detection_data
from eql_d2.evaluation.annotations import read_ground_truth

SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]


def test_records_are_contiguous_and_complete(content, load, tmp_path):
    data = load(content())
    assert [image.image_id for image in data.images] == [7, 5, 600]
    assert data.category_ids == (3, 90)
    assert data.names == ("early", "late")
    first, second, empty = data.images
    assert [(i.category, i.iscrowd) for i in first.instances] == [(1, False), (0, True)]
    assert [i.category for i in second.instances] == [1, 1, 0]
    assert empty.instances == []
    assert (first.height, first.width) == (10, 20)
    assert first.path == str(tmp_path / "7.png")
    assert second.instances[0].bbox == (2.0, 2.0, 6.0, 6.0)
    assert {type(v) for v in second.instances[0].bbox} == {float}
    assert data.json_path == tmp_path / "annotations.json"


@pytest.mark.parametrize("form", ["gzip", "zip"])
def test_a_compressed_file_is_read_as_it_is(content, load, tmp_path, form):
    plain = load(content())
    path = tmp_path / f"annotations.json.{form}"
    text = (tmp_path / "annotations.json").read_bytes()
    if form == "gzip":
        path.write_bytes(gzip.compress(text))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("annotations.json", text)
    data = load_detection_data(path, tmp_path, check_images=False)
    assert data.images == plain.images
    assert data.statistics == plain.statistics == CategoryStatistics.from_json(path)
    truth = read_ground_truth(path, need_masks=False)
    assert truth.image_ids.tolist() == sorted(image.image_id for image in data.images)


def test_uncompressed_run_lengths_become_compressed(content, load):
    crowd = load(content()).images[0].instances[1]
    assert isinstance(crowd.segmentation["counts"], str)
    mask = decode_mask(crowd.segmentation, 10, 20)
    assert mask.sum() == 20
    assert mask[:, 3:5].all()


def test_statistics_leave_crowds_out_and_equal_those_of_the_file(content, load, tmp_path):
    data = load(content())
    assert data.statistics.image_count.tolist() == [1, 2]
    assert data.statistics.instance_count.tolist() == [1, 3]
    assert data.statistics.num_images == 2
    assert data.statistics == CategoryStatistics.from_json(tmp_path / "annotations.json")


def test_whether_all_have_masks(content, load):
    value = content()
    assert not load(value).has_masks
    value["annotations"][3]["segmentation"] = [SQUARE]
    assert load(value).has_masks
    value["annotations"][4]["segmentation"] = []
    assert load(value).has_masks


def test_plain_coco_is_exhaustive_and_told_once(content, load, caplog):
    with caplog.at_level(logging.INFO):
        data = load(content())
    assert not data.federated
    assert data.frequency is None
    assert caplog.text.count("exhaustively annotated") == 1
    assert "3 of 3 images" in caplog.text
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_lvis_fields_make_a_file_federated(content, load, caplog):
    value = content()
    for image in value["images"]:
        image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    for category in value["categories"]:
        category["frequency"] = "r"
    with caplog.at_level(logging.INFO):
        data = load(value)
    assert data.federated
    assert data.frequency is not None
    assert "exhaustively" not in caplog.text
    del value["images"][0]["neg_category_ids"]
    value["categories"][1]["frequency"] = "x"
    with caplog.at_level(logging.INFO):
        partly = load(value)
    assert partly.federated
    assert partly.frequency is None
    assert "1 of 3 images have no" in caplog.text


def test_the_content_is_not_changed(content, tmp_path):
    value = content()
    before = copy.deepcopy(value)
    check_content(value, "a.json", tmp_path, check_images=False)
    assert value == before


def test_real_coco_with_images(shared_data):
    folder = shared_data / "coco128"
    data = load_detection_data(folder / "instances.json", f"{folder / 'images'}/")
    assert len(data.images) == 128
    assert data.statistics == CategoryStatistics.from_json(folder / "instances.json")
    assert sum(i.iscrowd for image in data.images for i in image.instances) == 10
    assert data.has_masks
    image = max(data.images, key=lambda image: len(image.instances))
    for instance in image.instances:
        ys, xs = np.nonzero(decode_mask(instance.segmentation, image.height, image.width))
        x, y, w, h = instance.bbox
        assert (xs.min(), ys.min()) == pytest.approx((x, y), abs=2)
        assert (xs.max(), ys.max()) == pytest.approx((x + w, y + h), abs=2)


def test_real_lvis(shared_data, caplog):
    path = shared_data / "lvis_v0.5_val_100.json"
    with caplog.at_level(logging.INFO):
        data = load_detection_data(path, "coco", check_images=False)
    assert data.federated
    assert data.frequency is not None
    assert data.has_masks
    assert len(data.statistics) == 1230
    assert data.images[0].path == "coco/val2017/000000266409.jpg"
    assert not [r for r in caplog.records if r.levelno > logging.INFO]
