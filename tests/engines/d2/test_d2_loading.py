"""Images that are not what the annotations say, and seeds of long runs."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from eql_d2.errors import DataError, MissingPackageError

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import loading
    from eql_d2.engines.d2.compat import get_cfg
    from eql_d2.engines.d2.mapper import Mapper, message_of

pytestmark = pytest.mark.detectron2


@pytest.fixture
def record(tmp_path):
    """Build the record of a stored picture of 20 x 10 pixels that lies on its side."""

    def make(**changes):
        exif = Image.Exif()
        exif[274] = 6  # to be turned by a quarter: 10 x 20
        Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
        path = str(tmp_path / "a.jpg")
        return {"file_name": path, "width": 10, "height": 20, "image_id": 1, **changes}

    return make


def test_images_are_turned_before_sizes_are_compared(record):
    mapped = Mapper(get_cfg(), is_train=False)(record())
    assert mapped["image"].shape[1:] == (1333, 667)


def test_another_size_is_told_with_both_sizes(record):
    with pytest.raises(DataError) as caught:
        Mapper(get_cfg(), is_train=False)(record(width=20, height=10))
    assert "a.jpg is 10 x 20 pixels" in str(caught.value)
    assert "the annotations say 20 x 10" in str(caught.value)


def test_a_file_that_is_no_image_is_named(record, tmp_path):
    one = record()
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.jpg cannot be read as an image"):
        Mapper(get_cfg(), is_train=True)(one)


def test_workers_tell_the_same_in_one_line(record):
    mapper = Mapper(get_cfg(), is_train=False)
    with pytest.raises(DataError) as here:
        mapper(record(width=3))
    loader = torch.utils.data.DataLoader(
        [record(width=3)], num_workers=1, collate_fn=MapOne(mapper)
    )
    with pytest.raises(DataError) as there:
        next(iter(loader))
    assert "Traceback" in str(there.value), "nothing needs to be taken off"
    assert message_of(there.value) == message_of(here.value) == str(here.value)


class MapOne:
    def __init__(self, mapper):
        self._mapper = mapper

    def __call__(self, records):
        return self._mapper(records[0])


@pytest.mark.parametrize("seed", [0, 2**31 - 1, 2**32 - 1])
def test_seeds_of_long_runs_are_seeds_for_numpy(seed):
    loading.seed_process(seed, 3_000_000)
    first = np.random.rand()
    loading.seed_process(seed, 3_000_000)
    assert np.random.rand() == first
    loading.seed_process(seed, 3_000_001)
    assert np.random.rand() != first
