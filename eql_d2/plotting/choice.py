"""Which images are worth looking at when only a few can be shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eql_d2.data import ImageRecord

# Pictures with about this many objects show something and can still be read.
READABLE_OBJECTS = 4


def choose_images(
    images: Sequence[ImageRecord], groups: Sequence[str], number: int
) -> list[ImageRecord]:
    """Choose images that show as many rare, then common, then other categories as possible.

    Each next image is one that holds a rare category not shown yet, else a common one not shown
    yet, else any category not shown yet, else any object. Among equals the one whose number of
    objects is nearest to ``READABLE_OBJECTS`` is taken, then the first in the file: the same data
    always give the same choice.

    Args:
        images: candidates; images without objects are chosen last.
        groups: r/c/f of each category.
        number: how many to choose, at most.

    Returns:
        The chosen images, best first.

    Raises:
        ValueError: ``number`` is negative.
    """
    if number < 0:
        raise ValueError(f"number of images must be 0 or more, got {number}")
    present = [{i.category for i in image.instances} for image in images]
    rare, common = ({c for c, g in enumerate(groups) if g == letter} for letter in "rc")
    shown: set[int] = set()
    left = list(range(len(images)))

    def rank(i: int) -> tuple[bool, bool, bool, bool, int, int]:
        new, number_of_objects = present[i] - shown, len(images[i].instances)
        crowded = abs(number_of_objects - READABLE_OBJECTS)
        return not new & rare, not new & common, not new, not present[i], crowded, i

    chosen: list[ImageRecord] = []
    while left and len(chosen) < number:
        best = min(left, key=rank)
        left.remove(best)
        shown |= present[best]
        chosen.append(images[best])
    return chosen
