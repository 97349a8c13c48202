"""COCO's compressed run-length encoding of many masks at once, from the crops that hold them.

Only the pixels of each crop are looked at, never those of the image. The text is that of
``pycocotools.mask.encode`` on the whole mask.

Shape legend: N masks, B boundaries between runs, V run lengths, all masks together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS, VALUE, MORE, FIRST_CHARACTER = 5, 0x1F, 0x20, 48

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Crops:
    """Where N masks lie in an image of ``height`` rows and ``width`` columns.

    Attributes:
        left: (N,) first column.
        top: (N,) first row.
        columns: (N,) number of columns, 0 for an empty mask.
        rows: (N,) number of rows, 0 for an empty mask.
        height: of the image.
        width: of the image.
    """

    left: Ints
    top: Ints
    columns: Ints
    rows: Ints
    height: int
    width: int

    @classmethod
    def from_edges(cls, edges: Ints, height: int, width: int) -> Crops:
        """Cut (N, 4) rectangles (left, top, right, bottom past the last pixel) to the image."""
        left, top, right, bottom = edges.T
        left, right = np.maximum(left, 0), np.minimum(right, width)
        top, bottom = np.maximum(top, 0), np.minimum(bottom, height)
        empty = (left >= right) | (top >= bottom)
        columns = np.where(empty, 0, right - left)
        rows = np.where(empty, 0, bottom - top)
        return cls(left, top, columns, rows, height, width)

    @property
    def stops(self) -> Ints:
        """(N,) where each mask ends in :meth:`buffer`."""
        return np.cumsum(self.columns * (self.rows + 1))

    def buffer(self) -> tuple[NDArray[np.bool_], list[NDArray[np.bool_]]]:
        """Return one flat array of False, and for each mask its (columns, rows) view into it.

        A False stays after every column, which keeps the runs of neighbouring columns apart.
        """
        stops = self.stops
        flat = np.zeros(int(stops[-1]) if len(stops) else 0, dtype=np.bool_)
        starts = stops - self.columns * (self.rows + 1)
        sides = zip(starts, stops, self.columns, self.rows, strict=True)
        views = [flat[a:b].reshape(w, h + 1)[:, :h] for a, b, w, h in sides]
        return flat, views

    def locate(self, places: Ints) -> tuple[Ints, Ints, Ints]:
        """Return mask, column and row (of the image) of places in :meth:`buffer`."""
        stops = self.stops
        mask = np.searchsorted(stops, places, side="right")
        place = places - (stops - self.columns * (self.rows + 1))[mask]
        column, row = np.divmod(place, self.rows[mask] + 1)
        return mask, column + self.left[mask], row + self.top[mask]


def encode_crops(flat: NDArray[np.bool_], crops: Crops) -> list[dict[str, Any]]:
    """Encode the masks that :meth:`Crops.buffer` holds as ``{"size": [H, W], "counts": str}``."""
    if not len(crops.left):
        return []
    change = np.empty_like(flat)
    change[:1] = flat[:1]
    np.not_equal(flat[1:], flat[:-1], out=change[1:])
    mask, column, row = crops.locate(np.flatnonzero(change))
    pixel = column * crops.height + row
    # Where crops reach from the image's top to its bottom, a run goes on in the next column.
    joined = np.flatnonzero((pixel[1:] == pixel[:-1]) & (mask[1:] == mask[:-1]))
    at_end = np.flatnonzero(pixel == crops.height * crops.width)
    dropped = np.concatenate([joined, joined + 1, at_end])
    mask, pixel = np.delete(mask, dropped), np.delete(pixel, dropped)
    counts = np.bincount(mask, minlength=len(crops.left)) + 1
    texts = _compressed(_lengths(pixel, counts, crops.height * crops.width), counts)
    size = [crops.height, crops.width]
    return [{"size": list(size), "counts": text} for text in texts]


def _lengths(pixel: Ints, counts: Ints, num_pixels: int) -> Ints:
    """(V,) run lengths of each mask, from the pixels (B,) at which its runs from the second begin.

    A mask has ``counts`` runs, one more than boundaries.
    """
    stops = np.cumsum(counts)
    begins = np.zeros(len(pixel) + len(counts), dtype=np.int64)
    inner = np.ones(len(begins), dtype=np.bool_)
    inner[stops - counts] = False
    begins[inner] = pixel
    ends = np.append(begins[1:], 0)
    ends[stops - 1] = num_pixels
    return ends - begins


def _compressed(lengths: Ints, counts: Ints) -> list[str]:
    """Write each mask's run lengths as text; see :func:`eql_d2.data.masks.run_lengths`."""
    first = np.cumsum(counts) - counts
    number = np.arange(len(lengths)) - np.repeat(first, counts)
    values = lengths.copy()
    later = np.flatnonzero(number > 2)
    values[later] -= lengths[later - 2]
    # A number needs one character more for every five bits beyond the first four and the sign.
    magnitude = np.where(values < 0, ~values, values)
    digits = np.ones(len(values), dtype=np.int64)
    longest = int(magnitude.max()).bit_length() // BITS + 1
    for place in range(1, longest):
        digits += magnitude >= 1 << (BITS * place - 1)
    stops = np.cumsum(digits)
    starts = stops - digits
    text = np.empty(int(stops[-1]), dtype=np.uint8)
    for place in range(longest):
        longer = np.flatnonzero(digits > place)
        code = (values[longer] >> (BITS * place)) & VALUE
        code |= np.where(digits[longer] > place + 1, MORE, 0)
        text[starts[longer] + place] = code + FIRST_CHARACTER
    joined = text.tobytes().decode("ascii")
    ends = stops[first + counts - 1].tolist()
    return [joined[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
