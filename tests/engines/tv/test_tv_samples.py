"""Images and targets stay together through resizing and flipping."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from PIL import Image

from eql_d2.categories import CategoryStatistics
from eql_d2.data import ImageRecord, Instance
from eql_d2.engines.tv.samples import (
    TestImages,
    TrainingImages,
    resize_pixels,
    shortest_edge_size,
    to_tensor,
    training_size,
    training_target,
)
from eql_d2.errors import DataError
from eql_d2.evaluation import ImageDetections
from eql_d2.plotting import predict_images, predictions


@pytest.fixture
def record(tmp_path):
    """A 40 x 60 image, black but for two bright rectangles, and a crowd region."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 8:20] = (250, 10, 20)
    pixels[4:14, 40:58] = (30, 240, 40)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    instances = [
        Instance(0, (8.0, 10, 12, 20), [[8, 10, 20, 10, 20, 30, 8, 30]], False),
        Instance(2, (40.0, 4, 18, 10), [[40, 4, 58, 4, 58, 14, 40, 14]], False),
        Instance(1, (0.0, 0, 60, 40), [[0, 0, 60, 0, 60, 40, 0, 40]], True),
    ]
    return ImageRecord(7, str(tmp_path / "a.png"), 40, 60, instances)


@pytest.mark.parametrize(
    ("height", "width", "shortest", "longest", "wanted"),
    [
        (480, 640, 800, 1333, (800, 1067)),
        (480, 640, 240, 1333, (240, 320)),
        (400, 1000, 800, 1333, (533, 1333)),
        (1000, 400, 800, 1333, (1333, 533)),
        (427, 640, 0, 1333, (427, 640)),
        (333, 500, 640, 1333, (640, 961)),
        (788, 394, 429, 855, (855, 428)),  # 427.5 but for the last bit
        (5000, 1, 800, 1333, (1333, 1)),
        (1, 5000, 800, 1333, (1, 1333)),
        (1, 1, 800, 1333, (800, 800)),
    ],
)
def test_shortest_edge(height, width, shortest, longest, wanted):
    assert shortest_edge_size(height, width, shortest, longest) == wanted


@pytest.mark.detectron2
def test_shortest_edge_is_detectron2s():
    transforms = importlib.import_module("detectron2.data.transforms")
    rng = np.random.default_rng(0)
    for _ in range(100_000):  # so many that some products are halves
        height, width, shortest = rng.integers(1, 3000, 3).tolist()
        longest = int(rng.integers(shortest, 4000))
        wanted = transforms.ResizeShortestEdge.get_output_shape(height, width, shortest, longest)
        wanted = tuple(max(side, 1) for side in wanted)
        assert shortest_edge_size(height, width, shortest, longest) == wanted


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "none"])
@pytest.mark.parametrize("size", [40, 80, 20])
def test_boxes_masks_and_pixels_agree(record, settings_of, flip, size):
    settings = settings_of("INPUT.RANDOM_FLIP", flip, "INPUT.MIN_SIZE_TRAIN", [size]).input
    images = TrainingImages([record], settings, seed=0, with_masks=True)
    flipped = set()
    for position in range(12):
        sample = images[position, 0]
        target, pixels = sample.target, sample.image
        assert pixels.shape == (3, size, size * 3 // 2)
        assert target["labels"].tolist() == [0, 2]
        for box, mask, channel in zip(target["boxes"], target["masks"], (0, 1), strict=True):
            bright = (pixels[channel] > 125).nonzero()
            y0, x0 = bright.min(0).values.tolist()
            y1, x1 = (bright.max(0).values + 1).tolist()
            assert np.abs(box.numpy() - [x0, y0, x1, y1]).max() <= 0.51
            ys, xs = mask.nonzero().unbind(1)
            around = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert np.abs(box.numpy() - np.array(around)).max() <= 0.51
        flipped.add(tuple(target["boxes"][1].tolist()))
    assert len(flipped) == (1 if flip == "none" else 2)


def test_augmentation_depends_on_seed_and_position_only(record, settings_of):
    settings = settings_of("INPUT.MIN_SIZE_TRAIN", [24, 32, 40, 48]).input
    first = TrainingImages([record], settings, seed=1, with_masks=True)
    again = TrainingImages([record], settings, seed=1, with_masks=True)
    sequence = [first[p, 0] for p in range(10)]
    for position in reversed(range(10)):
        sample = again[position, 0]
        assert torch.equal(sample.image, sequence[position].image)
        assert torch.equal(sample.target["boxes"], sequence[position].target["boxes"])
    assert len({s.image.shape for s in sequence}) > 1
    other = TrainingImages([record], settings, seed=2, with_masks=True)
    assert any(
        other[p, 0].image.shape != sequence[p].image.shape
        or not torch.equal(other[p, 0].image, sequence[p].image)
        for p in range(10)
    )


def test_sizes_are_chosen_or_drawn_from_a_range(settings_of):
    rng = np.random.default_rng(0)
    choice = settings_of("INPUT.MIN_SIZE_TRAIN", [32, 64]).input
    found = {training_size(100, 100, choice, rng)[0] for _ in range(50)}
    assert found == {32, 64}
    ranged = dataclasses.replace(choice, sample_size_in_range=True)
    found = {training_size(100, 100, ranged, rng)[0] for _ in range(500)}
    assert found == set(range(32, 65))


def test_crowds_and_slivers_are_no_targets(record):
    record.instances.append(Instance(1, (5.0, 5, 1e-4, 9), [[5, 5, 6, 5, 6, 14]], False))
    record.instances.append(Instance(1, (70.0, 5, 4, 9), [[70, 5, 74, 5, 74, 14]], False))
    target = training_target(record, (40, 60), "none", with_masks=False)
    assert target["labels"].tolist() == [0, 2]
    assert set(target) == {"boxes", "labels"}


def test_images_without_instances_have_empty_targets(record):
    record.instances.clear()
    target = training_target(record, (40, 60), "horizontal", with_masks=True)
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["masks"].shape == (0, 40, 60)
    assert target["labels"].dtype == torch.int64


def test_channel_order():
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[..., 0] = 200
    assert to_tensor(pixels, "RGB")[:, 0, 0].tolist() == [200, 0, 0]
    assert to_tensor(pixels, "BGR")[:, 0, 0].tolist() == [0, 0, 200]


def test_test_images_keep_their_original_size(record, settings_of):
    settings = settings_of("INPUT.MIN_SIZE_TEST", 80).input
    sample = TestImages([record], settings)[0]
    assert sample.image.shape == (3, 80, 120)
    assert sample.original_size == (40, 60)
    assert (sample.image_id, sample.target) == (7, {})


def test_no_resizing_leaves_pixels_alone():
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8)
    assert resize_pixels(pixels, (9, 7)) is pixels
    assert resize_pixels(pixels, (18, 14)).shape == (18, 14, 3)


@pytest.mark.parametrize("dataset", ["training", "test"])
def test_a_file_of_another_size_than_annotated_is_refused(record, settings_of, dataset):
    wrong = dataclasses.replace(record, height=60, width=40)
    if dataset == "training":
        images, item = TrainingImages([wrong], settings_of().input, 0, with_masks=True), (0, 0)
    else:
        images, item = TestImages([wrong], settings_of().input), 0
    with pytest.raises(DataError, match=r"a\.png is 60 x 40 .* say 40 x 60"):
        images[item]


def test_pinning_reaches_the_image_and_every_target(record, settings_of, monkeypatch):
    sample = TrainingImages([record], settings_of().input, 0, with_masks=True)[0, 0]
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    copy = sample.pin_memory()
    assert len(pinned) == 1 + len(sample.target) == 4
    assert copy.target.keys() == sample.target.keys()
    assert copy.image_id == 7


def test_rotated_photographs_are_read_upright(record, settings_of, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    Image.new("RGB", (40, 60)).save(tmp_path / "b.jpg", exif=exif)
    turned = dataclasses.replace(record, path=str(tmp_path / "b.jpg"))
    sample = TestImages([turned], settings_of("INPUT.MIN_SIZE_TEST", 0).input)[0]
    assert sample.image.shape == (3, 40, 60)


def test_training_testing_and_prediction_see_the_same_pixels(
    images_of_every_kind, settings_of, tmp_path, monkeypatch
):
    monkeypatch.setattr(predictions, "draw_detections", lambda pixels, *_: pixels)  # slow
    whole = ("INPUT.MIN_SIZE_TRAIN", [6], "INPUT.MIN_SIZE_TEST", 6, "INPUT.RANDOM_FLIP", "none")
    settings = settings_of(*whole).input
    for name, (path, wanted) in images_of_every_kind.items():
        height, width = wanted.shape[:2]
        record = ImageRecord(1, str(path), height, width, [])
        trained = TrainingImages([record], settings, seed=0, with_masks=False)[0, 0].image
        tested = TestImages([record], settings)[0].image
        predicted = pixels_of_prediction(path, tmp_path)
        for pixels in (trained, tested):
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), wanted), name
        assert np.array_equal(predicted, wanted), name


def pixels_of_prediction(path, folder):
    """Return what ``predict.py`` shows a model of the image ``path``."""
    seen = []

    def predict(pixels):
        seen.append(pixels)
        return ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), None)

    statistics = CategoryStatistics.from_counts(
        names=["a"], category_ids=[1], image_count=[1], instance_count=[1], num_images=1
    )
    assert predict_images(predict, path.parent, [path], statistics, folder).skipped == []
    return seen[0]


@pytest.mark.parametrize("dataset", ["training", "test"])
def test_unreadable_images_are_named(unreadable_images, settings_of, dataset):
    for path in unreadable_images.values():
        record = ImageRecord(1, str(path), 64, 64, [])
        images, item = TestImages([record], settings_of().input), 0
        if dataset == "training":
            images, item = TrainingImages([record], settings_of().input, 0, with_masks=True), (0, 0)
        with pytest.raises(DataError) as caught:
            images[item]
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("shortest", [1, 64])
@pytest.mark.parametrize(("height", "width"), [(5000, 1), (1, 5000), (1, 1), (2, 3)])
def test_images_of_a_line_or_a_dot_are_samples(tmp_path, settings_of, height, width, shortest):
    Image.new("RGB", (width, height), (9, 9, 9)).save(tmp_path / "a.png")
    sides = (0.0, 0.0, float(width), float(height))
    outline = [[0, 0, width, 0, width, height, 0, height]]
    record = ImageRecord(
        1, str(tmp_path / "a.png"), height, width, [Instance(0, sides, outline, False)]
    )
    sizes = ("INPUT.MIN_SIZE_TRAIN", [shortest], "INPUT.MIN_SIZE_TEST", shortest)
    settings = settings_of(*sizes).input
    for position in range(6):  # flipped and not
        sample = TrainingImages([record], settings, 0, with_masks=True)[position, 0]
        assert min(sample.image.shape[1:]) >= 1
        assert (sample.image == 9).all()
        assert sample.target["masks"].shape == (1, *sample.image.shape[1:])
        assert sample.target["masks"].all()
    assert TestImages([record], settings)[0].image.shape == sample.image.shape
