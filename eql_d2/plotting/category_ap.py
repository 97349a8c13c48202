"""AP of every category against how many images it has: where on the tail a detector fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from eql_d2.plotting.figures import figure, figure_text
from eql_d2.plotting.palette import GROUP_COLORS

if TYPE_CHECKING:
    from eql_d2.evaluation import CategoryRow

Point = tuple[int, float, str]  # images, AP, name

GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
MARKERS = {"r": "o", "c": "s", "f": "^"}  # colour never stands alone
NO_GROUP = "#666666"
NAMED = 5  # categories whose names stand beside their points, if they have room:
ROOM = (0.3, 6.0)  # factors of ten in images, AP


def plot_category_ap(
    rows: Sequence[CategoryRow],
    path: str | Path,
    image_counts: Mapping[int, int] | None = None,
) -> None:
    """Draw one panel for each kind of AP in ``rows``, a point a category, a line a group's mean.

    Named are the categories furthest below the mean of their group.

    Args:
        rows: ``Evaluation.categories``.
        path: File to write.
        image_counts: Category id -> images with it in training; None takes those of the evaluation.
    """
    kinds = list(rows[0].ap) if rows else []
    with figure(path, max(6.0, 5.6 * len(kinds)), 4.6) as page:
        panels = page.subplots(1, max(len(kinds), 1), squeeze=False, sharey=True)[0]
        for axes, kind in zip(panels, kinds, strict=False):
            _panel(axes, rows, kind, image_counts)
        where = "training" if image_counts is not None else "evaluation"
        for axes in panels:
            axes.set_xlabel(f"{where} images with the category")
        panels[0].set_ylabel("AP")


def _panel(
    axes: Any, rows: Sequence[CategoryRow], kind: str, image_counts: Mapping[int, int] | None
) -> None:
    """The points of one kind of AP; categories without objects have none."""
    points: dict[str | None, list[Point]] = {}
    for row in rows:
        ap = row.ap[kind]
        images = row.images if image_counts is None else image_counts.get(row.category_id, 0)
        if ap is not None:
            points.setdefault(row.group, []).append((images, ap, row.name))
    axes.set_xscale("symlog", linthresh=1)
    axes.set_ylim(-3, 103)
    axes.set_title(kind, fontsize=11)
    for group in (*GROUP_NAMES, None):
        if group in points:
            _draw_group(axes, points[group], group)
    everyone = [point for part in points.values() for point in part]
    for images, ap, name in _worst(list(points.values())):
        text = name if len(name) <= 18 else name[:17] + "…"
        axes.annotate(
            figure_text(text), (images, ap), xytext=(4, 4), textcoords="offset points", fontsize=7,
            rotation=25,
        )  # fmt: skip
    if everyone:
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlim(-0.2 if min(p[0] for p in everyone) == 0 else 0.8, None)
        axes.legend(loc="upper left", frameon=True, framealpha=0.9, edgecolor="none", fontsize=8)


def _worst(groups: Sequence[Sequence[Point]]) -> list[Point]:
    """The points furthest below the mean of their group that are not too near to each other."""
    shortfall = {
        point: fmean(ap for _, ap, _ in group) - point[1] for group in groups for point in group
    }
    named: list[Point] = []
    for point in sorted(shortfall, key=lambda p: (-shortfall[p], p)):
        apart = (
            abs(math.log10((point[0] + 1) / (other[0] + 1))) > ROOM[0]
            or abs(point[1] - other[1]) > ROOM[1]
            for other in named
        )
        if len(named) < NAMED and shortfall[point] > 0 and all(apart):
            named.append(point)
    return named


def _draw_group(axes: Any, points: Sequence[Point], group: str | None) -> None:
    mean = fmean(ap for _, ap, _ in points)
    color, name = NO_GROUP, "all"
    if group is not None:
        color, name = GROUP_COLORS[group], GROUP_NAMES[group]
    many = len(points) > 200
    axes.scatter(
        [images for images, _, _ in points],
        [ap for _, ap, _ in points],
        s=9 if many else 22,
        marker=MARKERS.get(group or "", "o"),
        color=color,
        alpha=0.55 if many else 0.8,
        linewidths=0,
        label=f"{name}: {mean:.1f} ({len(points)} categories)",
    )
    left, right = min(p[0] for p in points), max(p[0] for p in points)
    axes.plot([left, max(right, left + 0.3)], [mean, mean], color="white", linewidth=4.0)
    axes.plot([left, max(right, left + 0.3)], [mean, mean], color=color, linewidth=2.0)
