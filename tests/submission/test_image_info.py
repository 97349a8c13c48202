"""What results are checked against, from annotation files and from those of test splits."""

import json

import numpy as np
import pytest

from eql_d2.errors import DataError
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.submission.image_info import read_image_info


@pytest.mark.parametrize("from_file", [False, True])
def test_the_same_as_evaluation_reads(truth, tmp_path, from_file):
    source = truth
    if from_file:
        source = tmp_path / "truth.json"
        source.write_text(json.dumps(truth))
    info = read_image_info(source)
    expected = read_ground_truth(truth, need_masks=True)
    assert info.image_ids.tolist() == expected.image_ids.tolist()
    assert info.sizes.tolist() == expected.sizes.tolist()
    assert info.category_ids.tolist() == expected.category_ids.tolist()
    assert info.object_pairs.tolist() == np.unique(expected.pairs).tolist()
    assert info.negative_pairs.tolist() == expected.negative_pairs.tolist()
    assert not info.exhaustive.any()
    assert info.has_labels


def test_real_annotations(shared_data):
    path = shared_data / "lvis_v0.5_val_100.json"
    info = read_image_info(path)
    expected = read_ground_truth(path, need_masks=False)
    assert len(info.image_ids) == 100
    assert len(info.category_ids) == 1230
    assert info.object_pairs.tolist() == np.unique(expected.pairs).tolist()
    assert info.negative_pairs.tolist() == expected.negative_pairs.tolist()


@pytest.mark.parametrize("annotations", [None, []])
def test_without_annotations(truth, tmp_path, annotations):
    truth["annotations"] = annotations
    path = tmp_path / "image_info.json"
    path.write_text(json.dumps({k: v for k, v in truth.items() if v is not None}))
    info = read_image_info(path)
    assert not info.has_labels
    assert info.image_ids.tolist() == [3, 5, 8]


def test_objects_of_unknown_images_and_categories_do_not_count(truth):
    before = read_image_info(truth).object_pairs.tolist()
    truth["annotations"] += [{"image_id": 99, "category_id": 2}, {"image_id": 3, "category_id": 99}]
    assert read_image_info(truth).object_pairs.tolist() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "has no list 'images'"),
        ({"categories": {}}, "has no list 'categories'"),
        ({"images": [{"id": 1}, {"id": 1}]}, "the id is repeated"),
        ({"images": [7]}, "no 'id'"),
        ({"annotations": [{"image_id": 3}]}, "without an integer 'category_id'"),
        ({"annotations": [5]}, "without an integer 'image_id': 5"),
    ],
)
def test_unusable_annotations(truth, tmp_path, change, message):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth | change))
    with pytest.raises(DataError, match=message) as caught:
        read_image_info(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DataError, match=message):
        read_image_info(truth | change)
