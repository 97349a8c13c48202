"""Mutations of sound annotation files: each ends in a DataError or in sound, counted data."""

import copy
import json
import math
import random

import pytest

from eql_d2.categories import CategoryStatistics
from eql_d2.data import decode_mask, load_detection_data
from eql_d2.errors import DataError
from eql_d2.evaluation import evaluate

NUMBERS = (0, -1, 1, 3.5, 10**30, -(10**400), math.nan, math.inf, -math.inf, 1e308)
VALUES = (None, True, False, "", "text", "7", "\0", "\ud800", [], {}, {"id": {}})
LISTS = ([[]], [None], [{}], [1, 2, 3], [math.nan] * 4, [0, 0, 1e308, 1e308])
POLYGONS = ([[1, 1, 1, 1]], [[math.inf] * 6], [[1e15] * 8], [[9e5, -9e5, -9e5, 9e5] * 50])
RUNS = ({"size": [1, 1]}, {"size": [12, 16], "counts": "0"}, {"size": [12, 16], "counts": [192]})
STRANGE = (*NUMBERS, *VALUES, *LISTS, *POLYGONS, *RUNS)
ROUNDS = 1500


def sound():
    """A file in which every kind of field occurs."""
    images = [
        {
            "id": i,
            "coco_url": f"http://host/train/{i}.png",
            "file_name": f"{i}.png",
            "height": 12,
            "width": 16,
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [],
        }
        for i in range(1, 5)
    ]
    segmentations = (
        [[1, 1, 9, 1, 9, 9]],
        [[1, 1, 9, 1, 9, 9], [0.5, 0.5, 3, 0, 2, 8, 1, 4]],
        {"size": [12, 16], "counts": [20, 30, 142]},
        {"size": [12, 16], "counts": "d0n0f0d0`1"},
        None,
    )
    annotations = [
        {
            "id": i,
            "image_id": i % 4 + 1,
            "category_id": i % 3 + 1,
            "bbox": [1, 1.5, 8, 7.5],
            "area": 40.0,
            "iscrowd": int(i == 3),
            "segmentation": copy.deepcopy(segmentations[i % 5]),
        }
        for i in range(1, 11)
    ]
    categories = [{"id": i, "name": f"n{i}", "frequency": "c"} for i in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": categories}


def places(value, path=()):
    """All paths to something inside of a json value, with the containers."""
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(children):
        yield value, key
        if isinstance(child, (dict, list)):
            yield from places(child, (*path, key))


def mutate(value, rng):
    """Delete, replace, double or swap something."""
    container, key = rng.choice(list(places(value)))
    kind = rng.choice(["delete", "replace", "replace", "replace", "double", "swap", "scale"])
    if kind == "delete":
        del container[key]
    elif kind == "replace":
        container[key] = copy.deepcopy(rng.choice(STRANGE))
    elif kind == "double" and isinstance(container, list):
        container.append(copy.deepcopy(container[key]))
    elif kind == "swap":
        other, other_key = rng.choice(list(places(value)))
        container[key] = copy.deepcopy(other[other_key])
    elif type(container[key]) in (int, float):
        container[key] *= rng.choice([-1, 0, 0.1, 10, 1e6])


def load_or_refuse(path):
    """The data, or None where the file is refused with a message that names it."""
    try:
        return load_detection_data(path, path.parent, check_images=False)
    except DataError as error:
        refusal = str(error)
    assert str(path) in refusal
    return None


def check_sound(data):
    """Everything an engine relies on."""
    num_categories = len(data.statistics)
    assert sorted(set(data.category_ids)) == list(data.category_ids)
    assert len({image.image_id for image in data.images}) == len(data.images)
    found = [0] * num_categories
    for image in data.images:
        assert image.height > 0
        assert image.width > 0
        for instance in image.instances:
            assert 0 <= instance.category < num_categories
            assert all(math.isfinite(v) for v in instance.bbox)
            assert min(instance.bbox[2:]) > 0
            if instance.segmentation is not None:
                mask = decode_mask(instance.segmentation, image.height, image.width)
                assert mask.shape == (image.height, image.width)
            found[instance.category] += not instance.iscrowd
    assert data.statistics.instance_count.tolist() == found


def test_the_sound_file_is_sound(tmp_path, caplog):
    path = tmp_path / "sound.json"
    path.write_text(json.dumps(sound()))
    data = load_detection_data(path, tmp_path, check_images=False)
    check_sound(data)
    assert sum(len(image.instances) for image in data.images) == 10
    assert not caplog.records


@pytest.mark.parametrize("mutations", [1, 3])
def test_mutated_files_end_in_a_data_error_or_in_sound_data(tmp_path, mutations, caplog):
    rng = random.Random(mutations)
    path = tmp_path / "mutated.json"
    outcomes = {"refused": 0, "left out": 0, "whole": 0}
    for _ in range(ROUNDS // mutations):
        value = sound()
        for _ in range(mutations):
            mutate(value, rng)
        path.write_text(json.dumps(value))
        caplog.clear()
        data = load_or_refuse(path)
        if data is None:
            outcomes["refused"] += 1
            continue
        check_sound(data)
        evaluate(path, [], iou_types=["bbox"], groups=data.statistics.groups)  # does not raise
        if data.has_masks:
            evaluate(path, [], iou_types=["segm"], groups=data.statistics.groups)
        kept = sum(len(image.instances) for image in data.images)
        warned = any("left out" in r.getMessage() for r in caplog.records)
        assert warned or kept >= len(value["annotations"])
        outcomes["left out" if warned else "whole"] += 1
    assert min(outcomes.values()) > 0.02 * sum(outcomes.values())


def test_mutated_files_are_counted_or_refused_by_the_statistics(tmp_path):
    rng = random.Random(7)
    path = tmp_path / "mutated.json"
    counted = 0
    for _ in range(ROUNDS // 3):
        value = sound()
        mutate(value, rng)
        path.write_text(json.dumps(value))
        try:
            statistics = CategoryStatistics.from_json(path)
        except DataError:
            continue
        counted += 1
        assert int(statistics.instance_count.sum()) <= len(value["annotations"])
    assert counted > ROUNDS // 6


def test_cut_and_flipped_bytes_end_in_a_data_error_or_in_sound_data(tmp_path):
    rng = random.Random(11)
    text = json.dumps(sound()).encode()
    path = tmp_path / "bytes.json"
    for _ in range(300):
        changed = bytearray(text)
        for _ in range(rng.randint(0, 3)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.3 else changed)
        data = load_or_refuse(path)
        if data is not None:
            check_sound(data)
