import numpy as np
import pytest

from eql_d2.data.longtail_shapes.annotate import AnnotationBuilder
from eql_d2.data.longtail_shapes.plan import Parameters, make_categories
from eql_d2.data.longtail_shapes.scene import MIN_PIXELS, MIN_VISIBLE, Painted, paint_scene
from eql_d2.data.masks import decode_mask

CATEGORIES = make_categories(40)
PARAMETERS = Parameters(40, 600, 200, 160, 0)


def paint(present, seed, size=96):
    return paint_scene(present, CATEGORIES, size, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(12))
def test_every_category_is_visible_and_masks_do_not_overlap(seed):
    present = list(range(seed, 40, 6))
    image, painted = paint(present, seed)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    assert {p.category for p in painted} == set(present)
    assert sum(p.mask.astype(int) for p in painted).max() == 1
    for item in painted:
        assert item.mask.sum() >= max(MIN_PIXELS, MIN_VISIBLE * item.full_area)
    counts = [sum(p.category == c for p in painted) for c in present]
    assert set(counts) <= {1, 2}


@pytest.mark.parametrize("seed", range(6))
def test_masks_are_exactly_the_coloured_pixels(seed):
    """The background is grey and no object is: so colour tells the pixels that show objects."""
    image, painted = paint([0, 5, 11, 23], seed)
    coloured = image.max(axis=2).astype(int) - image.min(axis=2) > 20
    np.testing.assert_array_equal(coloured, np.any([p.mask for p in painted], axis=0))


def test_later_objects_hide_parts_of_earlier_ones():
    scenes = [paint([0, 1, 2, 3, 4], seed)[1] for seed in range(20)]
    hidden = [p for painted in scenes for p in painted if p.mask.sum() < p.full_area]
    assert hidden
    assert all(painted[-1].mask.sum() == painted[-1].full_area for painted in scenes)


def test_a_crowded_small_image_still_gets_all_its_objects():
    _, painted = paint(list(range(14)), 3, size=64)
    assert {p.category for p in painted} == set(range(14))


def test_equal_seeds_give_equal_images_and_others_do_not():
    first, second, other = paint([1, 2], 5), paint([1, 2], 5), paint([1, 2], 6)
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.array_equal(first[0], other[0])


def two_objects_each(size=40, num=30):
    """Thirty images with two objects of categories 0 and 1, and one of category 2."""
    builder = AnnotationBuilder(CATEGORIES)
    for index in range(num):
        painted = []
        for row, category in enumerate((0, 0, 1, 1, 2)):
            mask = np.zeros((size, size), bool)
            mask[6 * row : 6 * row + 4, 3 : 9 + row] = True
            painted.append(Painted(category, mask, int(mask.sum())))
        builder.add(f"{index}.png", size, painted, np.random.default_rng(index))
    return builder.content(PARAMETERS, dict.fromkeys(range(40), 50) | {0: 3, 1: 101})


def test_boxes_areas_and_run_lengths_describe_the_mask():
    content = two_objects_each()
    annotation = content["annotations"][-1]
    assert annotation["bbox"] == [3, 24, 10, 4]
    assert annotation["area"] == 40
    mask = decode_mask(annotation["segmentation"], 40, 40)
    assert mask[24:28, 3:13].all()
    assert mask.sum() == 40


def test_ids_follow_the_alphabet_and_frequency_the_training_images():
    content = two_objects_each()
    names = [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])]
    assert names == sorted(names)
    by_name = {c["name"]: c for c in content["categories"]}
    assert [by_name[CATEGORIES[rank].name]["frequency"] for rank in range(3)] == ["r", "f", "c"]
    assert by_name[CATEGORIES[2].name]["image_count"] == 30
    assert by_name[CATEGORIES[2].name]["instance_count"] == 30
    assert by_name[CATEGORIES[3].name]["image_count"] == 0


def test_an_image_is_not_exhaustive_where_and_only_where_an_object_is_not_annotated():
    content = two_objects_each()
    name_of = {c["id"]: c["name"] for c in content["categories"]}
    twice = {CATEGORIES[0].name, CATEGORIES[1].name}
    partial = 0
    for image in content["images"]:
        found = [a["category_id"] for a in content["annotations"] if a["image_id"] == image["id"]]
        for category in set(found):
            missing = category in image["not_exhaustive_category_ids"]
            partial += missing
            expected = 2 if name_of[category] in twice and not missing else 1
            assert found.count(category) == expected
        assert set(image["not_exhaustive_category_ids"]) <= set(found)
    assert 1 <= partial <= 20


def test_a_third_of_the_absent_categories_are_negative():
    content = two_objects_each()
    for image in content["images"]:
        found = {a["category_id"] for a in content["annotations"] if a["image_id"] == image["id"]}
        negative = image["neg_category_ids"]
        assert len(negative) == len(set(negative)) == 13
        assert not found & set(negative)
    assert len({tuple(image["neg_category_ids"]) for image in content["images"]}) == 30
