import copy
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eql_d2.data import (
    check_content,
    load_detection_data,
    longtail_content,
    split_images,
    usable_content,
)
from eql_d2.errors import ConfigError, DataError


def statistics_of(value):
    return check_content(value, "x.json", ".", check_images=False).statistics


def test_lvis_fields_say_what_exhaustive_annotation_means(content):
    value = content()
    groups = statistics_of(value).with_groups("counts", rare_max=1, common_max=5)
    converted = longtail_content(value, groups)
    images = {image["id"]: image for image in converted["images"]}
    assert images[5]["neg_category_ids"] == []
    assert images[5]["not_exhaustive_category_ids"] == []
    assert images[7]["neg_category_ids"] == []
    assert images[7]["not_exhaustive_category_ids"] == [3]
    assert images[600]["neg_category_ids"] == [3, 90]
    categories = {c["id"]: c for c in converted["categories"]}
    assert categories[3] == {
        "id": 3,
        "name": "early",
        "frequency": "r",
        "image_count": 1,
        "instance_count": 1,
    }
    assert categories[90]["frequency"] == "c"
    assert (categories[90]["image_count"], categories[90]["instance_count"]) == (2, 3)


def test_crowds_and_strange_images_are_left_out_and_the_original_is_kept(content):
    value = content()
    value["annotations"].append(dict(value["annotations"][0], id=99, image_id=1234))
    before = copy.deepcopy(value)
    converted = longtail_content(value, statistics_of(value))
    assert [a["id"] for a in converted["annotations"]] == [1, 2, 3, 4]
    assert value == before


def test_what_is_present_is_never_negative_and_all_else_is(shared_data):
    value = json.loads((shared_data / "coco128" / "instances.json").read_text())
    converted = longtail_content(value, statistics_of(value))
    ids = {c["id"] for c in value["categories"]}
    for image in converted["images"]:
        found = {a["category_id"] for a in value["annotations"] if a["image_id"] == image["id"]}
        assert set(image["neg_category_ids"]) == ids - found


def test_converting_twice_changes_nothing_more(content):
    once = longtail_content(content(), statistics_of(content()))
    assert any(image["not_exhaustive_category_ids"] for image in once["images"])
    assert longtail_content(once, statistics_of(content()))["images"] == once["images"]


def test_the_converted_file_is_read_as_lvis(content, load, caplog):
    data = load(longtail_content(content(), statistics_of(content())))
    assert data.federated
    assert data.frequency is not None
    assert data.statistics == statistics_of(content())
    assert not caplog.records


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_a_split_divides_images_and_takes_annotations_along(number, fraction, seed):
    value = {
        "info": {"year": 1},
        "images": [{"id": 3 * i} for i in range(number)],
        "annotations": [{"id": k, "image_id": 3 * (k % (number + 1))} for k in range(2 * number)],
        "categories": [{"id": 1}],
    }
    train, test = split_images(value, fraction, seed)
    ids = [image["id"] for part in (train, test) for image in part["images"]]
    assert sorted(ids) == [3 * i for i in range(number)]
    assert len(test["images"]) == min(max(round(fraction * number), 1), number - 1)
    for part in (train, test):
        known = {image["id"] for image in part["images"]}
        expected = [a["id"] for a in value["annotations"] if a["image_id"] in known]
        assert [a["id"] for a in part["annotations"]] == expected
        assert part["info"] == {"year": 1}
        assert part["categories"] == [{"id": 1}]


def test_a_split_depends_on_the_seed_and_not_on_the_order():
    value = {"images": [{"id": i} for i in range(50)], "annotations": []}
    reverse = {**value, "images": value["images"][::-1]}

    def test_ids(content, seed):
        return {image["id"] for image in split_images(content, 0.3, seed)[1]["images"]}

    assert test_ids(value, 1) == test_ids(reverse, 1) == test_ids(value, 1)
    drawn = Counter(i for seed in range(40) for i in test_ids(value, seed))
    assert len(drawn) == 50
    assert max(drawn.values()) < 30


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_images({"images": [{"id": 1}, {"id": 2}], "annotations": []}, fraction, 0)


def test_one_image_cannot_be_divided():
    with pytest.raises(ConfigError, match="at least two images"):
        split_images({"images": [{"id": 1}], "annotations": []}, 0.5, 0)


def test_real_lvis_keeps_its_categories(shared_data):
    path = shared_data / "lvis_v0.5_val_100.json"
    value = json.loads(path.read_text())
    training = load_detection_data(path, ".", check_images=False).statistics
    converted = longtail_content(value, training)
    carried = [(c["image_count"], c["instance_count"]) for c in value["categories"]]
    assert [(c["image_count"], c["instance_count"]) for c in converted["categories"]] == carried


@pytest.fixture
def damaged(content):
    """Annotations 1 (box) and 3 (mask) cannot be used, of 2 one of two polygons."""
    value = content()
    value["annotations"][0]["bbox"] = [float("nan"), 2, 6, 6]
    value["annotations"][1]["segmentation"] = [[1, 2], [2, 2, 8, 2, 8, 8]]
    value["annotations"][2]["segmentation"] = [[1, 2, 3]]
    value["annotations"].append(dict(value["annotations"][3], id=99, image_id=1234))
    return value


def test_only_what_training_keeps_is_kept(damaged, caplog):
    before = copy.deepcopy(damaged)
    usable = usable_content(damaged, "x.json")
    assert str(damaged) == str(before)  # NaN differs from itself
    assert [a["id"] for a in usable["annotations"]] == [2, 4, 5]
    assert usable["annotations"][0]["segmentation"] == [[2, 2, 8, 2, 8, 8]]
    assert usable["annotations"][1:] == damaged["annotations"][3:5]
    assert "left out: 1 x annotation with a bbox" in caplog.text
    assert statistics_of(usable) == statistics_of(damaged)


def test_what_was_left_out_is_neither_counted_nor_called_absent(damaged):
    usable = usable_content(damaged, "x.json")
    converted = longtail_content(usable, statistics_of(usable))
    assert "NaN" not in json.dumps(converted)
    counts = {c["id"]: (c["image_count"], c["instance_count"]) for c in converted["categories"]}
    assert counts == {90: (2, 2), 3: (0, 0)}
    images = {image["id"]: image for image in converted["images"]}
    assert images[5]["not_exhaustive_category_ids"] == [3, 90]
    assert images[5]["neg_category_ids"] == []
    assert images[600]["not_exhaustive_category_ids"] == []


def test_sound_content_stays_the_same(content):
    assert usable_content(content(), "x.json") == content()


def test_content_that_stops_training_stops_here(content):
    value = content()
    value["annotations"][0]["category_id"] = 4
    with pytest.raises(DataError, match=r"x\.json cannot be used as it is"):
        usable_content(value, "x.json")
