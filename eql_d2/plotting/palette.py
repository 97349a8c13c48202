"""Colours: safe for colour-blind readers, and the same category always in the same one.

The hues are those of Okabe and Ito ("Color Universal Design", 2008), which stay apart under the
common forms of colour blindness. Every drawn object also carries its name: colour never stands
alone.
"""

from __future__ import annotations

import zlib

Color = tuple[int, int, int]

OKABE_ITO: tuple[Color, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
)
# Rare to frequent goes from warm to cold and, for readers in grey, never in equal lightness.
GROUP_COLORS = {"r": "#D55E00", "c": "#56B4E9", "f": "#004C77"}


def category_colors() -> tuple[Color, ...]:
    """Return the 21 colours of categories: seven hues, each plain, lighter and darker."""
    lighter = tuple(_mix(c, (255, 255, 255), 0.45) for c in OKABE_ITO)
    darker = tuple(_mix(c, (0, 0, 0), 0.4) for c in OKABE_ITO)
    return OKABE_ITO + lighter + darker


def category_color(category: int | str) -> Color:
    """Return the colour of a category, given by its contiguous index or by its name.

    Neighbouring indices get different hues. A name is mapped by its CRC-32, which is the same on
    every machine and in every run.
    """
    colors = category_colors()
    if isinstance(category, str):
        category = zlib.crc32(category.encode("utf-8", "surrogatepass"))
    return colors[category % len(colors)]


def text_color(background: Color) -> Color:
    """Return black or white, whichever reads better on ``background`` (WCAG luminance)."""
    light = _luminance(background)
    on_black, on_white = (light + 0.05) / 0.05, 1.05 / (light + 0.05)
    return (0, 0, 0) if on_black >= on_white else (255, 255, 255)


def contrast(first: Color, second: Color) -> float:
    """Return the WCAG contrast ratio of two colours, 1 (equal) to 21 (black on white)."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: Color) -> float:
    linear = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
        for c in (v / 255 for v in color)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _mix(color: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue
