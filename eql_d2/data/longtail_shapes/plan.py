"""Which categories there are, and which image holds which: planned exactly before painting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eql_d2.data.longtail_shapes.appearance import SHAPES, TEXTURES, hue_name, num_hues
from eql_d2.errors import ConfigError

CATEGORIES_PER_IMAGE = 4
RAREST = 2
SHARE_OF_HEAD = 0.5
SHARE_OF_TEST = 0.75
_LEAST = {
    "num_categories": 1,
    "num_train_images": 2,
    "num_test_images": 2,
    "image_size": 64,
    "seed": 0,
}


@dataclass(frozen=True)
class Category:
    """How the objects of one category look; ``hue`` is in turns, 0..1."""

    name: str
    shape: str
    texture: str
    hue: float


@dataclass(frozen=True)
class Parameters:
    """What a generated set depends on.

    Raises:
        ConfigError: a value with which no set can be made; all of them are named.
    """

    num_categories: int
    num_train_images: int
    num_test_images: int
    image_size: int
    seed: int

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be a whole number >= {least}, got {getattr(self, name)!r}"
            for name, least in _LEAST.items()
            if not _is_at_least(getattr(self, name), least)
        ]
        if not problems:
            needed = -(-self.num_categories * RAREST // CATEGORIES_PER_IMAGE)
            problems += [
                f"{name} must be >= {needed} for {self.num_categories} categories ({RAREST} images "
                f"each, {CATEGORIES_PER_IMAGE} categories an image), got {getattr(self, name)}"
                for name in ("num_train_images", "num_test_images")
                if getattr(self, name) < needed
            ]
        if problems:
            raise ConfigError([f"longtail_shapes: {problem}" for problem in problems])


def make_categories(num_categories: int) -> list[Category]:
    """Return categories from the most to the least frequent one.

    A category is a shape with a texture and a hue. The shapes take turns, so every shape has
    members at the head and at the tail: a rare category shares its shape with frequent ones, and
    its texture and its hue with others. What is rare is only the combination, as with the rare
    categories of real data; it is there to be learnt, and easy to suppress.
    """
    families = min(len(SHAPES), -(-num_categories // 4))
    hues = num_hues(num_categories, families)
    categories = []
    for rank in range(num_categories):
        shape, level = rank % families, rank // families
        texture = (level + shape) % len(TEXTURES)
        turn = level // len(TEXTURES) + 3 * (level % len(TEXTURES)) + shape
        hue = turn % hues
        name = f"{TEXTURES[texture]}_{hue_name(hue, hues)}_{SHAPES[shape]}"
        categories.append(Category(name, SHAPES[shape], TEXTURES[texture], hue / hues))
    return categories


def longtail_image_counts(num_categories: int, num_images: int) -> list[int]:
    """Return the images of each category by rank, falling on a straight line in logarithms.

    The rarest category has 2 images; the most frequent has as many as an average of 4 categories
    an image allows, but at most half of the images.
    """
    budget = CATEGORIES_PER_IMAGE * num_images
    low, high = RAREST, max(RAREST, int(SHARE_OF_HEAD * num_images))
    while low < high:
        middle = (low + high + 1) // 2
        if sum(_log_linear(num_categories, middle)) <= budget:
            low = middle
        else:
            high = middle - 1
    return _log_linear(num_categories, low)


def even_image_counts(num_categories: int, num_images: int) -> list[int]:
    """Return equal counts of images for the test set, at most 3/4 of all images."""
    equal = CATEGORIES_PER_IMAGE * num_images // num_categories
    return [max(1, min(equal, int(SHARE_OF_TEST * num_images)))] * num_categories


def assign_images(
    image_counts: Sequence[int], num_images: int, rng: np.random.Generator
) -> list[list[int]]:
    """Return the categories of each image so that every category is in exactly its count of images.

    Images with few categories so far are preferred, with some chance, so loads stay near the mean.
    """
    load = np.zeros(num_images)
    categories: list[list[int]] = [[] for _ in range(num_images)]
    for category, count in enumerate(image_counts):
        preference = load + rng.uniform(0.0, 2.0, num_images)
        for image in np.argsort(preference, kind="stable")[:count]:
            categories[image].append(category)
            load[image] += 1
    return categories


def _log_linear(num_categories: int, most: int) -> list[int]:
    steps = max(num_categories - 1, 1)
    return [round(most * (RAREST / most) ** (rank / steps)) for rank in range(num_categories)]


def _is_at_least(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
