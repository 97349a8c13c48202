"""Rare, common and frequent: two ways to form the three groups that LVIS reports AP for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from eql_d2.errors import ConfigError, DataError

GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
RARE_MAX = 10
COMMON_MAX = 100


@dataclass(frozen=True)
class Grouping:
    """How the groups of a set of categories were formed; ``str`` says it in words.

    Attributes:
        mode: ``"counts"`` (:func:`groups_by_counts`), ``"quantiles"``
            (:func:`groups_by_quantiles`) or ``"frequency"``: the official groups that LVIS files
            give in the field of that name.
        rare_max: images of mode counts, None in the others.
        common_max: images of mode counts, None in the others.

    Raises:
        DataError: an unknown mode, or thresholds that do not fit it.
    """

    mode: str
    rare_max: int | None = None
    common_max: int | None = None

    def __post_init__(self) -> None:
        thresholds = (self.rare_max, self.common_max)
        expected = int if self.mode == "counts" else type(None)
        if self.mode not in ("counts", "quantiles", "frequency") or any(
            type(value) is not expected for value in thresholds
        ):
            raise DataError(
                "groups are formed by mode counts (with the whole numbers rare_max and common_max),"
                f" quantiles or frequency (without them), got {self!r}"
            )

    def __str__(self) -> str:
        if self.mode == "counts":
            limits = f"at most {self.rare_max}, at most {self.common_max}, more"
            return f"{limits} training images (counts)"
        if self.mode == "quantiles":
            return "thirds of the categories by training images (quantiles)"
        return "the frequency field of the test annotations"


def groups_by_counts(
    image_count: Sequence[int], rare_max: int = RARE_MAX, common_max: int = COMMON_MAX
) -> tuple[str, ...]:
    """Group categories as LVIS does (Gupta et al., CVPR 2019): by their training images.

    Args:
        image_count: images that hold each category.
        rare_max: rare is at most so many images.
        common_max: common is more than ``rare_max`` and at most so many; frequent is the rest.

    Returns:
        ``"r"``, ``"c"`` or ``"f"`` for each category.

    Raises:
        ConfigError: not ``0 <= rare_max <= common_max``.
    """
    if not 0 <= rare_max <= common_max:
        raise ConfigError(
            "group thresholds must satisfy 0 <= rare_max <= common_max, "
            f"got rare_max {rare_max} and common_max {common_max}"
        )
    return tuple("r" if n <= rare_max else "c" if n <= common_max else "f" for n in image_count)


def groups_by_quantiles(image_count: Sequence[int]) -> tuple[str, ...]:
    """Group categories by thirds of their order, for sets too small for 10 and 100 images.

    A category's place is the middle of those with equal counts, as a share of all categories:
    rare is below 1/3, common below 2/3, frequent the rest. Equal counts thus share a group, and
    where all counts are equal all are common.

    Args:
        image_count: images that hold each category.

    Returns:
        ``"r"``, ``"c"`` or ``"f"`` for each category.
    """
    ordered = sorted(image_count)
    total = len(ordered)
    places = [(bisect_left(ordered, n) + bisect_right(ordered, n)) for n in image_count]
    return tuple("r" if 3 * p < 2 * total else "c" if 3 * p < 4 * total else "f" for p in places)
