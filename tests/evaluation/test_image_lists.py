"""Evaluation on some of the images, as on a file that has only these."""

import gzip
import logging

import numpy as np
import pytest

from eql_d2.errors import DataError
from eql_d2.evaluation import evaluate
from eql_d2.evaluation.image_lists import find_images, read_image_ids


@pytest.mark.parametrize("seed", range(12))
def test_equals_annotations_and_results_of_these_images_alone(seed, random_case):
    truth, records = random_case(seed, number=80)
    chosen = [image["id"] for image in truth["images"]][::2]
    metrics = ("ap", "ar", "fixed", "pool", "agnostic", "proposals")
    options = {"metrics": metrics, "iou_types": ["bbox", "boundary"], "max_per_category": 9}
    ours = evaluate(truth, records, image_ids=chosen, **options)
    truth["images"] = [image for image in truth["images"] if image["id"] in chosen]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in chosen]
    expected = evaluate(truth, [r for r in records if r["image_id"] in chosen], **options)
    assert ours == expected


def test_some_images_are_another_number(random_case):
    truth, records = random_case(21)
    everything = evaluate(truth, records).metrics["bbox/AP"]
    each = {
        evaluate(truth, records, image_ids=[image["id"]]).metrics["bbox/AP"]
        for image in truth["images"]
    }
    assert len(each | {everything}) > 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ids.json", "[7, 3, 3, 11]"),
        ("ids.json", '{"images": [{"id": 7}, {"id": 3}, {"id": 11}], "annotations": []}'),
        ("ids.json", '{"images": [7, 3, 11]}'),
        ("ids.txt", "7\n3\n\n11\n"),
        ("ids", "7 3 11"),
        ("ids.txt", "\ufeff7\r\n3\r\n11"),
    ],
)
def test_forms_of_a_list(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert read_image_ids(tmp_path / name).tolist() == [3, 7, 11]


def test_a_compressed_list(tmp_path):
    (tmp_path / "ids.json.gz").write_bytes(gzip.compress(b"[7, 3, 11]"))
    assert read_image_ids(tmp_path / "ids.json.gz").tolist() == [3, 7, 11]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ids.json", "[7, ", "not valid json"),
        ("ids.json", '{"ids": [7]}', "expected a json list of image ids"),
        ("ids.json", '["000007.jpg"]', "not an integer .*000007"),
        ("ids.json", '{"images": [{"name": 3}]}', "not an integer"),
        ("ids.txt", "7\n000003.jpg\n", "1 of 2 entries.*000003.jpg"),
        ("ids.json", "[]", "lists no image"),
        ("ids.txt", "", "lists no image"),
        ("ids.txt", "-7", "not an integer"),
        ("ids.txt", "9" * 5000, "not an integer"),
        ("ids.json", f"[{'9' * 5000}]", "not valid json"),
    ],
)
def test_what_is_no_list_is_named(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_image_ids(tmp_path / name)
    assert name in str(error.value)


def test_a_list_that_is_not_there(tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe1")
    for name in ("missing.json", "missing.txt", "bytes.txt"):
        with pytest.raises(DataError, match=name):
            read_image_ids(tmp_path / name)


def test_unknown_images_are_counted(caplog):
    caplog.set_level(logging.INFO)
    chosen = find_images(np.array([2, 5, 9]), [9, 2, 100, 101])
    assert chosen.tolist() == [True, False, True]
    assert "evaluated on 2 of 3 images" in caplog.text
    assert "2 of 4 listed images are not in the annotations" in caplog.text
    with pytest.raises(DataError, match=r"none of the 2 listed images .*\[100, 101\].*\[2, 5, 9\]"):
        find_images(np.array([2, 5, 9]), [101, 100])
