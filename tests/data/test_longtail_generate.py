import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eql_d2.data import decode_mask, generate_longtail_shapes, load_detection_data
from eql_d2.data.longtail_shapes import generate

SMALL = {
    "num_categories": 9,
    "num_train_images": 24,
    "num_test_images": 12,
    "image_size": 64,
    "seed": 3,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small set: training json, training images, test json, test images."""
    return generate_longtail_shapes(tmp_path_factory.mktemp("made") / "set", **SMALL)


@pytest.fixture(scope="module")
def default_set(tmp_path_factory):
    """The set of the main job, in smaller images."""
    return generate_longtail_shapes(tmp_path_factory.mktemp("default") / "set", image_size=64)


def digests(directory):
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {p.relative_to(directory): hashlib.sha256(p.read_bytes()).digest() for p in files}


def test_the_layout_is_as_told(made):
    train_json, train_images, test_json, test_images = made
    root = train_json.parent
    assert made == (root / "train.json", root / "train", root / "test.json", root / "test")
    assert len(list(train_images.glob("*.png"))) == 24
    assert len(list(test_images.glob("*.png"))) == 12
    assert sorted(os.listdir(root)) == [
        "parameters.json",
        "test",
        "test.json",
        "train",
        "train.json",
    ]
    assert os.listdir(root.parent) == ["set"]
    assert test_json.stat().st_mode & 0o044


def test_it_loads_without_any_remark(made, caplog):
    for annotations, images in (made[:2], made[2:]):
        data = load_detection_data(annotations, images)
        assert data.federated
        assert data.frequency is not None
        assert data.has_masks
    assert not caplog.records


def test_images_and_masks_agree(made):
    data = load_detection_data(*made[2:])
    objects = 0
    for record in data.images:
        pixels = np.asarray(Image.open(record.path)).astype(int)
        assert pixels.shape == (record.height, record.width, 3) == (64, 64, 3)
        coloured = pixels.max(axis=2) - pixels.min(axis=2) > 20
        for instance in record.instances:
            mask = decode_mask(instance.segmentation, 64, 64).astype(bool)
            assert coloured[mask].all()
            ys, xs = np.nonzero(mask)
            assert instance.bbox == (
                xs.min(),
                ys.min(),
                np.ptp(xs) + 1,
                np.ptp(ys) + 1,
            )
            objects += 1
    assert objects > 12


def test_the_default_set_has_three_groups_and_a_balanced_test_set(default_set):
    train = load_detection_data(*default_set[:2]).statistics
    test = load_detection_data(*default_set[2:]).statistics
    assert Counter(train.groups) == {"r": 14, "c": 17, "f": 9}
    assert train.num_images == 600
    assert sorted(train.image_count.tolist()) == sorted(generate.longtail_image_counts(40, 600))
    assert set(test.image_count.tolist()) == {20}
    assert int(test.instance_count.min()) >= 20
    assert train.names == test.names
    frequency = {
        c["id"]: c["frequency"] for c in json.loads(default_set[2].read_text())["categories"]
    }
    assert tuple(frequency[i] for i in train.category_ids) == train.groups


def test_equal_parameters_give_equal_bytes_and_another_seed_does_not(made, tmp_path):
    again = generate_longtail_shapes(tmp_path / "again", **SMALL)
    assert digests(again[0].parent) == digests(made[0].parent)
    other = generate_longtail_shapes(tmp_path / "other", **{**SMALL, "seed": 4})
    assert digests(other[0].parent).keys() == digests(made[0].parent).keys()
    assert not set(digests(other[0].parent).values()) & set(digests(made[0].parent).values())


def test_the_record_says_what_the_set_was_made_with(made):
    record = json.loads((made[0].parent / "parameters.json").read_text())
    assert record["made_with"] == {**SMALL, "version": generate.VERSION}
    assert len(record["sha256"]) == 64
    assert isinstance(made[0], Path)
