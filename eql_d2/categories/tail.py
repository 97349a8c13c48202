"""Which lambda gives a wanted tail ratio."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, Context


def lambda_at_most(
    image_count: Sequence[int], num_images: int, tail_ratio: float
) -> tuple[float, int]:
    """Find the largest tail whose share of all image counts does not exceed ``tail_ratio``.

    Categories with equal image counts enter the tail together. lambda is put half-way between the
    largest fraction inside the tail (0 where the tail is empty) and the smallest outside it; where
    all categories are tail, half an image above the largest fraction.

    Args:
        image_count: images that hold each category; at least one is above 0.
        num_images: images with at least one annotation.
        tail_ratio: wanted share of the sum of ``image_count``.

    Returns:
        lambda, and the sum of the image counts of the tail.
    """
    total = sum(image_count)
    inside = tail_sum = 0
    outside = max(image_count) + 1
    for level in sorted(set(image_count)):
        level_sum = level * sum(n == level for n in image_count)
        if (tail_sum + level_sum) / total > tail_ratio:
            outside = level
            break
        inside, tail_sum = level, tail_sum + level_sum
    return (inside + outside) / 2 / num_images, tail_sum


def rounded_up(part: int, whole: int, digits: int = 3) -> float:
    """Return ``part / whole`` with so many significant digits, not below the quotient."""
    return float(Context(prec=digits, rounding=ROUND_CEILING).divide(part, whole))
