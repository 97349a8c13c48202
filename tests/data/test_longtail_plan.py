import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.categories import groups_by_counts
from eql_d2.data.longtail_shapes.appearance import SHAPES, TEXTURES, inside, num_hues, shade
from eql_d2.data.longtail_shapes.plan import (
    CATEGORIES_PER_IMAGE,
    Parameters,
    assign_images,
    even_image_counts,
    longtail_image_counts,
    make_categories,
)
from eql_d2.errors import ConfigError

DEFAULTS = {
    "num_categories": 40,
    "num_train_images": 600,
    "num_test_images": 200,
    "image_size": 160,
    "seed": 0,
}


def test_default_counts_have_all_three_groups():
    counts = longtail_image_counts(40, 600)
    assert (counts[0], counts[-1]) == (289, 2)
    groups = groups_by_counts(counts)
    assert [groups.count(g) for g in "rcf"] == [14, 17, 9]
    assert sum(counts) == pytest.approx(4 * 600, rel=0.01)


@given(st.integers(1, 300), st.integers(2, 2000))
def test_counts_fall_on_a_line_in_logarithms(num_categories, num_images):
    counts = longtail_image_counts(num_categories, num_images)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] <= max(2, num_images / 2)
    assert counts[-1] >= 2
    for rank, count in enumerate(counts):
        share = rank / max(num_categories - 1, 1)
        expected = math.exp((1 - share) * math.log(counts[0]) + share * math.log(2))
        assert abs(count - expected) <= 0.5 + 1e-9
    if 2 * num_categories <= CATEGORIES_PER_IMAGE * num_images:
        assert sum(counts) <= CATEGORIES_PER_IMAGE * num_images


@pytest.mark.parametrize(
    ("categories", "images", "each"), [(40, 200, 20), (2, 200, 150), (100, 200, 8), (400, 200, 2)]
)
def test_test_counts_are_even(categories, images, each):
    assert even_image_counts(categories, images) == [each] * categories


@settings(max_examples=60)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(0, 2**32))
def test_every_category_is_in_exactly_its_count_of_images(counts, seed):
    images = assign_images(counts, 30, np.random.default_rng(seed))
    assert len(images) == 30
    for category, count in enumerate(counts):
        assert sum(image.count(category) for image in images) == count
    assert all(len(set(image)) == len(image) for image in images)


def test_images_hold_about_equally_many_categories():
    counts = longtail_image_counts(40, 600)
    loads = [len(image) for image in assign_images(counts, 600, np.random.default_rng(0))]
    assert min(loads) >= 2
    assert max(loads) <= 7


@pytest.mark.parametrize("num_categories", [1, 2, 3, 7, 40, 80, 500, 1203])
def test_categories_differ_in_name_and_in_look(num_categories):
    categories = make_categories(num_categories)
    assert len(categories) == num_categories
    assert len({c.name for c in categories}) == num_categories
    assert len({(c.shape, c.texture, c.hue) for c in categories}) == num_categories
    assert all(0 <= c.hue < 1 for c in categories)


def test_rare_categories_share_shape_texture_and_hue_with_more_frequent_ones():
    categories = make_categories(40)
    groups = groups_by_counts(longtail_image_counts(40, 600))
    head = [c for c, g in zip(categories, groups, strict=True) if g != "r"]
    rare = [c for c, g in zip(categories, groups, strict=True) if g == "r"]
    assert rare
    for category in rare:
        for field in ("shape", "texture", "hue"):
            assert getattr(category, field) in {getattr(c, field) for c in head}
    assert len({c.shape for c in rare}) == len({c.shape for c in head}) == 10


def test_hues_grow_with_the_categories():
    assert num_hues(40, 10) == 8
    assert num_hues(12 * 6 * 8, 12) == 8
    assert num_hues(12 * 6 * 8 + 1, 12) == 9


def grid(points=101):
    axis = np.linspace(-1.3, 1.3, points)
    return np.meshgrid(axis, axis)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_square_and_no_more(shape):
    u, v = grid()
    region = inside(shape, u, v)
    extent = np.maximum(np.abs(u), np.abs(v))[region].max()
    assert 0.8 <= extent <= 1.15
    assert 0.2 < region.sum() / (np.maximum(np.abs(u), np.abs(v)) < 1).sum() < 0.85


def test_shapes_differ_from_each_other():
    u, v = grid()
    regions = [inside(shape, u, v) for shape in SHAPES]
    for i, first in enumerate(regions):
        for second in regions[:i]:
            assert (first & second).sum() / (first | second).sum() < 0.85


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_have_light_and_dark_parts_of_one_hue(texture):
    u, v = grid()
    colours = shade(texture, 0.0, 1.0, u, v)
    assert colours.dtype == np.uint8
    assert colours.shape == (*u.shape, 3)
    found = {tuple(c) for c in colours.reshape(-1, 3).tolist()}
    assert found == ({(255, 38, 38)} if texture == "plain" else {(255, 38, 38), (76, 11, 11)})


def test_textures_differ_from_each_other():
    u, v = grid()
    light = [shade(t, 0.3, 1.0, u, v)[..., 1] > 128 for t in TEXTURES]
    for i, first in enumerate(light):
        assert all((first != second).mean() > 0.15 for second in light[:i])


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"num_categories": 0}, ["num_categories must be a whole number >= 1, got 0"]),
        ({"seed": -1, "image_size": 63}, ["seed must be", "image_size must be"]),
        ({"num_train_images": 2.5}, ["num_train_images must be a whole number"]),
        ({"num_test_images": True}, ["num_test_images must be a whole number"]),
        ({"num_categories": 500}, ["num_test_images must be >= 250 for 500 categories"]),
        (
            {"num_categories": 1203},
            ["num_train_images must be >= 602", "num_test_images must be >= 602"],
        ),
    ],
)
def test_impossible_parameters_are_all_named(changes, problems):
    with pytest.raises(ConfigError) as caught:
        Parameters(**{**DEFAULTS, **changes})
    assert len(caught.value.problems) == len(problems)
    assert all(found.startswith("longtail_shapes: ") for found in caught.value.problems)
    for part in problems:
        assert part in str(caught.value)
