import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.categories import CategoryStatistics, table_names
from eql_d2.errors import ConfigError, DataError


def make(image_count, num_images=None, /, **changes):
    columns = {
        "names": [f"c{k}" for k in range(len(image_count))],
        "category_ids": list(range(1, len(image_count) + 1)),
        "image_count": image_count,
        "instance_count": [2 * n for n in image_count],
        "num_images": max(image_count) if num_images is None else num_images,
    }
    return CategoryStatistics.from_counts(**{**columns, **changes})


@st.composite
def counts_and_images(draw):
    counts = draw(st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any))
    return counts, draw(st.integers(max(counts), 60))


@pytest.mark.parametrize(
    ("table", "categories", "groups", "num_images"),
    [("lvis_v1", 1203, (337, 461, 405), 99388), ("lvis_v0.5", 1230, (454, 461, 315), 56740)],
)
def test_tables_hold_the_known_numbers(table, categories, groups, num_images):
    statistics = CategoryStatistics.from_table(table)
    assert len(statistics) == len(set(statistics.names)) == categories
    assert statistics.category_ids == tuple(range(1, categories + 1))
    assert tuple(statistics.groups.count(letter) for letter in "rcf") == groups
    assert statistics.num_images == num_images
    assert statistics.with_groups().groups == statistics.groups
    assert statistics.image_count.dtype == statistics.instance_count.dtype == torch.int64
    assert statistics.image_fraction.dtype == torch.float64


@pytest.mark.parametrize("version", ["v1", "v0.5"])
def test_tables_equal_the_reference_data(shared_data, version):
    reference = json.loads((shared_data / f"lvis_{version}_categories.json").read_text())
    statistics = CategoryStatistics.from_table(f"lvis_{version}")
    assert statistics == CategoryStatistics.from_dict(reference)
    assert statistics.num_images == reference["num_images"]


def test_the_two_tables_are_listed_and_an_unknown_name_says_so():
    assert table_names() == ("lvis_v0.5", "lvis_v1")
    with pytest.raises(ConfigError, match=r"'lvis_v2'.*lvis_v0.5, lvis_v1"):
        CategoryStatistics.from_table("lvis_v2")


def test_without_any_image_there_are_fractions_but_no_tail_ratio():
    statistics = make([0, 0], 0)
    assert statistics.image_fraction.tolist() == [0.0, 0.0]
    for call in (statistics.tail_ratio, statistics.lambda_for_tail_ratio):
        with pytest.raises(DataError, match="no category has an image"):
            call(0.1)


def test_categories_are_sorted_by_id_with_all_their_columns():
    statistics = CategoryStatistics.from_counts(
        names=["z", "a", "m"],
        category_ids=[90, 7, 13],
        image_count=[5, 11, 101],
        instance_count=[6, 12, 200],
        num_images=150,
    )
    assert statistics.category_ids == (7, 13, 90)
    assert statistics.names == ("a", "m", "z")
    assert statistics.image_count.tolist() == [11, 101, 5]
    assert statistics.instance_count.tolist() == [12, 200, 6]
    assert statistics.groups == ("c", "f", "r")
    assert statistics.image_fraction.tolist() == [11 / 150, 101 / 150, 5 / 150]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["only one"]}, "1 names, 2 ids"),
        ({"category_ids": [3, 3]}, "differ"),
        ({"image_count": [-1, 2]}, "-1 images"),
        ({"image_count": [9, 2]}, "9 images"),
        ({"instance_count": [0, 4]}, "1 images and 0 instances"),
        ({"groups": ["r", "x"]}, "'x'"),
        ({"num_images": 1}, "1 annotated images"),
    ],
)
def test_counts_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        make([1, 2], **changes)


def test_no_categories_are_refused():
    with pytest.raises(DataError, match="at least one category"):
        make([], 0)


@pytest.mark.parametrize(
    "changes",
    [{"image_count": [1.5, 2]}, {"category_ids": [True, 5]}, {"num_images": 3.0}],
)
def test_ids_and_counts_must_be_whole(changes):
    with pytest.raises(TypeError):
        make([1, 2], **changes)


@settings(max_examples=30)
@given(counts_and_images())
def test_dict_survives_json(case):
    statistics = make(*case).with_groups("quantiles")
    again = CategoryStatistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    assert again == statistics
    assert hash(again) == hash(statistics)


def test_dict_is_plain_where_the_counts_were_numpy():
    statistics = make([1, 2], category_ids=np.array([4, 5]), image_count=np.array([1, 2]))
    assert {type(row["id"]) for row in statistics.to_dict()["categories"]} == {int}
    assert json.loads(json.dumps(statistics.to_dict())) == statistics.to_dict()


@pytest.mark.parametrize(
    "content",
    [{}, {"num_images": 3}, {"num_images": 3, "categories": [{"id": 1}]}, {"categories": 3}],
)
def test_a_dict_of_another_form_is_refused(content):
    with pytest.raises(DataError, match="no category statistics"):
        CategoryStatistics.from_dict(content)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"names": ["cat", 7]}, "name must be text, got 7"),
        ({"names": [None, "dog"]}, "name must be text, got None"),
        ({"category_ids": [1, 2**63]}, "64 bits"),
        ({"instance_count": [2, 10**5000]}, "64 bits"),
        ({"num_images": 2**64}, "64 bits"),
    ],
)
def test_names_are_text_and_numbers_have_64_bits(changes, problem):
    with pytest.raises(DataError, match=problem):
        make([1, 2], **changes)


def test_statistics_differ_where_anything_differs():
    base = make([1, 2, 3], 5)
    assert base == make([1, 2, 3], 5)
    assert base != make([1, 2, 3], 6)
    assert base != make([1, 2, 2], 5)
    assert base != base.with_groups("quantiles")
    assert base != "statistics"


def test_statistics_cannot_be_assigned_to():
    with pytest.raises(AttributeError):
        make([1, 2]).num_images = 7
