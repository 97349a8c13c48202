"""Sorting and looking up millions at once, against the plain way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eql_d2.evaluation import selection
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.selection import PairSet, highest_scores, order_by_group

TRUTH = {
    "images": [{"id": i, "height": 9, "width": 9, "neg_category_ids": []} for i in (3, 5, 8)],
    "categories": [{"id": i, "name": str(i)} for i in (1, 4)],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4},
        {"id": 2, "image_id": 8, "category_id": 4, "bbox": [1, 1, 2, 2], "area": 4},
    ],
}

detections = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=40)


@given(detections, st.booleans())
def test_the_order_is_that_of_a_stable_sort_by_group_then_falling_score(rows, distinct):
    group = np.array([g for g, _ in rows], dtype=np.int64)
    scores = np.array([s / 4 for _, s in rows])
    if distinct:
        scores += np.arange(len(scores)) / 1000
    expected = sorted(range(len(rows)), key=lambda i: (group[i], -scores[i], i))
    assert order_by_group(group, scores).tolist() == expected


def test_groups_too_large_for_one_key():
    group = np.array([1 << 61, 3, 1 << 61, 3])
    assert order_by_group(group, np.array([0.1, 0.2, 0.3, 0.2])).tolist() == [1, 3, 2, 0]


@given(detections, st.integers(1, 5))
def test_the_highest_scores_of_each_group(rows, limit):
    group = np.array([g for g, _ in rows], dtype=np.int64)
    scores = np.array([s / 4 for _, s in rows])
    kept = []
    for name in range(5):
        members = [i for i in range(len(rows)) if group[i] == name]
        kept += sorted(members, key=lambda i: (-scores[i], i))[:limit]
    assert highest_scores(group, scores, limit).tolist() == sorted(kept)


@pytest.mark.parametrize("largest", [selection.LARGEST_TABLE, 0])
def test_pairs_are_found_by_table_and_by_search(monkeypatch, largest):
    monkeypatch.setattr(selection, "LARGEST_TABLE", largest)
    truth = read_ground_truth(TRUTH, need_masks=False)
    pairs = PairSet(truth, truth.pairs)
    image, category = np.divmod(np.arange(9), 3)
    category -= 1  # -1 is no category
    members = {(1, 0), (2, 1)}
    expected = [(i, k) in members for i, k in zip(image, category, strict=True)]
    assert pairs.contains(image, category).tolist() == expected
