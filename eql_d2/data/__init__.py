"""Reading, checking and generating COCO and LVIS annotation files."""

from eql_d2.data.image_paths import ImageFinder
from eql_d2.data.loading import check_content, load_detection_data, usable_content
from eql_d2.data.longtail_json import longtail_content, split_images
from eql_d2.data.longtail_shapes import generate_longtail_shapes
from eql_d2.data.masks import decode_mask, encode_rle
from eql_d2.data.pixels import read_pixels
from eql_d2.data.records import DetectionData, ImageRecord, Instance

__all__ = [
    "DetectionData",
    "ImageFinder",
    "ImageRecord",
    "Instance",
    "check_content",
    "decode_mask",
    "encode_rle",
    "generate_longtail_shapes",
    "load_detection_data",
    "longtail_content",
    "read_pixels",
    "split_images",
    "usable_content",
]
