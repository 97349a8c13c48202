"""What the readers of annotation files for training and for evaluation check alike.

The largest numbers: nobody draws a polygon beyond them; files that are damaged or made to do harm
do, and pycocotools, which allocates memory in proportion to what it is asked for, ends the process
there. And names that categories share. Standard library only, so that every layer may use it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

LARGEST_COORDINATE = 1_000_000  # pixels from the image's origin, of polygons and boxes
# Pixels, the longer of the two sides of each edge added up. pycocotools needs about 40 bytes for
# each: 0.8 GB. An outline in an image of 4,000 pixels that crosses it 5,000 times is within.
LONGEST_OUTLINE = 20_000_000
LARGEST_SIDE = 100_000  # pixels of an image's height or width
MOST_PIXELS = 2**29 - 1  # of an image: run lengths of COCO have 6 characters of 5 bits
NUM_EXAMPLES = 3  # in a message


def far_coordinate(numbers: Sequence[float]) -> float | None:
    """Return the number furthest from 0 if it is beyond ``LARGEST_COORDINATE`` and float64 has it.

    What is no finite number is not for this limit: readers leave it out as they do text.
    """
    low, high = min(numbers), max(numbers)
    if -LARGEST_COORDINATE <= low and high <= LARGEST_COORDINATE:
        return None
    furthest = low if -low > high else high
    return furthest if abs(furthest) <= sys.float_info.max else None


def polygon_beyond_limits(polygon: Sequence[float]) -> str | None:
    """Say in words which limit a polygon of finite numbers x0, y0, x1, y1, ... exceeds, or None."""
    reach = max(max(polygon), -min(polygon))
    # Nearly all end here: no edge is longer than twice the reach, and there are half as many.
    if reach <= LARGEST_COORDINATE and len(polygon) * reach <= LONGEST_OUTLINE:
        return None
    far = far_coordinate(polygon)
    if far is not None:
        return f"coordinate {far:.6g}, limit {LARGEST_COORDINATE:,}"
    if not reach <= LARGEST_COORDINATE:  # no finite number
        return None
    points = list(zip(polygon[0::2], polygon[1::2], strict=True))
    length = sum(
        max(abs(x1 - x0), abs(y1 - y0)) for (x0, y0), (x1, y1) in pairwise([*points, points[0]])
    )
    if length <= LONGEST_OUTLINE:
        return None
    return f"an outline of {length:,.0f} pixels, limit {LONGEST_OUTLINE:,}"


def size_problem(height: int, width: int) -> str | None:
    """Say in words why an image of whole numbers cannot have this size, or None."""
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        return f"sides must be 1 to {LARGEST_SIDE:,} pixels"
    return None if height * width <= MOST_PIXELS else f"at most {MOST_PIXELS:,} pixels are read"


def repeated_names(names: Mapping[int, str]) -> str | None:
    """Say in words which names more than one category has, or None.

    A warning, not a refusal: leaves of different branches may share a name, and ids tell them
    apart. Tables and drawings do not.

    Args:
        names: of the categories by id.
    """
    ids: dict[str, list[int]] = {}
    for category_id, name in names.items():
        ids.setdefault(name, []).append(category_id)
    shared = [f"{name!r} (ids {', '.join(map(str, i[:3]))})" for name, i in ids.items() if i[1:]]
    if not shared:
        return None
    more = ", ..." if len(shared) > NUM_EXAMPLES else ""
    return (
        f"{len(shared)} names belong to more than one category: "
        f"{', '.join(shared[:NUM_EXAMPLES])}{more}"
    )
