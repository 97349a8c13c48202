"""Objects drawn into an image: masks, boxes and labels that can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eql_d2.files import terminal_text
from eql_d2.plotting.images import load_font
from eql_d2.plotting.labels import place_labels
from eql_d2.plotting.palette import Color, category_color, text_color

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Images whose longer side is below this are enlarged by a whole factor, so that text fits.
MIN_LONGER_SIDE = 480
MASK_OPACITY = 0.45
LABEL_PADDING = 2


def picture_scale(height: int, width: int) -> int:
    """Return the whole factor by which :func:`draw_instances` enlarges an image."""
    return max(1, -(-MIN_LONGER_SIDE // max(height, width)))


def draw_instances(
    image: NDArray[np.uint8],
    boxes: NDArray[Any] | Sequence[Sequence[float]],
    names: Sequence[str],
    scores: Sequence[float] | NDArray[Any] | None = None,
    masks: Sequence[NDArray[Any] | None] | None = None,
    *,
    categories: Sequence[int] | NDArray[Any] | None = None,
    scale: int | None = None,
) -> NDArray[np.uint8]:
    """Draw N objects with translucent masks, contours, boxes and labels.

    Args:
        image: ``(H, W, 3)`` uint8 RGB; not changed.
        boxes: ``(N, 4)`` x, y, width, height in pixels of ``image``.
        names: N category names.
        scores: N scores, written behind the names; the best are labelled first.
        masks: N masks ``(H, W)``, non-zero inside, or ``None``.
        categories: N category indices that choose the colours; where left out, names do.
        scale: whole factor of enlargement; :func:`picture_scale` where left out.

    Returns:
        ``(H * scale, W * scale, 3)`` uint8 RGB. Labels neither overlap nor leave the picture; one
        that finds no free place near its box is left out.

    Raises:
        ValueError: shapes or lengths do not fit.
    """
    from PIL import Image

    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    _check(image, boxes, names, scores, masks, categories)
    scale = scale or picture_scale(*image.shape[:2])
    colors = [category_color(k) for k in (names if categories is None else map(int, categories))]
    order = np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable").tolist()  # small ones on top
    line = max(2, round(scale * max(image.shape[:2]) / 400))
    picture = Image.fromarray(_tint(_enlarge(image, scale), masks, scale, colors, order, line))
    _draw_boxes(picture, boxes * scale, colors, order, line)
    _draw_labels(picture, boxes * scale, names, scores, colors)
    return np.array(picture)


def _check(
    image: NDArray[np.uint8],
    boxes: NDArray[Any],
    names: Sequence[str],
    scores: Sequence[float] | NDArray[Any] | None,
    masks: Sequence[NDArray[Any] | None] | None,
    categories: Sequence[int] | NDArray[Any] | None,
) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    columns = {"names": names, "scores": scores, "masks": masks, "categories": categories}
    for label, column in columns.items():
        if column is not None and len(column) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes but {len(column)} {label}")
    for i, mask in enumerate(masks or ()):
        if mask is not None and np.asarray(mask).shape != image.shape[:2]:
            raise ValueError(f"mask {i} is {np.asarray(mask).shape}, image {image.shape[:2]}")


def _enlarge(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    from PIL import Image

    if scale == 1:
        return image
    size = (image.shape[1] * scale, image.shape[0] * scale)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _enlarge_mask(mask: NDArray[Any], scale: int) -> NDArray[np.bool_]:
    return np.repeat(np.repeat(mask.astype(bool), scale, axis=0), scale, axis=1)


def _tint(
    image: NDArray[np.uint8],
    masks: Sequence[NDArray[Any] | None] | None,
    scale: int,
    colors: list[Color],
    order: list[int],
    line: int,
) -> NDArray[np.uint8]:
    """Return ``image``, already enlarged, with all masks in ``order``, later ones on top."""
    if masks is None:
        return image
    canvas = image.astype(np.float64)
    for i in order:
        mask = masks[i]
        if mask is not None:
            _blend_mask(canvas, _enlarge_mask(np.asarray(mask), scale), colors[i], line)
    return np.rint(canvas).astype(np.uint8)


def _blend_mask(
    canvas: NDArray[np.float64], mask: NDArray[np.bool_], color: Color, line: int
) -> None:
    """Tint the mask in ``canvas`` in place, and draw its inner contour, ``line`` pixels wide."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    # Work on the mask's own rectangle only: LVIS images hold hundreds of small objects.
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mask, pixels = mask[window], canvas[window]
    inner = mask
    for _ in range(line):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    tint = np.array(color, dtype=np.float64)
    pixels[inner] = pixels[inner] * (1 - MASK_OPACITY) + tint * MASK_OPACITY
    pixels[mask & ~inner] = tint


def _draw_boxes(
    picture: Any, boxes: NDArray[np.float64], colors: list[Color], order: list[int], line: int
) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    for i in order:
        x, y, width, height = boxes[i]
        # A box without area is still shown as a point; PIL refuses one turned inside out.
        corners = (x, y, max(x, x + width - 1), max(y, y + height - 1))
        # A hair-line of the contrasting shade around it: dark boxes are seen on dark images too.
        around = (corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1)
        draw.rectangle(around, outline=text_color(colors[i]), width=line + 2)
        draw.rectangle(corners, outline=colors[i], width=line)


def _draw_labels(
    picture: Any,
    boxes: NDArray[np.float64],
    names: Sequence[str],
    scores: Sequence[float] | NDArray[Any] | None,
    colors: list[Color],
) -> None:
    """Draw the labels of ``boxes``; the best scores get the best places."""
    from PIL import ImageDraw

    texts, rank = list(names), np.arange(len(boxes))
    if scores is not None:
        texts = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
        rank = np.argsort(-np.asarray(scores), kind="stable")
    draw = ImageDraw.Draw(picture)
    font = load_font(max(13, round(max(picture.size) / 45)))
    texts = [shorten(texts[i], font, picture.width - 2 * LABEL_PADDING) for i in rank]
    line_height = sum(font.getmetrics()) + 2 * LABEL_PADDING
    sizes = [(math.ceil(font.getlength(t)) + 2 * LABEL_PADDING, line_height) for t in texts]
    places = place_labels(boxes[rank].tolist(), sizes, picture.size)
    for i, text, place in zip(rank, texts, places, strict=True):
        if place is not None:
            color = colors[i]
            left, top, width, height = place
            draw.rectangle((left, top, left + width - 1, top + height - 1), fill=color)
            start = (left + LABEL_PADDING, top + LABEL_PADDING)
            draw.text(start, text, fill=text_color(color), font=font)


def shorten(text: str, font: Any, widest: int) -> str:
    """Return ``text`` cut to ``widest`` pixels, with an ellipsis in the middle where it is cut.

    The ends are kept: a score at the end matters, and so does the beginning of a name.
    """
    text = terminal_text(" ".join(text.split()))
    kept = text
    for count in range(len(text) - 1, 0, -1):
        if font.getlength(kept) <= widest:
            break
        head = -(-count // 2)
        kept = f"{text[:head]}…{text[len(text) - (count - head) :]}"
    return kept
