"""What a long-tail loss must know of its categories: counts, fractions, groups and the tail.

Source: equalization loss, Tan et al., CVPR 2020 (arXiv 2003.05176), section 3, equations 8 and 12.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eql_d2.categories.annotation_file import read_annotation_file
from eql_d2.categories.bundled import read_table
from eql_d2.categories.consistency import check_counts, whole_number
from eql_d2.categories.counting import count_annotations
from eql_d2.categories.grouping import (
    COMMON_MAX,
    RARE_MAX,
    Grouping,
    groups_by_counts,
    groups_by_quantiles,
)
from eql_d2.categories.table import format_table
from eql_d2.categories.tail import lambda_at_most, rounded_up
from eql_d2.errors import ConfigError, DataError
from eql_d2.files import STATISTICS_FILE, write_json

_COLUMNS = ("id", "name", "frequency", "image_count", "instance_count")


@dataclass(frozen=True, eq=False)
class CategoryStatistics:
    """Counts of K categories over a training set, in contiguous order: sorted by dataset id.

    Build it with one of the ``from_...`` methods, which check what they are given.

    Attributes:
        names: K names.
        category_ids: K ids as the annotation file has them, ascending, possibly sparse.
        image_count: (K,) int64, images that hold at least one instance of the category.
        instance_count: (K,) int64, instances of the category.
        num_images: images that hold at least one instance of any category.
        groups: K letters: ``"r"`` rare, ``"c"`` common, ``"f"`` frequent.
        grouping: how the groups were formed; None where they were given without saying it, as in
            the bundled tables. Equality is that of counts and groups, whatever formed them.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_count: Tensor
    instance_count: Tensor
    num_images: int
    groups: tuple[str, ...]
    grouping: Grouping | None = None

    @classmethod
    def from_counts(
        cls,
        *,
        names: Sequence[str],
        category_ids: Sequence[int],
        image_count: Sequence[int],
        instance_count: Sequence[int],
        num_images: int,
        groups: Sequence[str] | None = None,
        grouping: Grouping | None = None,
    ) -> CategoryStatistics:
        """Check counts and sort them by category id.

        Args:
            names: K names.
            category_ids: K different ids, in any order.
            image_count: K counts of images.
            instance_count: K counts of instances.
            num_images: images with at least one instance of any category.
            groups: K letters; by LVIS's thresholds of 10 and 100 images where left out.
            grouping: how the given ``groups`` were formed, where that is known.

        Raises:
            DataError: the counts contradict each other.
            TypeError: an id or a count is no whole number.
        """
        if groups is None:
            groups = groups_by_counts(image_count)
            grouping = Grouping("counts", RARE_MAX, COMMON_MAX)
        columns = (names, category_ids, image_count, instance_count, groups)
        check_counts(*columns, num_images)
        rows = sorted(zip(*columns, strict=True), key=lambda row: row[1])
        sorted_names, ids, images, instances, letters = zip(*rows, strict=True)
        return cls(
            names=sorted_names,
            category_ids=tuple(whole_number(i) for i in ids),
            image_count=torch.tensor([whole_number(n) for n in images], dtype=torch.int64),
            instance_count=torch.tensor([whole_number(n) for n in instances], dtype=torch.int64),
            num_images=whole_number(num_images),
            groups=letters,
            grouping=grouping,
        )

    @classmethod
    def from_table(cls, name: str) -> CategoryStatistics:
        """Return the bundled statistics of the LVIS training sets: ``lvis_v1``, ``lvis_v0.5``.

        Raises:
            ConfigError: there is no such table; the message lists those there are.
        """
        return cls.from_dict(read_table(name))

    @classmethod
    def from_json(cls, path: str | Path) -> CategoryStatistics:
        """Count a COCO or LVIS annotation file; a category's own ``image_count`` is not trusted.

        Raises:
            DataError: the file cannot be read or is no annotation file.
        """
        return cls.from_counts(**vars(count_annotations(read_annotation_file(path), path)))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CategoryStatistics:
        """Rebuild what :meth:`to_dict` returned; the bundled tables have the same form.

        Raises:
            DataError: ``content`` has another form.
        """
        try:
            rows, grouping = content["categories"], content.get("groups")
            return cls.from_counts(
                names=[row["name"] for row in rows],
                category_ids=[row["id"] for row in rows],
                image_count=[row["image_count"] for row in rows],
                instance_count=[row["instance_count"] for row in rows],
                num_images=content["num_images"],
                groups=[row["frequency"] for row in rows],
                grouping=None if grouping is None else Grouping(**grouping),
            )
        except (LookupError, TypeError, OverflowError) as error:
            raise DataError(
                f"these are no category statistics: {type(error).__name__} {error}. Expected are "
                f"'num_images' and 'categories' with {', '.join(_COLUMNS)}"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain ints, strings and lists, fit for json and for a checkpoint."""
        counts = (self.image_count.tolist(), self.instance_count.tolist())
        rows = zip(self.category_ids, self.names, self.groups, *counts, strict=True)
        groups = {} if self.grouping is None else {"groups": asdict(self.grouping)}
        return {
            "num_images": self.num_images,
            **groups,
            "categories": [dict(zip(_COLUMNS, row, strict=True)) for row in rows],
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CategoryStatistics):
            return NotImplemented
        return replace(self, grouping=None).to_dict() == replace(other, grouping=None).to_dict()

    def __hash__(self) -> int:
        return hash((self.category_ids, self.names, self.groups, self.num_images))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def image_fraction(self) -> Tensor:
        """(K,) float64: f_j, the share of the annotated images that hold category j."""
        return self.image_count.double() / max(self.num_images, 1)

    def with_groups(
        self, mode: str = "counts", rare_max: int = RARE_MAX, common_max: int = COMMON_MAX
    ) -> CategoryStatistics:
        """Return the same counts in other groups.

        Args:
            mode: ``"counts"`` with the two thresholds, or ``"quantiles"``, which forms thirds and
                knows no thresholds (:func:`eql_d2.categories.groups_by_quantiles`).
            rare_max: rare is at most so many images.
            common_max: common is at most so many images.

        Raises:
            ConfigError: unknown mode, thresholds out of order, or thresholds given to quantiles.
        """
        counts = self.image_count.tolist()
        if mode == "counts":
            letters = groups_by_counts(counts, rare_max, common_max)
            return replace(self, groups=letters, grouping=Grouping(mode, rare_max, common_max))
        if mode != "quantiles":
            raise ConfigError(f"group mode must be 'counts' or 'quantiles', got {mode!r}")
        if (rare_max, common_max) != (RARE_MAX, COMMON_MAX):
            raise ConfigError(
                "rare_max and common_max belong to group mode 'counts'; quantiles are always thirds"
            )
        return replace(self, groups=groups_by_quantiles(counts), grouping=Grouping(mode))

    def tail_mask(self, lambda_: float) -> Tensor:
        """Return (K,) bool: T(f_j) = 1[f_j < lambda], strictly below (EQL equation 8).

        Raises:
            ConfigError: ``lambda_`` is negative or no number.
        """
        if not (math.isfinite(lambda_) and lambda_ >= 0):
            raise ConfigError(f"lambda must be a number >= 0, got {lambda_}")
        return self.image_fraction < lambda_

    def tail_ratio(self, lambda_: float) -> float:
        """Return TR(lambda): the tail's share of the sum of all image counts (EQL equation 12).

        Raises:
            DataError: no category has an image.
            ConfigError: ``lambda_`` is negative or no number.
        """
        return int(self.image_count[self.tail_mask(lambda_)].sum()) / self._total()

    def lambda_for_tail_ratio(self, tail_ratio: float) -> float:
        """Return the lambda whose tail ratio is the largest that does not exceed the wanted one.

        Only as many tail ratios can be had as there are different image counts, plus one. lambda is
        put half-way between the fractions on both sides, so that rounding it in a config moves no
        category (:func:`~eql_d2.categories.tail.lambda_at_most`).

        Args:
            tail_ratio: wanted share, 0 to 1; the paper's good region is 0.02 to 0.10. 0 is the
                empty tail, or that of the categories without images.

        Raises:
            ConfigError: ``tail_ratio`` is not in 0..1, or above 0 but so small that no category
                with images would be tail; the message names the smallest that selects one.
            DataError: no category has an image.
        """
        if not 0.0 <= tail_ratio <= 1.0:
            raise ConfigError(f"the tail ratio must be between 0 and 1, got {tail_ratio}")
        self._total()
        lambda_, tail_sum = lambda_at_most(self.image_count.tolist(), self.num_images, tail_ratio)
        if tail_sum == 0 and tail_ratio > 0:
            least = self.smallest_tail_ratio()
            rarest = self.describe_tail(self.lambda_for_tail_ratio(least))
            raise ConfigError(
                f"a tail ratio of {tail_ratio:g} selects no category that has images; the smallest "
                f"tail ratio with a tail here is {least:g}: {rarest}"
            )
        return lambda_

    def smallest_tail_ratio(self) -> float:
        """Return the tail ratio of the rarest categories with images, rounded up to 3 digits.

        Raises:
            DataError: no category has an image.
        """
        total = self._total()
        rarest = int(self.image_count[self.image_count > 0].min())
        together = rarest * int((self.image_count == rarest).sum())
        return rounded_up(together, total)

    def describe_tail(self, lambda_: float) -> str:
        """Say which categories are tail: ``"18 categories with 1 image each"``."""
        counts = self.image_count[self.tail_mask(lambda_)]
        some = counts[counts > 0]
        number = f"{len(some)} {'category' if len(some) == 1 else 'categories'}"
        text = number
        if len(some):
            low, high = int(some.min()), int(some.max())
            images = f"{low} to {high} images" if low < high else f"{low} image{'s' * (low > 1)}"
            text += f" with {images}{' each' * (len(some) > 1)}"
        without = len(counts) - len(some)
        return f"{text}, and {without} without images" if without else text

    def table(self, max_rows: int = 60) -> str:
        """Return groups, and categories from most to fewest images, as text to read.

        Args:
            max_rows: categories shown; of more, those in the middle are left out.
        """
        return format_table(self, max_rows)

    def _total(self) -> int:
        total = int(self.image_count.sum())
        if total == 0:
            raise DataError("no category has an image, so there is no tail ratio")
        return total


def read_statistics(source: str | Path) -> CategoryStatistics:
    """Read statistics from whatever holds them.

    Args:
        source: COCO or LVIS annotations, which are counted; a :data:`STATISTICS_FILE`; or the
            output folder of a run, which holds one.

    Raises:
        DataError: the file cannot be read or is neither, or the folder holds no statistics.
    """
    path = Path(source)
    if path.is_dir():
        path /= STATISTICS_FILE
        if not path.is_file():
            raise DataError(
                f"folder {source} holds no {STATISTICS_FILE}, which a run of tools/train_net.py "
                "writes; give the training annotations instead"
            )
    content = read_annotation_file(path)
    if "annotations" in content or "num_images" not in content:
        return CategoryStatistics.from_counts(**vars(count_annotations(content, path)))
    try:
        return CategoryStatistics.from_dict(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def write_statistics(statistics: CategoryStatistics, directory: str | Path) -> Path:
    """Write ``directory/category_statistics.json``, whole or not at all, and return its path.

    Raises:
        UserError: it cannot be written.
    """
    path = Path(directory) / STATISTICS_FILE
    write_json(path, statistics.to_dict())
    return path
