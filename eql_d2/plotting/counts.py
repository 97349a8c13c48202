"""The long tail itself: how many images each category has."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eql_d2.categories import GROUP_NAMES
from eql_d2.files import atomic_text_file, csv_text
from eql_d2.plotting.figures import figure, figure_text
from eql_d2.plotting.palette import GROUP_COLORS

if TYPE_CHECKING:
    from eql_d2.categories import CategoryStatistics

# Up to so many categories get their names below the bars.
MAX_NAMES = 60
# Counts of 0 have no place on a logarithmic axis; bars start here instead of at 1.
BOTTOM = 0.5


def plot_category_counts(
    statistics: CategoryStatistics, lambda_: float | None, path: str | Path
) -> None:
    """Draw the image count of every category, most to fewest, coloured by group.

    Args:
        statistics: the categories.
        lambda_: threshold on image fractions; drawn at ``lambda * num_images`` images, or only told
            in the legend where that is off the axis. ``None`` or 0: no line, no tail in the title.
        path: file to write.

    Raises:
        DataError: ``lambda_`` is given and no category has an image.
    """
    counts = statistics.image_count.tolist()
    order = sorted(range(len(counts)), key=lambda k: (-counts[k], k))
    named = len(order) <= MAX_NAMES
    with figure(
        path, max(7.0, 0.24 * len(order)) if named else 10.0, 5.2 if named else 4.6
    ) as page:
        axes = page.add_subplot()
        for letter, name in GROUP_NAMES.items():
            places = [i for i, k in enumerate(order) if statistics.groups[k] == letter]
            if places:
                _draw_group(axes, places, [counts[order[i]] for i in places], letter, name)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylim(BOTTOM, max(2.0, 1.6 * max(counts)))
        axes.set_xlim(-0.7, len(order) - 0.3)
        axes.set_ylabel("images with the category")
        if named:
            names = [figure_text(statistics.names[k]) for k in order]
            axes.set_xticks(range(len(order)), names, rotation=90)
            axes.tick_params(axis="x", labelsize=8, length=0)
            axes.grid(axis="x", visible=False)
        else:
            axes.set_xlabel("categories, most to fewest images")
        if lambda_:
            _draw_lambda(axes, lambda_, lambda_ * statistics.num_images)
        axes.set_title(_title(statistics, lambda_), fontsize=11)
        axes.legend(loc="upper right", frameon=True, framealpha=0.95, edgecolor="none")


def _draw_group(axes: Any, places: list[int], counts: list[int], letter: str, name: str) -> None:
    heights = [max(count - BOTTOM, 0) for count in counts]
    label = f"{name}: {len(places)} categories"
    # Without gaps where bars are thinner than a few pixels; they would flicker.
    width = 0.85 if len(places) <= MAX_NAMES else 1.0
    axes.bar(places, heights, width, bottom=BOTTOM, color=GROUP_COLORS[letter], label=label)


def _draw_lambda(axes: Any, lambda_: float, limit: float) -> None:
    label = f"lambda {lambda_:.3g} = {limit:.4g} images"
    bottom, top = axes.get_ylim()
    if not bottom <= limit <= top:
        # A share of an image may lie any number of decades away from the bars: only the legend
        # says so then, or they would shrink to nothing.
        place = "below" if limit < bottom else "above"
        axes.plot([], [], color="black", linestyle="--", label=f"{label}, {place} the axis")
        return
    # On a white band, because the line also crosses the dark bars.
    axes.axhline(limit, color="white", linewidth=3.0)
    axes.axhline(limit, color="black", linestyle="--", linewidth=1.3, label=label)


def _title(statistics: CategoryStatistics, lambda_: float | None) -> str:
    total = len(statistics.names)
    parts = [f"{total} categories, {statistics.num_images:,} annotated images"]
    empty = int((statistics.image_count == 0).sum())
    if empty:
        parts.append(f"{empty} categor{'y' if empty == 1 else 'ies'} without images")
    if lambda_:
        tail = int(statistics.tail_mask(lambda_).sum())
        share = 100 * statistics.tail_ratio(lambda_)
        parts.append(f"tail: {tail} categories with {share:.2f} % of the image counts")
    return "; ".join(parts)


def write_category_csv(
    statistics: CategoryStatistics, lambda_: float | None, path: str | Path
) -> None:
    """Write one row a category, in contiguous order.

    Columns: id, name, group (r, c, f), images, instances, image_fraction, tail (1 below lambda,
    else 0; empty without a lambda).
    """
    tail: list[Any] = [""] * len(statistics.names)
    if lambda_:
        tail = statistics.tail_mask(lambda_).int().tolist()
    columns = (
        statistics.category_ids,
        map(csv_text, statistics.names),
        statistics.groups,
        statistics.image_count.tolist(),
        statistics.instance_count.tolist(),
        statistics.image_fraction.tolist(),
        tail,
    )
    with atomic_text_file(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "name", "group", "images", "instances", "image_fraction", "tail"])
        writer.writerows(zip(*columns, strict=True))
