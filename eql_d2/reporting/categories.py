"""Average precision of every category: against its number of images, as gains, and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from eql_d2.categories import GROUP_NAMES
from eql_d2.reporting.charts import Chart, Scale, legend, nice_range
from eql_d2.reporting.markup import Html, element, figure, join, table
from eql_d2.reporting.runs import IOU_TYPES, CategoryResult, Side

SHAPES = {"r": "triangle", "c": "square", "f": "circle"}
WIDTH, HEIGHT = 508.0, 300.0


def kind_shown(sides: Sequence[Side]) -> str | None:
    """Return "segm" where the runs' categories have mask AP, else "bbox", else None."""
    found = [r.ap for side in sides for run in side.runs for r in run.categories.values()]
    return next((kind for kind in ("segm", "bbox") if any(kind in ap for ap in found)), None)


def known_categories(sides: Sequence[Side]) -> dict[int, CategoryResult]:
    """Return every category with the counts of the first run that has it."""
    found: dict[int, CategoryResult] = {}
    for side in sides:
        for run in side.runs:
            for key, category in run.categories.items():
                found.setdefault(key, category)
    return found


def category_charts(sides: Sequence[Side], training_images: Mapping[int, int] | None) -> Html:
    """Return scatter plots: AP of every configuration, and its gain over the first one.

    Args:
        sides: configurations, the first is the baseline.
        training_images: category id -> training images; test images where None.
    """
    kind = kind_shown(sides)
    assert kind is not None
    categories = known_categories(sides)
    counts = training_images or {i: c.images for i, c in categories.items()}
    base = sides[0].category_ap(kind)
    what = f"{IOU_TYPES[kind]} AP"
    shared = (categories, counts, "training" if training_images else "test")
    ap = {side.name: side.category_ap(kind) for side in sides}
    panels = [_scatter(f"{name}: {what}", values, *shared) for name, values in ap.items()]
    for side in sides[1:]:
        gain = {i: value - base[i] for i, value in ap[side.name].items() if i in base}
        title = f"{side.name} minus {sides[0].name}: {what}"
        panels.append(_scatter(title, gain, *shared, signed=True))
    present = [g for g in GROUP_NAMES if any(c.group == g for c in categories.values())]
    keys = legend([(f"g-{g}", SHAPES[g], GROUP_NAMES[g]) for g in present])
    caption = "Each mark is a category (point at it for its name); a bar is the mean of its group."
    return figure(join([keys, element("div", *panels, class_="panels")]), caption)


def _scatter(
    title: str,
    values: Mapping[int, float],
    categories: Mapping[int, CategoryResult],
    counts: Mapping[int, int],
    split: str,
    *,
    signed: bool = False,
) -> Html:
    low, high = nice_range(list(values.values()), zero=True) if signed else (0.0, 100.0)
    most = max((counts.get(i, 0) for i in values), default=1)
    x = Scale(0.8, max(most * 1.25, 10.0), 44, WIDTH - 14, log=True)
    chart = Chart(WIDTH, HEIGHT, title, x, Scale(low, high, HEIGHT - 46, 34))
    chart.text(0, 14, title, "heading start")
    chart.axes(f"{split} images with the category")
    if signed:
        chart.line(x.start, chart.y(0), x.stop, chart.y(0), "zero")
    for group in (None, *reversed(GROUP_NAMES)):  # rare ones on top
        members = [i for i in values if categories[i].group == group]
        for i in members:
            tip = f"{categories[i].name}: {values[i]:+.1f}" if signed else (
                f"{categories[i].name}: {values[i]:.1f}"
            )  # fmt: skip
            tip += f", {counts.get(i, 0)} images"
            shape = SHAPES.get(group or "", "circle")
            class_ = f"g-{group} dot" if group else "s6 dot"
            chart.mark(max(counts.get(i, 0), 0.8), values[i], class_, shape, tip)
        if group and members:
            mean = fmean(values[i] for i in members)
            ends = sorted(x(max(counts.get(i, 0), 0.8)) for i in members)
            at = chart.y(mean)
            chart.line(ends[0] - 5, at, ends[-1] + 5, at, f"g-{group} mean")
    return chart.draw()


def category_table(sides: Sequence[Side], training_images: Mapping[int, int] | None) -> Html:
    """Return all categories as a table that can be sorted and searched."""
    kind = kind_shown(sides)
    assert kind is not None
    categories = known_categories(sides)
    ap = [side.category_ap(kind) for side in sides]
    header = ["category", "id", "group"]
    header += ["training images"] if training_images else []
    header += ["test images", "test objects", *(f"{side.name} AP" for side in sides)]
    if len(sides) == 2:
        header.append("gain")
    rows = []
    for i, category in sorted(categories.items()):
        row = [category.name, str(i), category.group or ""]
        row += [f"{training_images.get(i, 0):,}"] if training_images else []
        row += [f"{category.images:,}", f"{category.instances:,}"]
        row += [f"{values[i]:.1f}" if i in values else "n/a" for values in ap]
        if len(sides) == 2:
            both = i in ap[0] and i in ap[1]
            row.append(f"{ap[1][i] - ap[0][i]:+.1f}" if both else "n/a")
        rows.append(row)
    caption = f"{IOU_TYPES[kind].capitalize()} AP of each category, percent; click a title to sort"
    whole = table(caption, header, rows, sortable=True)
    search = element(
        "input",
        type="search",
        placeholder="Find a category",
        aria_label="Find a category",
        data_filters="category-table",
    )
    body = element("div", whole, id="category-table", class_="tall")
    return element("details", element("summary", f"All {len(rows)} categories"), search, body)
