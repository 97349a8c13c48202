"""The masks of annotated objects, as compressed RLE strings that are safe to decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eql_d2.annotation_checks import polygon_beyond_limits
from eql_d2.evaluation.rle import RleSizes, compressed_counts, is_polygons, is_rle, measure_rles
from eql_d2.evaluation.rle_strings import RleStrings


def read_masks(
    segmentations: Sequence[Any], sizes: NDArray[np.int64]
) -> tuple[RleStrings, RleSizes, NDArray[np.bool_]]:
    """The masks of G segmentations in any of the forms of COCO: polygons, RLE compressed or not.

    Args:
        segmentations: G values as in the file.
        sizes: (G, 2) height and width of each object's image, above 0.

    Returns: G strings, their sizes, and (G,) which objects have a usable segmentation: one or more
    polygons of at least three finite points within the limits of
    :mod:`eql_d2.annotation_checks`, or an RLE of the image's size whose runs add up to it. The
    others get an empty mask.
    """
    from pycocotools import mask as coco_mask

    strings: list[bytes] = []
    for segmentation, size in zip(segmentations, sizes.tolist(), strict=True):
        if is_polygons(segmentation) and not any(map(polygon_beyond_limits, segmentation)):
            parts = coco_mask.frPyObjects(segmentation, *size)
            whole = parts[0] if len(parts) == 1 else coco_mask.merge(parts)
            strings.append(whole["counts"])
        elif is_rle(segmentation) and list(segmentation["size"]) == size:
            strings.append(compressed_counts(segmentation))
        else:
            strings.append(b"")
    measured = measure_rles(strings)
    usable = measured.totals == sizes.prod(axis=1)
    for place in np.flatnonzero(~usable).tolist():
        height, width = sizes[place].tolist()
        strings[place] = compressed_counts({"size": [height, width], "counts": [height * width]})
    measured.areas[~usable], measured.spans[~usable] = 0, 0
    result = RleStrings()
    result.append_strings(strings)
    return result, measured, usable
