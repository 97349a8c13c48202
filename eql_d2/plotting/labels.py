"""Where labels go: inside the picture, near their box, and never over each other.

Geometry only, in pixels; rectangles are ``(left, top, width, height)`` with integer corners.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Rectangle = tuple[int, int, int, int]

# How far, in label heights, a label may move away from its box before it is left out.
MAX_SHIFT = 6


def place_labels(
    boxes: Sequence[Sequence[float]],
    sizes: Sequence[tuple[int, int]],
    picture: tuple[int, int],
) -> list[Rectangle | None]:
    """Find a place for every label, the first labels first.

    Args:
        boxes: N boxes ``(x, y, width, height)``.
        sizes: N label sizes ``(width, height)``.
        picture: ``(width, height)`` of the picture.

    Returns:
        N rectangles inside the picture that do not overlap, each above its box where there is
        room, else inside or below it or close by. ``None`` for a label that finds no free place
        within ``MAX_SHIFT`` label heights.
    """
    taken: list[Rectangle] = []
    placed: list[Rectangle | None] = []
    for box, size in zip(boxes, sizes, strict=True):
        place = next(
            (p for p in _candidates(box, size, picture) if not any(_overlap(p, t) for t in taken)),
            None,
        )
        placed.append(place)
        if place is not None:
            taken.append(place)
    return placed


def _candidates(
    box: Sequence[float], size: tuple[int, int], picture: tuple[int, int]
) -> Iterator[Rectangle]:
    """Yield places in order of preference; those outside the picture are left out or moved in."""
    width, height = size
    if width > picture[0] or height > picture[1]:
        return
    x, y, box_width, box_height = (round(v) for v in box)
    lefts = (x, x + box_width - width, x + (box_width - width) // 2)
    rows = [y - height, y, y + box_height, y + box_height - height]
    rows += [y + sign * height * k for k in range(1, MAX_SHIFT + 1) for sign in (-1, 1)]
    for top in rows:
        for left in lefts:
            # Sideways a label is moved into the picture; up and down the next row is better.
            inside = min(max(left, 0), picture[0] - width)
            if 0 <= top <= picture[1] - height:
                yield inside, top, width, height
    # A box at (or beyond) the upper or lower edge: the nearest row that exists.
    for left in lefts:
        yield (
            min(max(left, 0), picture[0] - width),
            min(max(y, 0), picture[1] - height),
            width,
            height,
        )


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
