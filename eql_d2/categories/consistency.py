"""Checks that counts of categories do not contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

from eql_d2.categories.grouping import GROUP_NAMES
from eql_d2.errors import DataError


def check_counts(
    names: Sequence[str],
    category_ids: Sequence[int],
    image_count: Sequence[int],
    instance_count: Sequence[int],
    groups: Sequence[str],
    num_images: int,
) -> None:
    """Refuse counts that cannot all be true.

    Arguments are those of :meth:`~eql_d2.categories.CategoryStatistics.from_counts`: K names, ids,
    counts of images and of instances, and groups, and how many images are annotated at all.

    Raises:
        DataError: there is no category, the columns differ in length, a name is no text, an id
            is repeated, a number has more than 64 bits, a group has an unknown letter, or a
            category has more images than instances or than the set.
        TypeError: an id or a count is no whole number.
    """
    lengths = {len(c) for c in (names, category_ids, image_count, instance_count, groups)}
    if lengths == {0}:
        raise DataError("there must be at least one category")
    if len(lengths) > 1:
        raise DataError(
            f"every category needs a name, an id, both counts and a group; got {len(names)} names, "
            f"{len(category_ids)} ids, {len(image_count)} image counts, {len(instance_count)} "
            f"instance counts and {len(groups)} groups"
        )
    for name in names:
        if not isinstance(name, str):
            raise DataError(f"a category's name must be text, got {name!r:.80}")
    for number in (*category_ids, *image_count, *instance_count, num_images):
        bits = whole_number(number).bit_length()
        if bits > 63:
            raise DataError(f"ids and counts must be numbers of 64 bits, got one of {bits + 1}")
    if len(set(category_ids)) < len(category_ids):
        raise DataError("category ids must differ from each other")
    for letter in set(groups) - set(GROUP_NAMES):
        raise DataError(f"a group must be one of {', '.join(GROUP_NAMES)}, got {letter!r}")
    for name, images, instances in zip(names, image_count, instance_count, strict=True):
        if not 0 <= images <= min(instances, num_images):
            raise DataError(
                f"category {name!r} has {images} images and {instances} instances in a set of "
                f"{num_images} annotated images; 0 <= images <= instances and images <= "
                f"{num_images} must hold"
            )


def whole_number(value: Any) -> int:
    """Return an int, also for those of NumPy and PyTorch.

    Raises:
        TypeError: it is none; a bool, which would count as 0 or 1, is none either.
    """
    if isinstance(value, bool):
        raise TypeError(f"{value} is no whole number")
    return index(value)
