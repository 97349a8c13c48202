"""evaluate() against the official lvis code, and where the two differ on purpose."""

import pytest


@pytest.mark.parametrize("first", range(0, 240, 24))
def test_random_cases_equal_lvis(first, random_case, assert_official):
    for seed in range(first, first + 24):
        assert_official(*random_case(seed))
