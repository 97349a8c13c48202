"""Shapes, textures and hues, as functions of a point in the object's own coordinates.

``u`` points right and ``v`` down; the object fills about -1..1 in both.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float64]
Region = NDArray[np.bool_]

HUE_NAMES = ("red", "orange", "lime", "green", "cyan", "blue", "violet", "pink")
DARK = 0.3


def _star(u: Grid, v: Grid) -> Region:
    angle = np.arctan2(u, -v) * 5 / (2 * np.pi)
    return np.hypot(u, v) < 1.0 - 1.1 * np.abs(angle - np.round(angle))


def _crescent(u: Grid, v: Grid) -> Region:
    return (np.hypot(u, v) < 1.0) & (np.hypot(u - 0.5, v) > 0.75)


def _heart(u: Grid, v: Grid) -> Region:
    x, y = 1.2 * u, -1.2 * v + 0.1
    return (x**2 + y**2 - 0.8) ** 3 < 1.6 * x**2 * y**3


def _arrow(u: Grid, v: Grid) -> Region:
    head = (v < 0.05) & (np.abs(u) < 0.95 * (v + 1.0))
    return head | ((np.abs(u) < 0.35) & (v >= 0.05) & (v < 1.0))


_SHAPES: dict[str, Callable[[Grid, Grid], Region]] = {
    "disc": lambda u, v: np.hypot(u, v) < 0.95,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 0.85,
    "triangle": lambda u, v: (v < 0.8) & (2.0 * np.abs(u) < v + 1.1),
    "star": _star,
    "plus": lambda u, v: (
        (np.minimum(np.abs(u), np.abs(v)) < 0.35) & (np.maximum(np.abs(u), np.abs(v)) < 1.0)
    ),
    "ring": lambda u, v: (np.hypot(u, v) < 1.0) & (np.hypot(u, v) > 0.5),
    "crescent": _crescent,
    "heart": _heart,
    "arrow": _arrow,
    "hourglass": lambda u, v: (np.abs(v) < 0.95) & (np.abs(u) < 0.15 + 0.8 * np.abs(v)),
    "half_disc": lambda u, v: (np.hypot(u, v + 0.4) < 1.0) & (v > -0.4),
    "corner": lambda u, v: (np.maximum(np.abs(u), np.abs(v)) < 0.9) & ((u < -0.2) | (v > 0.2)),
}

_TEXTURES: dict[str, Callable[[Grid, Grid], Region]] = {
    "plain": lambda u, v: np.zeros(u.shape, dtype=bool),
    "striped": lambda u, v: np.sin(2.0 * np.pi * v / 0.6) > 0.0,
    "checked": lambda u, v: np.sin(np.pi * u / 0.45) * np.sin(np.pi * v / 0.45) > 0.0,
    "split": lambda u, v: u > 0.0,
    "dotted": lambda u, v: np.cos(np.pi * u / 0.35) + np.cos(np.pi * v / 0.35) > 0.75,
    "ringed": lambda u, v: np.sin(2.0 * np.pi * np.hypot(u, v) / 0.6) > 0.0,
}

SHAPES = tuple(_SHAPES)
TEXTURES = tuple(_TEXTURES)


def inside(shape: str, u: Grid, v: Grid) -> Region:
    """Return which points lie inside the shape."""
    return _SHAPES[shape](u, v)


def shade(texture: str, hue: float, value: float, u: Grid, v: Grid) -> NDArray[np.uint8]:
    """Return the colours of the points, with a last axis of red, green and blue.

    Args:
        texture: where the surface is dark.
        hue: in turns, 0..1.
        value: brightness of the light parts, 0..1.
        u: points to the right.
        v: points downwards.
    """
    light = np.array(colorsys.hsv_to_rgb(hue % 1.0, 0.85, value))
    dark = _TEXTURES[texture](u, v)[..., None]
    return np.rint(255.0 * np.where(dark, DARK * light, light)).astype(np.uint8)


def num_hues(num_categories: int, num_shapes: int) -> int:
    """Return how many hues make all combinations different: 8, or more for many categories."""
    levels = -(-num_categories // num_shapes)
    return max(len(HUE_NAMES), -(-levels // len(TEXTURES)))


def hue_name(hue: int, hues: int) -> str:
    """Name one of ``hues`` hues that divide the colour circle evenly."""
    return HUE_NAMES[hue] if hues == len(HUE_NAMES) else f"hue{hue}of{hues}"
