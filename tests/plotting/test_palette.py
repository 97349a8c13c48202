"""Colours: distinct, stable between runs, and readable."""

import numpy as np
import pytest

from eql_d2.plotting.palette import (
    GROUP_COLORS,
    OKABE_ITO,
    category_color,
    category_colors,
    contrast,
    text_color,
)

# Linear RGB as seen with red-, green- and blue-blindness (Vienot 1999; Brettel's tritan plane).
BLINDNESS = {
    "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


def seen_with(matrix, color):
    linear = (np.array(color) / 255) ** 2.2
    return 255 * np.clip(np.array(matrix) @ linear, 0, 1) ** (1 / 2.2)


def test_all_category_colors_differ():
    colors = category_colors()
    assert len(set(colors)) == len(colors) == 21
    assert all(0 <= v <= 255 for color in colors for v in color)


def test_neighbouring_categories_never_look_alike():
    for index in range(1203):
        first, second = category_color(index), category_color(index + 1)
        assert np.abs(np.subtract(first, second)).max() > 60


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("palette", ["hues", "groups"])
def test_colours_stay_apart_for_colour_blind_readers(kind, palette):
    colors = OKABE_ITO
    if palette == "groups":
        colors = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in GROUP_COLORS.values()]
    seen = [seen_with(BLINDNESS[kind], color) for color in colors]
    distances = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 25


def test_a_name_has_the_same_colour_in_every_process():
    # Written down from one run: Python's own hash of a string would differ in the next.
    assert category_color("aerosol_can") == (115, 177, 213)
    assert category_color("zebra") == (138, 95, 0)


@pytest.mark.parametrize("color", category_colors(), ids=str)
def test_labels_can_be_read(color):
    # 4.5 is WCAG's minimum for text; the worse of black and white would often fail it.
    assert contrast(color, text_color(color)) >= 4.5


def test_contrast_ends():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((9, 9, 9), (9, 9, 9)) == pytest.approx(1)
    assert text_color((255, 255, 200)) == (0, 0, 0)
    assert text_color((20, 20, 60)) == (255, 255, 255)
