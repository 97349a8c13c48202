import pytest
from hypothesis import given
from hypothesis import strategies as st

from eql_d2.categories import CategoryStatistics, groups_by_counts, groups_by_quantiles
from eql_d2.errors import ConfigError


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
