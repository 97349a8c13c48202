import copy
import json
import logging

import numpy as np
import pytest

from eql_d2.categories import CategoryStatistics
from eql_d2.data import check_content, decode_mask, load_detection_data
from eql_d2.errors import DataError

SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]


def content():
    """Three images of 20 x 10 pixels, sparse ids, one crowd region, one box without mask."""

    def annotation(number, image, category, **more):
        box = {"bbox": [2, 2, 6, 6], "segmentation": [SQUARE], "iscrowd": 0}
        return {"id": number, "image_id": image, "category_id": category, **box, **more}

    crowd = {"size": [10, 20], "counts": [30, 20, 150]}
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 10, "width": 20} for i in (7, 5, 600)
        ],
        "categories": [{"id": 90, "name": "late"}, {"id": 3, "name": "early"}],
        "annotations": [
            annotation(1, 5, 90),
            annotation(2, 5, 90),
            annotation(3, 5, 3),
            annotation(4, 7, 90, segmentation=None),
            annotation(5, 7, 3, iscrowd=1, segmentation=crowd),
        ],
    }


def load(value, tmp_path, check_images=False):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(value))
    return load_detection_data(path, tmp_path, check_images=check_images)


def test_records_are_contiguous_and_complete(tmp_path):
    data = load(content(), tmp_path)
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


def test_uncompressed_run_lengths_become_compressed(tmp_path):
    crowd = load(content(), tmp_path).images[0].instances[1]
    assert isinstance(crowd.segmentation["counts"], str)
    mask = decode_mask(crowd.segmentation, 10, 20)
    assert mask.sum() == 20
    assert mask[:, 3:5].all()


def test_statistics_leave_crowds_out_and_equal_those_of_the_file(tmp_path):
    data = load(content(), tmp_path)
    assert data.statistics.image_count.tolist() == [1, 2]
    assert data.statistics.instance_count.tolist() == [1, 3]
    assert data.statistics.num_images == 2
    assert data.statistics == CategoryStatistics.from_json(tmp_path / "annotations.json")


def test_whether_all_have_masks(tmp_path):
    value = content()
    assert not load(value, tmp_path).has_masks
    value["annotations"][3]["segmentation"] = [SQUARE]
    assert load(value, tmp_path).has_masks
    value["annotations"][4]["segmentation"] = []
    assert load(value, tmp_path).has_masks


def test_plain_coco_is_exhaustive_and_told_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        data = load(content(), tmp_path)
    assert not data.federated
    assert not data.has_frequency
    assert caplog.text.count("exhaustively annotated") == 1
    assert "3 of 3 images" in caplog.text
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_lvis_fields_make_a_file_federated(tmp_path, caplog):
    value = content()
    for image in value["images"]:
        image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    for category in value["categories"]:
        category["frequency"] = "r"
    with caplog.at_level(logging.INFO):
        data = load(value, tmp_path)
    assert data.federated
    assert data.has_frequency
    assert "exhaustively" not in caplog.text
    del value["images"][0]["neg_category_ids"]
    value["categories"][1]["frequency"] = "x"
    with caplog.at_level(logging.INFO):
        partly = load(value, tmp_path)
    assert partly.federated
    assert not partly.has_frequency
    assert "1 of 3 images have no" in caplog.text


def test_all_problems_come_in_one_report(tmp_path):
    value = content()
    value["images"][1]["height"] = -4
    value["categories"].append({"id": 3, "name": "again"})
    value["annotations"][0]["category_id"] = 4
    value["annotations"][1]["id"] = 5
    value["annotations"][2]["bbox"] = [1, 1, 0, 4]
    del value["annotations"][3]["image_id"]
    with pytest.raises(DataError) as caught:
        load(value, tmp_path, check_images=True)
    message = str(caught.value)
    for part in (
        "annotations.json cannot be used as it is",
        "image 5: height -4, width 20",
        "category id that stands twice: 3 (again)",
        "matches no category (the 2 known ids are 3 to 90): annotation 1 (category 4)",
        "without a whole number 'image_id': number 3 in the list",
        "annotation id that stands twice: 5",
        "3 x image missing below",
        "Besides, these would have been left out:",
        "1 x annotation with a bbox without width or height: annotation 3 ([1, 1, 0, 4])",
    ):
        assert part in message


def test_examples_are_few_and_counts_are_whole(tmp_path):
    value = content()
    template = value["annotations"][0]
    value["annotations"] = [dict(template, id=i, category_id=77) for i in range(2345)]
    with pytest.raises(DataError) as caught:
        load(value, tmp_path)
    assert "2,345 x annotation whose category_id" in str(caught.value)
    assert str(caught.value).count("category 77") == 5
    assert len(str(caught.value)) < 1000


def test_images_are_looked_for_only_when_asked(tmp_path):
    for name in ("5.png", "7.png"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 x image missing below .*600.png"):
        load(content(), tmp_path, check_images=True)
    (tmp_path / "600.png").write_bytes(b"x")
    assert len(load(content(), tmp_path, check_images=True).images) == 3


def test_a_missing_image_folder_is_one_problem(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content()))
    with pytest.raises(
        DataError, match=r"1 x image folder that does not exist: .*nowhere"
    ) as caught:
        load_detection_data(path, tmp_path / "nowhere")
    assert "missing below" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("image_id", 12345, "image that the file does not list"),
        ("bbox", None, "no list of four numbers"),
        ("bbox", [1, 2, 3], "no list of four numbers"),
        ("bbox", {"x": 1}, "no list of four numbers"),
        ("bbox", [1, 2, float("nan"), 4], "not finite"),
        ("bbox", [1, 2, float("inf"), 4], "not finite"),
        ("bbox", [1, 2, "3", 4], "not finite"),
        ("bbox", [1, 2, None, 4], "not finite"),
        ("bbox", [1, 2, 10**400, 4], "far outside"),
        ("bbox", [1, 2, -3, 4], "without width or height"),
        ("bbox", [1, 2, 3, 0], "without width or height"),
        ("bbox", [20, 2, 3, 4], "outside of its image"),
        ("bbox", [-3, 2, 3, 4], "outside of its image"),
        ("bbox", [1, 2, 1e6, 4], "far larger"),
        ("segmentation", [[1, 1, 2, 2]], "under 3 points"),
        ("segmentation", "text", "neither"),
        ("segmentation", {"size": [10, 20], "counts": "!!"}, "run-length"),
        ("segmentation", {"size": [20, 10], "counts": [100, 100]}, "size is not the image's"),
    ],
)
def test_what_can_be_left_out_is_left_out_and_counted(tmp_path, caplog, field, value, problem):
    changed = content()
    changed["annotations"][0][field] = value
    data = load(changed, tmp_path)
    assert [len(image.instances) for image in data.images] == [2, 2, 0]
    assert data.statistics.instance_count.tolist() == [1, 2]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert problem in warnings[0]
    assert "1 x annotation" in warnings[0]
    assert "annotation 1" in warnings[0]


def test_a_broken_polygon_beside_a_sound_one_is_left_out_alone(tmp_path, caplog):
    value = content()
    value["annotations"][0]["segmentation"] = [[1, 1], SQUARE]
    data = load(value, tmp_path)
    assert data.images[1].instances[0].segmentation == [SQUARE]
    assert "1 x polygon, beside sound ones" in caplog.text


def test_boxes_may_reach_over_the_edge_a_little(tmp_path, caplog):
    value = content()
    value["annotations"][0]["bbox"] = [-0.5, -0.5, 21.5, 11]
    assert load(value, tmp_path).images[1].instances[0].bbox == (-0.5, -0.5, 21.5, 11.0)
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_mostly_unusable_annotations_stop(tmp_path):
    value = content()
    for annotation in value["annotations"][:3]:
        annotation["bbox"] = [15, 8, 3, 0]
    with pytest.raises(DataError, match="3 are unusable and only 2 are not; is it"):
        load(value, tmp_path)


def test_annotations_of_other_images_only_stop(tmp_path):
    value = content()
    for annotation in value["annotations"]:
        annotation["image_id"] += 1
    with pytest.raises(DataError, match="not one can be used"):
        load(value, tmp_path)


def test_a_file_without_annotations_is_read(tmp_path):
    data = load({**content(), "annotations": []}, tmp_path)
    assert data.statistics.num_images == 0
    assert data.has_masks


@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
def test_missing_lists_are_named(tmp_path, key):
    value = content()
    del value[key]
    with pytest.raises(DataError, match=f"list '{key}' that .* must have is missing"):
        load(value, tmp_path)


@pytest.mark.parametrize("key", ["images", "categories"])
def test_empty_lists_stop(tmp_path, key):
    with pytest.raises(DataError, match=f"list of {key} that is empty"):
        load({**content(), key: []}, tmp_path)


def test_negative_ids_that_name_nothing_are_told(tmp_path, caplog):
    value = content()
    value["images"][0] |= {"neg_category_ids": [4, 3], "not_exhaustive_category_ids": []}
    load(value, tmp_path)
    assert (
        "1 x image with 'neg_category_ids' that the file's categories lack: image 7" in caplog.text
    )
    value["images"][0]["neg_category_ids"] = 3
    with pytest.raises(DataError, match="'neg_category_ids' is no list of category ids: 7"):
        load(value, tmp_path)


def test_the_content_is_not_changed(tmp_path):
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
    assert data.has_frequency
    assert data.has_masks
    assert len(data.statistics) == 1230
    assert data.images[0].path == "coco/val2017/000000266409.jpg"
    assert not [r for r in caplog.records if r.levelno > logging.INFO]
