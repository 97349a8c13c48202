"""Category statistics as text to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eql_d2.categories.grouping import GROUP_NAMES
from eql_d2.files import terminal_text

if TYPE_CHECKING:
    from eql_d2.categories.statistics import CategoryStatistics


def format_table(statistics: CategoryStatistics, max_rows: int) -> str:
    """Return the groups, then the categories from most to fewest images.

    Args:
        statistics: what is shown.
        max_rows: categories shown; of more, those in the middle are left out and counted.
    """
    return "\n".join([*_group_lines(statistics), "", *_category_lines(statistics, max_rows)])


def _group_lines(statistics: CategoryStatistics) -> list[str]:
    images = statistics.image_count.tolist()
    instances = statistics.instance_count.tolist()
    total = max(sum(images), 1)
    lines = [
        f"{len(statistics)} categories, {sum(instances):,} instances, "
        f"{statistics.num_images:,} annotated images",
        f"{'group':<10}{'categories':>11}{'images each':>16}{'share of image counts':>23}",
    ]
    for letter, name in GROUP_NAMES.items():
        counts = [n for n, g in zip(images, statistics.groups, strict=True) if g == letter]
        span = f"{min(counts):,}-{max(counts):,}" if counts else "-"
        share = f"{100 * sum(counts) / total:.2f} %"
        lines.append(f"{name:<10}{len(counts):>11}{span:>16}{share:>23}")
    if statistics.grouping is not None:
        lines.append(f"{'/'.join(GROUP_NAMES.values())}: {statistics.grouping}")
    return lines


def _category_lines(statistics: CategoryStatistics, max_rows: int) -> list[str]:
    names = [terminal_text(name) for name in statistics.names]
    width = max(len("category"), *(len(name) for name in names)) + 2
    order = statistics.image_count.argsort(descending=True, stable=True).tolist()
    fraction = statistics.image_fraction.tolist()
    images = statistics.image_count.tolist()
    instances = statistics.instance_count.tolist()
    rows = [
        f"{statistics.category_ids[k]:>6}  {names[k]:<{width}}"
        f"{GROUP_NAMES[statistics.groups[k]]:<9}{images[k]:>9,}{instances[k]:>11,}"
        f"{fraction[k]:>12.3g}"
        for k in order
    ]
    if len(rows) > max_rows:
        head = (max_rows + 1) // 2
        rest = rows[len(rows) - (max_rows - head) :]
        rows = [*rows[:head], f"{'...':>6}  {len(rows) - max_rows} more", *rest]
    header = f"{'id':>6}  {'category':<{width}}{'group':<9}{'images':>9}{'instances':>11}{'f':>12}"
    return [header, *rows]
