"""From a network's scores, boxes and small masks to an image's detections, for any engine."""

from eql_d2.inference.masks import encode_masks, encode_masks_like_torchvision
from eql_d2.inference.selection import Selection, is_exporting, select_detections

__all__ = [
    "Selection",
    "encode_masks",
    "encode_masks_like_torchvision",
    "is_exporting",
    "select_detections",
]
