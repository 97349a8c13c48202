"""Which images are shown: rare categories first, always the same ones."""

import random

import pytest

from eql_d2.data import ImageRecord, Instance
from eql_d2.plotting.choice import choose_images

GROUPS = ("r", "r", "c", "f")


def image(image_id, *categories):
    instances = [Instance(c, (0.0, 0.0, 5.0, 5.0), None, False) for c in categories]
    return ImageRecord(image_id, f"{image_id}.png", 10, 10, instances)


def chosen_ids(images, number, groups=GROUPS):
    return [i.image_id for i in choose_images(images, groups, number)]


def test_rare_then_common_then_the_rest():
    images = [image(1), image(2, 3), image(3, 2), image(4, 1), image(5, 0)]
    assert chosen_ids(images, 5) == [4, 5, 3, 2, 1]


def test_a_rare_category_already_shown_counts_no_more():
    images = [image(1, 0, 0, 0, 0), image(2, 0, 0, 0), image(3, 2), image(4, 1)]
    assert chosen_ids(images, 4) == [1, 4, 3, 2]


def test_readable_pictures_win_among_equals():
    crowded, readable, sparse = image(1, *[0] * 40), image(2, *[0] * 4), image(3, 0)
    assert chosen_ids([crowded, sparse, readable], 1) == [2]


def test_groups_decide_not_the_order_of_categories():
    images = [image(1, 0), image(2, 3)]
    assert chosen_ids(images, 1, ("f", "f", "f", "r")) == [2]


@pytest.mark.parametrize("number", [0, 1, 3, 50])
def test_never_more_than_asked_or_there_are_and_none_twice(number):
    images = [image(i, i % 4) for i in range(20)]
    ids = chosen_ids(images, number)
    assert len(ids) == len(set(ids)) == min(number, 20)


def test_the_choice_does_not_depend_on_chance():
    source = random.Random(0)
    images = [image(i, *source.choices(range(4), k=source.randrange(7))) for i in range(60)]
    assert chosen_ids(images, 9) == chosen_ids(list(images), 9)


def test_negative_number():
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        choose_images([], GROUPS, -1)
