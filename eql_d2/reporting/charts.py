"""Small SVG charts: scales, axes and marks, in the colours of the page.

Lengths are in the SVG's own pixels; y grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from eql_d2.reporting.markup import Html, element, join

SERIES = 7  # colours --s0 ... --s6 of the style sheet; the marks' shapes differ as well
_SHAPES = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels.

    Attributes:
        low: Value at ``start``.
        high: Value at ``stop``; above ``low``.
        start: Pixel of ``low``.
        stop: Pixel of ``high``.
        log: Whether equal ratios are equal distances; values at or below 0 stand at ``low``.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return self.start + (self.stop - self.start) * (value - low) / (high - low)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values inside the scale."""
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, about)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about ``about`` multiples of 1, 2 or 5 times a power of ten from low to high."""
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten from low to high, with 2 and 5 times them where they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 3 else (1, 2, 5)
    values = [f * 10.0**p for p in powers for f in factors]
    return [v for v in values if low * 0.999 <= v <= high * 1.001]


def nice_range(values: Sequence[float], *, zero: bool = False) -> tuple[float, float]:
    """Return limits a little outside of the finite values; with ``zero`` they hold 0."""
    finite = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high == 0 and zero:
        return 0.0, 1.0
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return low if zero and low == 0 else low - margin, high if zero and high == 0 else high + margin


def number(value: float) -> str:
    """Return a tick's label: short, with a comma at thousands."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


@dataclass
class Chart:
    """A drawing with a horizontal and a vertical scale."""

    width: float
    height: float
    title: str
    x: Scale
    y: Scale
    parts: list[Html] = field(default_factory=list)

    def axes(self, x_label: str = "", y_label: str = "", *, x_ticks: int = 5) -> None:
        """Draw grid, tick labels and the names of the axes."""
        left, right = sorted((self.x.start, self.x.stop))
        top, bottom = sorted((self.y.start, self.y.stop))
        for value in self.y.ticks():
            at = self.y(value)
            self.line(left, at, right, at, "grid")
            self.text(left - 6, at + 4, number(value), "tick end")
        for value in self.x.ticks(x_ticks):
            at = self.x(value)
            self.line(at, top, at, bottom, "grid")
            self.text(at, bottom + 16, number(value), "tick middle")
        self.line(left, bottom, right, bottom, "axis")
        if x_label:
            self.text((left + right) / 2, bottom + 34, x_label, "label middle")
        if y_label:
            self.text(left, top - 8, y_label, "label start")

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        """Draw a straight line between pixels."""
        self.parts.append(element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_))

    def text(self, x: float, y: float, text: str, class_: str) -> None:
        """Write at a pixel."""
        self.parts.append(element("text", text, x=x, y=y, class_=class_))

    def path(self, points: Sequence[tuple[float, float]], class_: str) -> None:
        """Draw a line through values; one that is not finite is a gap."""
        steps, pen_up = [], True
        for x, y in points:
            if math.isfinite(x) and math.isfinite(y):
                steps.append(f"{'M' if pen_up else 'L'}{self.x(x):.1f} {self.y(y):.1f}")
                pen_up = False
            else:
                pen_up = True
        if steps:
            self.parts.append(element("path", d="".join(steps), class_=class_))

    def mark(
        self, x: float, y: float, class_: str, shape: str, tip: str | None, size: float = 4
    ) -> None:
        """Draw a symbol at a value, with the text that appears when it is pointed at."""
        self.parts.append(symbol(self.x(x), self.y(y), class_, shape, tip, size))

    def draw(self) -> Html:
        """Return the SVG."""
        return element(
            "svg",
            element("title", self.title),
            join(self.parts),
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            width=self.width,
            height=self.height,
            role="img",
            xmlns="http://www.w3.org/2000/svg",
        )


def symbol(
    x: float, y: float, class_: str, shape: str, tip: str | None = None, size: float = 4
) -> Html:
    """Return a mark centred at a pixel: circle, square, triangle or diamond of equal area."""
    inside = None if tip is None else element("title", tip)
    if shape == "circle":
        return element("circle", inside, cx=x, cy=y, r=size, class_=class_)
    reach = {"square": 0.89, "triangle": 1.35, "diamond": 1.25}[shape] * size
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "triangle": ((0, -1), (0.9, 0.7), (-0.9, 0.7)),
        "diamond": ((0, -1), (1, 0), (0, 1), (-1, 0)),
    }[shape]
    points = " ".join(f"{x + a * reach:.1f},{y + b * reach:.1f}" for a, b in corners)
    return element("polygon", inside, points=points, class_=class_)


def series_mark(index: int) -> tuple[str, str]:
    """Return class and shape of the index-th series; 28 differ."""
    return f"s{index % SERIES}", _SHAPES[index % len(_SHAPES)]


def legend(entries: Sequence[tuple[str, str, str]]) -> Html:
    """Return a legend from ``(class, shape, text)``."""
    items = []
    for class_, shape, text in entries:
        key = element(
            "svg",
            symbol(7, 7, class_, shape),
            width=14,
            height=14,
            viewBox="0 0 14 14",
            aria_hidden="true",
        )
        items.append(element("li", key, text))
    return element("ul", *items, class_="legend")
