"""The highest scores of each image, the same as sorting each image's detections."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.evaluation.scoring import highest_scores
from eql_d2.submission.top_scores import TopScores


def kept(image, scores, limit, pieces, num_images=4):
    tops = TopScores(num_images, limit)
    parts = list(zip(np.split(image, pieces), np.split(scores, pieces), strict=True))
    for part in parts:
        tops.add(*part)
    flags = np.concatenate([tops.keep(*part) for part in parts])
    assert (~flags).sum() == tops.num_left_out
    return np.flatnonzero(flags).tolist()


@settings(deadline=None)
@given(data=st.data(), number=st.integers(0, 60), limit=st.integers(1, 20))
def test_as_the_evaluation_keeps_them(data, number, limit):
    """Few different scores, so that most are equal to others."""
    numbers = st.lists(st.integers(0, 3), min_size=number, max_size=number)
    image = np.array(data.draw(numbers), dtype=np.int64)
    scores = np.array(data.draw(numbers)) / 3
    pieces = sorted(data.draw(st.lists(st.integers(0, number), max_size=4)))
    assert kept(image, scores, limit, pieces) == highest_scores(image, scores, limit).tolist()


def test_no_limit():
    image = np.zeros(500, dtype=np.int64)
    for limit in (0, 10**30):
        assert kept(image, np.arange(500.0), limit, [200]) == list(range(500))


def test_keeps_no_more_than_the_limit_in_memory():
    tops = TopScores(2, 10)
    for _ in range(50):
        tops.add(np.zeros(1000, dtype=np.int64), np.random.default_rng(0).random(1000))
    held = tops._highest[0]
    assert len(held) == 10
    assert held.base is None


@pytest.mark.parametrize("limit", [1, 5])
def test_detections_of_no_image_are_left_aside(limit):
    tops = TopScores(2, limit)
    tops.add(np.array([-1, 0, -1, 0]), np.array([0.9, 0.1, 0.8, 0.2]))
    assert tops.num_left_out == max(0, 2 - limit)
