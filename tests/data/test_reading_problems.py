import json
import logging

import pytest

from eql_d2.data import load_detection_data
from eql_d2.errors import DataError

SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]


def test_all_problems_come_in_one_report(content, load):
    value = content()
    value["images"][1]["height"] = -4
    value["categories"].append({"id": 3, "name": "again"})
    value["annotations"][0]["category_id"] = 4
    value["annotations"][1]["id"] = 5
    value["annotations"][2]["bbox"] = [1, 1, 0, 4]
    del value["annotations"][3]["image_id"]
    with pytest.raises(DataError) as caught:
        load(value, check_images=True)
    message = str(caught.value)
    for part in (
        "annotations.json cannot be used as it is",
        "image 5: height -4, width 20",
        "repeated category id: 3 (again)",
        "matches no category (the 2 known ids are 3 to 90): annotation 1 (category 4)",
        "without a whole number 'image_id': number 3 in the list",
        "repeated annotation id: 5",
        "3 x image missing below",
        "Besides, these would have been left out:",
        "1 x annotation with a bbox without width or height: annotation 3 ([1, 1, 0, 4])",
    ):
        assert part in message


def test_examples_are_few_and_counts_are_whole(content, load):
    value = content()
    template = value["annotations"][0]
    value["annotations"] = [dict(template, id=i, category_id=77) for i in range(2345)]
    with pytest.raises(DataError) as caught:
        load(value)
    assert "2,345 x annotation whose category_id" in str(caught.value)
    assert str(caught.value).count("category 77") == 5
    assert len(str(caught.value)) < 1000


def test_images_are_looked_for_only_when_asked(content, load, tmp_path):
    for name in ("5.png", "7.png"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 x image missing below .*600.png"):
        load(content(), check_images=True)
    (tmp_path / "600.png").write_bytes(b"x")
    assert len(load(content(), check_images=True).images) == 3


def test_a_missing_image_folder_is_one_problem(content, tmp_path):
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
def test_what_can_be_left_out_is_left_out_and_counted(content, load, caplog, field, value, problem):
    changed = content()
    changed["annotations"][0][field] = value
    data = load(changed)
    assert [len(image.instances) for image in data.images] == [2, 2, 0]
    assert data.statistics.instance_count.tolist() == [1, 2]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert problem in warnings[0]
    assert "1 x annotation" in warnings[0]
    assert "annotation 1" in warnings[0]


def test_a_broken_polygon_beside_a_sound_one_is_left_out_alone(content, load, caplog):
    value = content()
    value["annotations"][0]["segmentation"] = [[1, 1], SQUARE]
    data = load(value)
    assert data.images[1].instances[0].segmentation == [SQUARE]
    assert "1 x polygon, beside sound ones" in caplog.text


def test_boxes_may_reach_over_the_edge_a_little(content, load, caplog):
    value = content()
    value["annotations"][0]["bbox"] = [-0.5, -0.5, 21.5, 11]
    assert load(value).images[1].instances[0].bbox == (-0.5, -0.5, 21.5, 11.0)
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_mostly_unusable_annotations_stop(content, load):
    value = content()
    for annotation in value["annotations"][:3]:
        annotation["bbox"] = [15, 8, 3, 0]
    with pytest.raises(DataError, match="3 are unusable and only 2 are not; is it"):
        load(value)


def test_annotations_of_other_images_only_stop(content, load):
    value = content()
    for annotation in value["annotations"]:
        annotation["image_id"] += 1
    with pytest.raises(DataError, match="not one can be used"):
        load(value)


def test_a_file_without_annotations_is_read(content, load):
    data = load({**content(), "annotations": []})
    assert data.statistics.num_images == 0
    assert data.has_masks


@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
def test_missing_lists_are_named(content, load, key):
    value = content()
    del value[key]
    with pytest.raises(DataError, match=f"list '{key}' that .* must have is missing"):
        load(value)


@pytest.mark.parametrize("key", ["images", "categories"])
def test_empty_lists_stop(content, load, key):
    with pytest.raises(DataError, match=f"list of {key} that is empty"):
        load({**content(), key: []})


def test_negative_ids_that_name_nothing_are_told(content, load, caplog):
    value = content()
    value["images"][0] |= {"neg_category_ids": [4, 3], "not_exhaustive_category_ids": []}
    load(value)
    assert (
        "1 x image with 'neg_category_ids' that the file's categories lack: image 7" in caplog.text
    )
    value["images"][0]["neg_category_ids"] = 3
    with pytest.raises(DataError, match="'neg_category_ids' is no list of category ids: 7"):
        load(value)
