import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eql_d2.categories import (
    CategoryStatistics,
    Grouping,
    groups_by_counts,
    groups_by_quantiles,
    read_statistics,
    write_statistics,
)
from eql_d2.errors import ConfigError, DataError


def test_lvis_thresholds_include_10_and_100():
    assert groups_by_counts([0, 1, 10, 11, 100, 101]) == ("r", "r", "r", "c", "c", "f")


def test_thresholds_can_be_moved_together_and_apart():
    assert groups_by_counts([1, 2, 3, 4], rare_max=1, common_max=3) == ("r", "c", "c", "f")
    assert groups_by_counts([1, 2, 3], rare_max=2, common_max=2) == ("r", "r", "f")


@pytest.mark.parametrize(("rare", "common"), [(-1, 5), (6, 5)])
def test_thresholds_out_of_order_are_refused(rare, common):
    with pytest.raises(ConfigError, match=f"rare_max {rare} and common_max {common}"):
        groups_by_counts([1], rare, common)


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ([5], "c"),
        ([5, 5, 5, 5], "cccc"),
        ([1, 9], "rf"),
        ([1, 2, 3], "rcf"),
        ([3, 1, 2, 6, 5, 4], "crrffc"),
        ([1, 1, 1, 9], "cccf"),
        ([1, 1, 5, 9], "rrcf"),
        ([1, 2, 3, 4], "rccf"),
    ],
)
def test_quantiles_form_thirds_and_keep_ties_together(counts, groups):
    assert "".join(groups_by_quantiles(counts)) == groups


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_quantile_groups_are_ordered_and_mirrored(counts):
    groups = groups_by_quantiles(counts)
    order = ["rcf".index(g) for _, g in sorted(zip(counts, groups, strict=True))]
    assert order == sorted(order)
    assert len({(n, g) for n, g in zip(counts, groups, strict=True)}) == len(set(counts))
    if len(set(counts)) == len(counts):
        mirrored = groups_by_quantiles([-n for n in counts])
        assert groups.count("r") == mirrored.count("r") == groups.count("f")


def test_statistics_take_new_groups_and_keep_the_rest():
    table = CategoryStatistics.from_table("lvis_v1")
    narrow = table.with_groups("counts", rare_max=1, common_max=20)
    assert table.image_count[[g == "r" for g in narrow.groups]].max() == 1
    assert narrow.to_dict()["num_images"] == table.num_images
    assert narrow.with_groups() == table
    thirds = table.with_groups("quantiles")
    assert [thirds.groups.count(g) for g in "rcf"] == pytest.approx([401] * 3, abs=25)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="'counts' or 'quantiles', got 'thirds'"):
        CategoryStatistics.from_table("lvis_v1").with_groups("thirds")


def test_thresholds_are_not_accepted_and_ignored_by_quantiles():
    with pytest.raises(ConfigError, match="belong to group mode 'counts'"):
        CategoryStatistics.from_table("lvis_v1").with_groups("quantiles", rare_max=3)


COUNTS = "at most 2, at most 5, more training images (counts)"
THIRDS = "thirds of the categories by training images (quantiles)"
FIELD = "the frequency field of the test annotations"


@pytest.mark.parametrize(
    ("grouping", "words"),
    [
        (Grouping("counts", 2, 5), COUNTS),
        (Grouping("quantiles"), THIRDS),
        (Grouping("frequency"), FIELD),
    ],
)
def test_how_groups_were_formed_is_written_and_read(tmp_path, grouping, words):
    assert str(grouping) == words
    statistics = CategoryStatistics.from_counts(
        names=["a", "b"], category_ids=[4, 9], image_count=[1, 3], instance_count=[1, 3],
        num_images=3, groups=["f", "r"], grouping=grouping,
    )  # fmt: skip
    write_statistics(statistics, tmp_path)
    for source in (tmp_path, tmp_path / "category_statistics.json"):
        again = read_statistics(source)
        assert again == statistics
        assert again.grouping == grouping


def test_new_groups_say_how_they_were_formed():
    table = CategoryStatistics.from_table("lvis_v1")
    assert table.grouping is None, "LVIS's own letters"
    assert table.with_groups("quantiles").grouping == Grouping("quantiles")
    assert table.with_groups("counts", 2, 5).grouping == Grouping("counts", 2, 5)
    assert "groups" not in table.to_dict()


def test_statistics_of_earlier_versions_are_read(tmp_path):
    content = CategoryStatistics.from_table("lvis_v0.5").to_dict()
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    assert read_statistics(path) == CategoryStatistics.from_table("lvis_v0.5")
    assert read_statistics(path).grouping is None


@pytest.mark.parametrize(
    "groups",
    [
        {"mode": "median"},
        {"mode": "counts"},
        {"mode": "counts", "rare_max": "1", "common_max": 2},
        {"mode": "counts", "rare_max": True, "common_max": 2},
        {"mode": "quantiles", "rare_max": 1},
        {"mode": "quantiles", "and": 1},
        {},
        [],
        "\x1b[31mquantiles",
    ],
)
def test_groups_formed_in_no_known_way_are_refused(tmp_path, groups):
    content = CategoryStatistics.from_table("lvis_v0.5").to_dict() | {"groups": groups}
    path = tmp_path / "category_statistics.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"category_statistics\.json: ") as caught:
        read_statistics(path)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_images": 1 << 70}, "no category statistics"),
        ({"categories": []}, "at least one category"),
        ({"categories": [{"id": 1}]}, "no category statistics"),
    ],
)
def test_damaged_statistics_are_named(tmp_path, changes, message):
    row = {"id": 1, "name": "a", "frequency": "r", "image_count": 1 << 65}
    row["instance_count"] = row["image_count"]
    content = {"num_images": 2, "categories": [row]} | changes
    (tmp_path / "category_statistics.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"category_statistics\.json: .*{message}"):
        read_statistics(tmp_path)


def test_a_folder_without_statistics_is_named(tmp_path):
    with pytest.raises(DataError, match=r"holds no category_statistics\.json, which a run"):
        read_statistics(tmp_path)
