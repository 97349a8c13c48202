"""Images that are not what the annotations say, and seeds of long runs."""

import importlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from eql_d2.data import encode_rle, read_pixels
from eql_d2.errors import DataError, MissingPackageError, message_of

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import loading
    from eql_d2.engines.d2.compat import DatasetMapper, get_cfg
    from eql_d2.engines.d2.mapper import Mapper

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


def small_cfg(*overrides):
    """Detectron2's tree, with images as small as they are stored and never flipped."""
    cfg = get_cfg()
    sizes = ["INPUT.MIN_SIZE_TRAIN", (6,), "INPUT.MIN_SIZE_TEST", 6, "INPUT.RANDOM_FLIP", "none"]
    cfg.merge_from_list([*sizes, "MODEL.MASK_ON", True, *overrides])
    return cfg


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_files_of_every_kind_have_the_pixels_of_prediction(images_of_every_kind, order, is_train):
    mapper = Mapper(small_cfg("INPUT.FORMAT", order), is_train=is_train)
    for name, (path, wanted) in images_of_every_kind.items():
        height, width = wanted.shape[:2]
        mapped = mapper({"file_name": str(path), "height": height, "width": width})
        pixels = mapped["image"].permute(1, 2, 0).numpy()
        assert np.array_equal(pixels[..., ::-1] if order == "BGR" else pixels, wanted), name
        assert np.array_equal(wanted, read_pixels(path)), name


def test_eight_bit_files_have_detectron2s_pixels(images_of_every_kind):
    read_image = importlib.import_module("detectron2.data.detection_utils").read_image
    # Detectron2 clips 16 bits at 255, and turns a TIFF that Pillow has turned already.
    others = ("16", "32", "float", *(f"orientation{i}.tif" for i in range(2, 9)))
    for name, (path, _) in images_of_every_kind.items():
        if not any(part in name for part in others) or name.startswith("rgb16"):
            assert np.array_equal(read_pixels(path), read_image(str(path), "RGB")), name


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("is_train", [True, False])
def test_records_are_mapped_as_by_detectron2(images_of_every_kind, is_train, crop):
    """The same random numbers, crops, flips, boxes and masks; only the reading is another."""
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.MASK_ON", True, "INPUT.CROP.ENABLED", crop])
    cfg.merge_from_list(["INPUT.MASK_FORMAT", "bitmask" if crop else "polygon"])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (24, 32, 40), "INPUT.MIN_SIZE_TEST", 24])
    cfg.INPUT.CROP.SIZE = [0.9, 0.9]
    path, pixels = images_of_every_kind["orientation6.jpg"]
    (height, width), sides = pixels.shape[:2], [1, 1, 4, 5]
    mask = [[1.0, 1.0, 5.0, 1.0, 5.0, 6.0, 1.0, 6.0]]
    if crop:  # polygons would need shapely
        mask = encode_rle(np.pad(np.ones((5, 4), np.uint8), ((1, height - 6), (1, width - 5))))
    annotations = [
        {"bbox": sides, "bbox_mode": 1, "category_id": 3, "segmentation": mask, "iscrowd": c}
        for c in (0, 0, 1)
    ]
    record = {"file_name": str(path), "height": height, "width": width, "image_id": 5}
    record["annotations"] = annotations
    ours, stock = Mapper(cfg, is_train), DatasetMapper(cfg, is_train)
    shapes = set()
    for seed in range(20):
        (one, one_draw), (other, other_draw) = (mapped(m, record, seed) for m in (ours, stock))
        assert one.keys() == other.keys()
        assert one_draw == other_draw
        assert torch.equal(one["image"], other["image"])
        assert one["image"].dtype == other["image"].dtype
        shapes.add(tuple(one["image"].shape))
        if is_train:
            ones, others = one["instances"], other["instances"]
            assert torch.equal(ones.gt_boxes.tensor, others.gt_boxes.tensor)
            assert torch.equal(ones.gt_classes, others.gt_classes)
            assert str(list(ones.gt_masks)) == str(list(others.gt_masks))
            assert len(ones) == 2
    assert len(shapes) > (2 if is_train else 0)
    assert len(record["annotations"]) == 3, "the record was changed"


def mapped(mapper, record, seed):
    """Map with fixed random numbers; also return the next one."""
    np.random.seed(seed)
    return mapper(record), np.random.random()


@pytest.mark.parametrize("is_train", [True, False])
def test_unreadable_images_are_named(unreadable_images, is_train):
    mapper = Mapper(get_cfg(), is_train=is_train)
    for path in unreadable_images.values():
        with pytest.raises(DataError) as caught:
            mapper({"file_name": str(path), "height": 64, "width": 64, "annotations": []})
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("shortest", [1, 64])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize(("height", "width"), [(5000, 1), (1, 5000), (1, 1), (2, 3)])
def test_images_of_a_line_or_a_dot_are_mapped(tmp_path, height, width, mask_format, shortest):
    Image.new("RGB", (width, height), (9, 9, 9)).save(tmp_path / "a.png")
    outline = [[0, 0, width, 0, width, height, 0, height]]
    if mask_format == "bitmask":
        outline = encode_rle(np.ones((height, width), np.uint8))
    whole = {"bbox": [0, 0, width, height], "bbox_mode": 1, "category_id": 0}
    record = {"file_name": str(tmp_path / "a.png"), "height": height, "width": width}
    record["annotations"] = [{**whole, "segmentation": outline}]
    cfg = get_cfg()
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (shortest,), "INPUT.MIN_SIZE_TEST", shortest])
    cfg.merge_from_list(["INPUT.MASK_FORMAT", mask_format, "MODEL.MASK_ON", True])
    for seed in range(6):  # flipped and not
        sample, _ = mapped(Mapper(cfg, is_train=True), record, seed)
        assert min(sample["image"].shape[1:]) >= 1
        assert (sample["image"] == 9).all()
        assert len(sample["instances"]) == 1
    assert Mapper(cfg, is_train=False)(record)["image"].shape == sample["image"].shape


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
