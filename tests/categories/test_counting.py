import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eql_d2.categories import CategoryStatistics
from eql_d2.categories.counting import count_annotations
from eql_d2.errors import DataError

CONTENT = {
    "images": [{"id": 10}, {"id": 11}, {"id": 12}],
    "categories": [{"id": 90, "name": "late"}, {"id": 4, "name": "early"}, {"id": 7, "name": "no"}],
    "annotations": [
        {"image_id": 10, "category_id": 90},
        {"image_id": 10, "category_id": 90, "iscrowd": 0},
        {"image_id": 11, "category_id": 90},
        {"image_id": 11, "category_id": 4},
        {"image_id": 12, "category_id": 4, "iscrowd": 1},
        {"image_id": 99, "category_id": 4},
    ],
}


def test_counts_images_once_and_leaves_crowds_and_strange_images_out():
    counts = count_annotations(CONTENT, "x.json")
    assert counts.category_ids == [4, 7, 90]
    assert counts.names == ["early", "no", "late"]
    assert counts.image_count == [1, 0, 2]
    assert counts.instance_count == [1, 0, 3]
    assert counts.num_images == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), min_size=1, max_size=40
    )
)
def test_counts_equal_a_loop_over_images_and_categories(triples):
    content = {
        "images": [{"id": i} for i in range(5)],
        "categories": [{"id": c, "name": f"n{c}"} for c in range(4)],
        "annotations": [
            {"image_id": i, "category_id": c, "iscrowd": int(crowd)} for i, c, crowd in triples
        ],
    }
    counts = count_annotations(content, "x.json")
    kept = [(i, c) for i, c, crowd in triples if i < 5 and not crowd]
    for category in range(4):
        assert counts.instance_count[category] == sum(c == category for _, c in kept)
        assert counts.image_count[category] == sum((i, category) in kept for i in range(5))
    assert counts.num_images == sum(any(i == j for j, _ in kept) for i in range(5))


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_missing_list_is_named(key):
    content = {k: v for k, v in CONTENT.items() if k != key}
    with pytest.raises(DataError, match=f"no list named '{key}'"):
        count_annotations(content, "x.json")


def broken(path, value):
    content = copy.deepcopy(CONTENT)
    key, index, field = path
    if value is None:
        del content[key][index][field]
    else:
        content[key][index][field] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("images", 0, "id"), None, "KeyError 'id'"),
        (("categories", 0, "name"), None, "KeyError 'name'"),
        (("categories", 0, "id"), 4, "category id twice"),
        (
            ("categories", 0, "id"),
            "4",
            r"x\.json has a category with the id '4', which is no",
        ),
        (("categories", 0, "id"), 90.0, r"with the id 90\.0, which is no whole number"),
        (("categories", 1, "id"), True, "with the id True, which is no whole number"),
        (("categories", 0, "id"), None, "KeyError 'id'"),
        (
            ("annotations", 0, "category_id"),
            "90",
            r"x\.json has an annotation .* '90', which",
        ),
        (("annotations", 0, "category_id"), 90.0, r"an annotation with the category_id 90\.0"),
        (("annotations", 0, "image_id"), None, "KeyError 'image_id'"),
        (("annotations", 0, "category_id"), 5, r"1 category ids that it does not list, e.g. \[5\]"),
        (("annotations", 0, "category_id"), [90], r"the category_id \[90\]"),
        (("annotations", 0, "image_id"), [10], "TypeError"),
    ],
)
def test_broken_entries_are_data_errors(path, value, message):
    with pytest.raises(DataError, match=message):
        count_annotations(broken(path, value), "x.json")


@pytest.mark.parametrize("ids", [["1", "2"], [1.0, 2.0], [True, 5], [None, 2], [[1], 2]])
def test_ids_that_are_no_whole_numbers_are_data_errors_of_the_file(tmp_path, ids):
    content = {
        "images": [{"id": 1}],
        "categories": [{"id": i, "name": str(i)} for i in ids],
        "annotations": [{"image_id": 1, "category_id": ids[0]}],
    }
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"mine\.json .* which is no whole number"):
        CategoryStatistics.from_json(tmp_path / "mine.json")


def test_real_coco_annotations(shared_data):
    path = shared_data / "coco128" / "instances.json"
    content = json.loads(path.read_text())
    statistics = CategoryStatistics.from_json(path)
    assert len(statistics) == 80
    assert statistics.category_ids[-1] == 90
    assert sum(a["iscrowd"] for a in content["annotations"]) == 10
    assert int(statistics.instance_count.sum()) == len(content["annotations"]) - 10
    person = statistics.names.index("person")
    images = {
        a["image_id"] for a in content["annotations"] if a["category_id"] == 1 and not a["iscrowd"]
    }
    assert int(statistics.image_count[person]) == len(images) == 61


def test_real_lvis_annotations_agree_with_the_counts_they_carry(shared_data):
    path = shared_data / "lvis_v0.5_val_100.json"
    content = json.loads(path.read_text())
    carried = {c["id"]: (c["image_count"], c["instance_count"]) for c in content["categories"]}
    statistics = CategoryStatistics.from_json(path)
    counted = zip(statistics.image_count.tolist(), statistics.instance_count.tolist(), strict=True)
    assert dict(zip(statistics.category_ids, counted, strict=True)) == carried
    assert statistics.names == CategoryStatistics.from_table("lvis_v0.5").names
