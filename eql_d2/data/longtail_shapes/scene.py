"""Painting one image: noise, then objects one over another, with the pixels each one shows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eql_d2.data.longtail_shapes.appearance import inside, shade
from eql_d2.data.longtail_shapes.plan import Category

MIN_RADIUS, MAX_RADIUS = 0.075, 0.17  # of the image side
MIN_VISIBLE = 0.6
MIN_PIXELS = 24
SECOND_INSTANCE = 0.35
SMALLEST_RADIUS = 5.0
PLACES_TRIED = 40


@dataclass
class Painted:
    """An object of category ``category``; ``mask`` (H, W) holds the pixels that show it."""

    category: int
    mask: NDArray[np.bool_]
    full_area: int


def paint_scene(
    present: Sequence[int], categories: Sequence[Category], size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Painted]]:
    """Paint one or two objects of each category that is present.

    Args:
        present: indices of categories; each gets at least one object.
        categories: how they look.
        size: side of the image, pixels.
        rng: source of chance.

    Returns:
        The (size, size, 3) image and its objects. Later objects hide parts of earlier ones, of
        which at least 60 % stay visible; masks hold visible pixels only.
    """
    image = _background(size, rng)
    painted: list[Painted] = []
    wanted = [(category, True) for category in present]
    wanted += [(category, False) for category in present if rng.random() < SECOND_INSTANCE]
    for category, required in wanted:
        _add_object(image, painted, category, categories[category], required, rng)
    return image, painted


def _background(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey clouds and grain; few grey levels keep the files small."""
    cells = 6
    coarse = rng.uniform(60.0, 170.0, (cells + 1, cells + 1))
    position = np.arange(size) * (cells / size)
    cell = position.astype(int)
    part = position - cell
    rows = coarse[cell] * (1.0 - part[:, None]) + coarse[cell + 1] * part[:, None]
    cloud = rows[:, cell] * (1.0 - part) + rows[:, cell + 1] * part
    grey = cloud + rng.integers(-3, 4, (size, size)) * 8.0
    return np.repeat((np.clip(grey, 0, 255) // 8 * 8).astype(np.uint8)[..., None], 3, axis=2)


def _add_object(
    image: NDArray[np.uint8],
    painted: list[Painted],
    category: int,
    look: Category,
    required: bool,
    rng: np.random.Generator,
) -> None:
    """Paint an object where it hides little; one that is not required may be left out.

    A required one shrinks until it fits, which it does: the few objects of an image cover a small
    part of it.
    """
    size = image.shape[0]
    radius = size * rng.uniform(MIN_RADIUS, MAX_RADIUS)
    for tried in itertools.count(1):
        u, v = _own_coordinates(size, radius, rng)
        mask = inside(look.shape, u, v)
        if _fits(mask, painted):
            break
        if tried % PLACES_TRIED == 0:
            if not required:
                return
            radius = max(0.9 * radius, SMALLEST_RADIUS)
    for other in painted:
        other.mask &= ~mask
    value = rng.uniform(0.75, 1.0)
    hue = look.hue + rng.uniform(-0.02, 0.02)
    image[mask] = shade(look.texture, hue, value, u[mask], v[mask])
    painted.append(Painted(category, mask, int(mask.sum())))


def _own_coordinates(
    size: int, radius: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Choose a place and a small turn; return the pixels' places as the object sees them."""
    x, y = rng.uniform(0.9 * radius, size - 0.9 * radius, 2)
    angle = rng.uniform(-0.35, 0.35)
    pixel = np.arange(size) + 0.5
    dx, dy = (pixel - x)[None, :] / radius, (pixel - y)[:, None] / radius
    return np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx


def _fits(mask: NDArray[np.bool_], painted: Sequence[Painted]) -> bool:
    if mask.sum() < MIN_PIXELS:
        return False
    for other in painted:
        visible = int((other.mask & ~mask).sum())
        if visible < max(MIN_PIXELS, MIN_VISIBLE * other.full_area):
            return False
    return True
