"""A small annotation file that tests change and load."""

import json

import pytest

from eql_d2.data import load_detection_data

SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]


def make_content():
    """Three images of 20 x 10 pixels, sparse ids, one crowd region, one box without mask."""

    def annotation(number, image, category, **more):
        box = {"bbox": [2, 2, 6, 6], "segmentation": [SQUARE], "iscrowd": 0}
        return {"id": number, "image_id": image, "category_id": category, **box, **more}

    crowd = {"size": [10, 20], "counts": [30, 20, 150]}
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 10, "width": 20} for i in (7, 5, 600)
        ],
        "categories": [{"id": 90, "name": "late"}, {"id": 3, "name": "early"}],
        "annotations": [
            annotation(1, 5, 90),
            annotation(2, 5, 90),
            annotation(3, 5, 3),
            annotation(4, 7, 90, segmentation=None),
            annotation(5, 7, 3, iscrowd=1, segmentation=crowd),
        ],
    }


@pytest.fixture
def content():
    """Function that returns a fresh :func:`make_content`."""
    return make_content


@pytest.fixture
def load(tmp_path):
    """Function that writes content to a file and loads it."""

    def write_and_load(value, check_images=False):
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(value))
        return load_detection_data(path, tmp_path, check_images=check_images)

    return write_and_load
