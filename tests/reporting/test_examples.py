"""Drawn examples: what is taken from results files."""

import pytest
from pycocotools import mask as coco_mask

from eql_d2.reporting.examples import _box_around


@pytest.mark.parametrize("counts", ["P137000000000l0", "h3"])
def test_masks_without_boxes_get_the_box_around_them(counts):
    rle = {"size": [10, 12], "counts": counts}
    assert _box_around(rle) == coco_mask.toBbox(rle).tolist()
