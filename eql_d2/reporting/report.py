"""One self-contained html page about one or more runs. It loads nothing from anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from eql_d2 import __version__
from eql_d2.categories import GROUP_NAMES
from eql_d2.data import DetectionData
from eql_d2.evaluation.comparison import Comparison
from eql_d2.files import atomic_text_file
from eql_d2.reporting.categories import (
    category_charts,
    category_table,
    kind_shown,
    known_categories,
)
from eql_d2.reporting.comparisons import comparison_block, methods_note
from eql_d2.reporting.curves import loss_curves
from eql_d2.reporting.examples import Example, choose_categories, make_examples
from eql_d2.reporting.markup import Html, element, join, section
from eql_d2.reporting.runs import Side, training_images_of
from eql_d2.reporting.summary import metric_chart, metric_tables

# Nothing may be fetched, not even by a page that holds a hostile category name.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def write_report(
    path: str | Path,
    sides: Sequence[Side],
    *,
    title: str = "Long-tailed detection: results",
    data: DetectionData | None = None,
    comparisons: Sequence[Comparison] = (),
    training_images: Mapping[int, int] | None = None,
) -> list[str]:
    """Write the page.

    Args:
        path: Html file.
        sides: Configurations from :func:`eql_d2.reporting.runs.read_sides`, the baseline first.
        title: Heading of the page.
        data: Test images and annotations, for the drawn examples.
        comparisons: Differences to be shown with their noise.
        training_images: category id -> training images, for the per-category plot; None takes
            those that the runs wrote down.

    Returns:
        What could not be shown, and why.

    Raises:
        DataError: a file of a run, or an image, is damaged.
        ResultsError: a results file cannot be read.
    """
    if training_images is None:
        training_images = training_images_of(sides)
    parts, missing = _sections(sides, data, comparisons, training_images)
    header = element(
        "header",
        element("h1", title),
        element("p", _subtitle(sides), class_="lead"),
        _facts(sides, data),
    )
    body = join([header, *_links_and_sections(parts), _footer(sides, missing)], "\n")
    with atomic_text_file(path) as file:
        file.write(_document(title, body))
    return missing


def _links_and_sections(parts: Sequence[tuple[str, str, Html]]) -> tuple[Html, Html]:
    links = [element("li", element("a", name, href=f"#{anchor}")) for anchor, name, _ in parts]
    return (
        element("nav", element("ul", *links), aria_label="Sections"),
        element("main", *(section(anchor, name, content) for anchor, name, content in parts)),
    )


def _footer(sides: Sequence[Side], missing: Sequence[str]) -> Html:
    names = [run.folder.resolve().name for side in sides for run in side.runs]
    return element(
        "footer",
        element("p", f"Runs: {', '.join(names)}. Written by eql_d2 {__version__}."),
        *(element("p", f"Not shown: {line}.") for line in missing),
    )


def _document(title: str, body: Html) -> str:
    folder = files("eql_d2.reporting")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", Html(f"\n{(folder / 'page.css').read_text('utf-8')}")),
    )
    script = element("script", Html(f"\n{(folder / 'page.js').read_text('utf-8')}"))
    return f"<!doctype html>\n{element('html', head, element('body', body, script), lang='en')}\n"


def _subtitle(sides: Sequence[Side]) -> str:
    number = sum(len(side.runs) for side in sides)
    what = f"{len(sides)} configuration{'s' if len(sides) > 1 else ''}"
    return f"{what}, {number} run{'s' if number > 1 else ''}: {', '.join(s.name for s in sides)}"


def _facts(sides: Sequence[Side], data: DetectionData | None) -> Html:
    categories = known_categories(sides).values()
    facts = []
    if data is not None:
        facts.append((f"{len(data.images):,}", "test images"))
    if categories:
        facts.append((f"{sum(c.instances for c in categories):,}", "test objects"))
        facts.append((f"{len(categories):,}", "categories"))
    groups = Counter(c.group for c in categories)
    facts += [(f"{groups[g]:,}", name) for g, name in GROUP_NAMES.items() if groups[g]]
    items = [element("li", element("b", value), element("span", what)) for value, what in facts]
    return element("ul", *items, class_="facts") if items else Html()


def _sections(
    sides: Sequence[Side],
    data: DetectionData | None,
    comparisons: Sequence[Comparison],
    training_images: Mapping[int, int] | None,
) -> tuple[list[tuple[str, str, Html]], list[str]]:
    """Anchor, title and content of every section; and why others are not there."""
    parts = [("metrics", "Metrics", join([metric_chart(sides), metric_tables(sides)]))]
    missing = []
    if comparisons:
        blocks = [comparison_block(comparison) for comparison in comparisons]
        note = methods_note(comparisons[0])
        parts.append(("noise", "Differences and noise", join([*blocks, note])))
    elif len(sides) > 1:
        missing.append(
            "whether the differences exceed the noise (needs results files, --annotations and "
            "--resamples above 0)"
        )
    drawn = known_categories(sides) and kind_shown(sides) is not None
    if drawn:
        charts = category_charts(sides, training_images)
        whole = join([charts, category_table(sides, training_images)])
        parts.append(("categories", "Categories", whole))
    else:
        missing.append("categories (no per_category.csv with box or mask AP)")
    if data is None:
        missing.append("examples (they need --annotations and --images)")
    elif drawn and (examples := _examples(sides, data)):
        parts.append(("rare", "Best and worst rare categories", examples))
    else:
        missing.append("examples (no rare category with ground truth)")
    curves = loss_curves(sides)
    if curves is not None:
        parts.append(("training", "Training", curves))
    else:
        missing.append("training curves (no metrics.jsonl)")
    return parts, missing


def _examples(sides: Sequence[Side], data: DetectionData) -> Html | None:
    best, worst = choose_categories(sides)
    blocks = []
    for title, ids, found in (("Best", best, True), ("Worst", worst, False)):
        shown = [_example(e) for e in make_examples(sides, data, ids, found=found)] if ids else []
        if shown:
            blocks += [element("h3", title), *shown]
    if not blocks:
        return None
    note = (
        "Of the best categories the image in which they are found with the highest score, of the "
        "worst the one with the largest object. Beside the ground truth the best-scored detection "
        "of the category on each object, or, where there is none, of any category; from the first "
        "run of each configuration. AP ranks the detections of one category among themselves: it "
        "can be high although another category scores higher on the same object."
    )
    return join([element("p", note, class_="note"), *blocks])


def _example(example: Example) -> Html:
    numbers = ", ".join(
        f"{name} {'n/a' if value != value else f'{value:.1f}'}"
        for name, value in example.ap_of.items()
    )
    images = f"{example.test_images} test image{'s' if example.test_images != 1 else ''}"
    shots = [
        element(
            "figure",
            element("img", src=panel.image, alt=f"{example.name}, {panel.title}: {panel.words}"),
            element("figcaption", element("b", panel.title), panel.words),
        )
        for panel in example.panels
    ]
    return element(
        "article",
        element("h4", example.name),
        element("p", f"AP {numbers}; {images}", class_="note"),
        element("div", *shots, class_="shots"),
        class_="example",
    )
