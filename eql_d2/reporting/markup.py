"""Html and SVG as values: text is escaped unless it is already :class:`Html`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

VOID = frozenset({"meta", "img", "input", "br"})


class Html(str):
    """Text that is already markup."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: object) -> Html:
    """Return ``<tag ...>children</tag>``.

    Args:
        tag: Name of the element.
        *children: Markup, or text that is escaped here; None is left out.
        **attributes: ``class_`` is ``class``, other underscores are hyphens; None and False are
            left out, True gives the bare name, floats are cut to two decimals.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def _attribute(name: str, value: object) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(text)}"'


def join(children: Iterable[str | None], separator: str = "") -> Html:
    """Return the children one after the other, escaped where they are not markup."""
    return Html(
        separator.join(
            child if isinstance(child, Html) else html.escape(child)
            for child in children
            if child is not None
        )
    )


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text_columns: int = 1,
    sortable: bool = False,
) -> Html:
    """Return a table that scrolls sideways where the screen is too narrow.

    Args:
        caption: What the table shows.
        header: Column titles.
        rows: Cells; the first of a row names it.
        text_columns: How many columns from the left are text; the others are right-aligned.
        sortable: Whether a click on a title sorts.
    """
    kinds = ["text" if i < text_columns else "number" for i in range(len(header))]
    head = [
        element("th", element("button", h, type="button") if sortable else h, scope="col", class_=c)
        for h, c in zip(header, kinds, strict=True)
    ]
    body = []
    for row in rows:
        first = element("th", row[0], scope="row", class_=kinds[0])
        cells = [element("td", v, class_=c) for v, c in zip(row[1:], kinds[1:], strict=True)]
        body.append(element("tr", first, *cells))
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", join(body, "\n")),
        class_="sortable" if sortable else None,
    )
    return element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def section(anchor: str, title: str, *content: str | None) -> Html:
    """Return a section with a heading that the navigation can point to."""
    return element("section", element("h2", title), *content, id=anchor)


def figure(drawing: Html, caption: str) -> Html:
    """Return a drawing with its caption."""
    return element("figure", drawing, element("figcaption", caption))
