"""Which categories are tail, and which lambda gives a wanted share of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eql_d2.categories import CategoryStatistics
from eql_d2.errors import ConfigError

# (table, lambda, categories below it as r/c/f, tail ratio in percent), from the equalization loss's
# literature: counted there from the category lists of the authors' second release.
LITERATURE = [
    ("lvis_v0.5", 1.76e-4, (434, 0, 0), 0.83),
    ("lvis_v0.5", 5e-4, (454, 240, 0), 3.14),
    ("lvis_v0.5", 1.5e-3, (454, 434, 0), 7.84),
    ("lvis_v0.5", 1.76e-3, (454, 458, 0), 8.94),
    ("lvis_v0.5", 1.77e-3, (454, 461, 0), 9.09),
    ("lvis_v0.5", 2e-3, (454, 461, 14), 9.83),
    ("lvis_v0.5", 3e-3, (454, 461, 61), 13.04),
    ("lvis_v0.5", 5e-3, (454, 461, 106), 17.89),
    ("lvis_v1", 1.1e-4, (337, 0, 0), 0.41),
    ("lvis_v1", 5e-4, (337, 329, 0), 2.79),
    ("lvis_v1", 1.0e-3, (337, 459, 0), 5.35),
    ("lvis_v1", 1.0062e-3, (337, 461, 0), 5.40),
    ("lvis_v1", 0.00101, (337, 461, 0), 5.40),
    ("lvis_v1", 1.1e-3, (337, 461, 17), 5.89),
    ("lvis_v1", 1.76e-3, (337, 461, 78), 8.16),
]


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


@pytest.mark.parametrize(("table", "lambda_", "below", "percent"), LITERATURE)
def test_tails_of_lvis_are_those_of_the_literature(table, lambda_, below, percent):
    statistics = CategoryStatistics.from_table(table)
    mask = statistics.tail_mask(lambda_).tolist()
    tail = [g for g, inside in zip(statistics.groups, mask, strict=True) if inside]
    assert tuple(tail.count(letter) for letter in "rcf") == below
    assert round(100 * statistics.tail_ratio(lambda_), 2) == percent


def test_a_fraction_equal_to_lambda_is_not_tail():
    statistics = CategoryStatistics.from_table("lvis_v1")
    at_ten_images = 10 / statistics.num_images
    assert int(statistics.image_count[statistics.tail_mask(at_ten_images)].max()) == 9
    above = math.nextafter(at_ten_images, 1.0)
    assert int(statistics.image_count[statistics.tail_mask(above)].max()) == 10


def test_lambda_zero_selects_nothing_and_a_large_one_everything():
    statistics = make([0, 3, 5])
    assert statistics.tail_mask(0.0).tolist() == [False, False, False]
    assert statistics.tail_mask(1.1).tolist() == [True, True, True]
    assert statistics.tail_ratio(1.1) == 1.0


@pytest.mark.parametrize("lambda_", [-1e-9, math.nan, math.inf])
def test_a_lambda_that_is_no_threshold_is_refused(lambda_):
    with pytest.raises(ConfigError, match="lambda"):
        make([1, 2]).tail_mask(lambda_)


@given(counts_and_images(), st.floats(0.0, 1.2))
def test_tail_ratio_equals_a_plain_sum(case, lambda_):
    counts, num_images = case
    tail = [n for n in counts if n / num_images < lambda_]
    statistics = make(counts, num_images)
    assert statistics.tail_mask(lambda_).sum() == len(tail)
    assert statistics.tail_ratio(lambda_) == sum(tail) / sum(counts)


@given(counts_and_images(), st.floats(0.0, 1.0))
def test_lambda_gives_the_largest_tail_that_does_not_exceed_the_wish(case, wanted):
    counts, num_images = case
    statistics = make(counts, num_images)
    possible = [sum(n for n in counts if n < limit) / sum(counts) for limit in range(32)]
    best = max(ratio for ratio in possible if ratio <= wanted)
    if best == 0 < wanted:
        with pytest.raises(ConfigError):
            statistics.lambda_for_tail_ratio(wanted)
    else:
        assert statistics.tail_ratio(statistics.lambda_for_tail_ratio(wanted)) == best


@given(counts_and_images(), st.floats(0.0, 1.2))
def test_lambda_to_tail_ratio_and_back_selects_the_same_images(case, lambda_):
    statistics = make(*case)
    ratio = statistics.tail_ratio(lambda_)
    assert statistics.tail_ratio(statistics.lambda_for_tail_ratio(ratio)) == ratio


@pytest.mark.parametrize(
    ("wanted", "images"), [(0.0, 0.5), (0.1, 1.5), (0.29, 1.5), (0.3, 4.5), (0.99, 4.5), (1.0, 7.5)]
)
def test_lambda_stands_half_way_between_two_fractions(wanted, images):
    statistics = make([1, 2, 7], 20)
    if wanted == 0.3:
        assert statistics.tail_ratio(0.15) == 0.3
    assert statistics.lambda_for_tail_ratio(wanted) == pytest.approx(images / 20, rel=1e-15)


def test_the_published_lambdas_are_found_from_their_tail_ratios():
    old, new = (CategoryStatistics.from_table(t) for t in ("lvis_v0.5", "lvis_v1"))
    assert 1.76243e-3 < old.lambda_for_tail_ratio(0.0909) < 1.79767e-3
    assert 1.006158e-3 < new.lambda_for_tail_ratio(0.05401) < 1.016219e-3


@pytest.mark.parametrize("wanted", [-0.1, 1.1, math.nan])
def test_a_tail_ratio_outside_of_0_to_1_is_refused(wanted):
    with pytest.raises(ConfigError, match="tail ratio"):
        make([1, 2]).lambda_for_tail_ratio(wanted)


@pytest.mark.parametrize(
    ("counts", "wanted", "smallest", "tail"),
    [
        # 80 real images: 18 categories of one image hold 18 / 302 = 5.96 % of all image counts
        ([1] * 18 + [71, 71, 71, 71], 0.05, "0.0597", "18 categories with 1 image each"),
        ([0, 1, 200], 0.004, "0.00498", "1 category with 1 image, and 1 without images"),
        ([5, 5], 0.1, "1", "2 categories with 5 images each"),
        ([0, 5, 5, 0], 0.99, "1", "2 categories with 5 images each, and 2 without images"),
        # rounded up, the ratio reaches the next count too, and the message says so
        ([10] * 1000 + [11, 89979], 0.1, "0.101", "1001 categories with 10 to 11 images each"),
    ],
)
def test_a_tail_ratio_without_a_tail_is_refused_with_the_smallest_that_has_one(
    counts, wanted, smallest, tail
):
    statistics = make(counts)
    with pytest.raises(ConfigError) as caught:
        statistics.lambda_for_tail_ratio(wanted)
    assert str(caught.value) == (
        f"a tail ratio of {wanted:g} selects no category that has images; the smallest tail ratio "
        f"with a tail here is {smallest}: {tail}"
    )
    lambda_ = statistics.lambda_for_tail_ratio(float(smallest))
    assert statistics.describe_tail(lambda_) == tail


@given(counts_and_images())
def test_the_smallest_tail_ratio_can_be_had_and_none_below_it(case):
    statistics = make(*case)
    smallest = statistics.smallest_tail_ratio()
    lambda_ = statistics.lambda_for_tail_ratio(smallest)
    assert statistics.image_count[statistics.tail_mask(lambda_)].any()
    reached = min(n for n in case[0] if n) * case[0].count(min(n for n in case[0] if n))
    with pytest.raises(ConfigError, match="the smallest tail ratio with a tail"):
        statistics.lambda_for_tail_ratio(math.nextafter(reached / sum(case[0]), 0.0))
