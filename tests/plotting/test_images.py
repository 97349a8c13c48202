"""Pictures are the same file every time, and whole or not there."""

import numpy as np
import pytest

from eql_d2.data import read_pixels
from eql_d2.errors import UserError
from eql_d2.plotting import write_png

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def test_png_comes_back_and_is_the_same_file_every_time(tmp_path):
    write_png(RGB, tmp_path / "new" / "a.png")
    write_png(RGB, tmp_path / "b.png")
    assert np.array_equal(read_pixels(tmp_path / "new" / "a.png"), RGB)
    assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_disk_that_fills_up_is_named_and_nothing_half_is_left(tmp_path, full_disk):
    with full_disk(20), pytest.raises(UserError, match=r"a\.png cannot be written"):
        write_png(RGB, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
