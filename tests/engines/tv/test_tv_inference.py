"""Detections on disk and in hand: pixels of the image, one image at a time, nothing else moved."""

import dataclasses
import gc
import json
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eql_d2.data import decode_mask, load_detection_data
from eql_d2.engines.tv.inference import RESULTS_FILE, image_detections, predictor, write_results
from eql_d2.evaluation import evaluate

SQUARE = torch.tensor([[8.0, 16, 24, 48], [0, 0, 64, 64]])


class Fixed(nn.Module):
    """Stands for a detector: always finds the same, and keeps what it saw last and in which mode.

    Args:
        fails_at: number of the image at which it stops.
    """

    def __init__(self, fails_at=None, masks=True):
        super().__init__()
        self.seen, self.modes, self.masks, self.fails_at = 0, set(), masks, fails_at

    def forward(self, images):
        (self.last,) = images
        self.modes.add((self.training, torch.is_grad_enabled()))
        self.seen += 1
        if self.seen == self.fails_at:
            raise RuntimeError("stopped here")
        output = {
            "boxes": SQUARE,
            "scores": torch.tensor([0.75, 0.5]),
            "labels": torch.tensor([2, 0]),
        }
        return [output | ({"masks": torch.ones(2, 28, 28)} if self.masks else {})]


@pytest.fixture
def data(squares):
    return load_detection_data(squares.json, squares.images)


def many(data, number):
    """The same small images over and over, each with an id of its own."""
    images = [
        dataclasses.replace(data.images[i % len(data.images)], image_id=i) for i in range(number)
    ]
    return dataclasses.replace(data, images=images)


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("size", [(64, 64), (32, 128)])
@pytest.mark.parametrize("original", [(20, 30), (64, 64), (130, 7)])
def test_boxes_and_masks_are_in_pixels_of_the_image(size, original):
    """The mask of a rectangle is full at the very pixels that its box covers."""
    output = {
        "boxes": torch.tensor([[8.0, 16, 24, 32], [0, 0, size[1], size[0]]]),
        "scores": torch.tensor([0.75, 0.5]),
        "labels": torch.tensor([2, 0]),
        "masks": torch.ones(2, 28, 28),
    }
    found = image_detections(output, size, original)
    down, right = original[0] / size[0], original[1] / size[1]
    assert found.boxes[0] == pytest.approx([8 * right, 16 * down, 16 * right, 16 * down])
    assert found.boxes[1] == pytest.approx([0, 0, original[1], original[0]])
    assert (found.scores.tolist(), found.categories.tolist()) == ([0.75, 0.5], [2, 0])
    assert [mask["size"] for mask in found.masks] == [list(original)] * 2
    assert decode_mask(found.masks[1], *original).all()
    x, y, w, h = found.boxes[0]
    inside = decode_mask(found.masks[0], *original, may_be_empty=True).astype(bool)
    rows, columns = np.nonzero(inside)
    if len(rows):
        assert min(rows) >= np.floor(y) - 1
        assert max(rows) <= np.ceil(y + h) + 1
        assert min(columns) >= np.floor(x) - 1
        assert max(columns) <= np.ceil(x + w) + 1
    assert inside.sum() == pytest.approx(w * h, abs=2 * (w + h) + 4)
    assert output["boxes"][0].tolist() == [8, 16, 24, 32], "the output was edited"


def test_nothing_found_and_no_masks():
    nothing = {
        "boxes": torch.zeros(0, 4),
        "scores": torch.zeros(0),
        "labels": torch.zeros(0, dtype=torch.int64),
    }
    found = image_detections(nothing, (64, 64), (20, 30))
    assert (len(found), found.boxes.shape, found.masks) == (0, (0, 4), None)
    found = image_detections(nothing | {"masks": torch.zeros(0, 28, 28)}, (64, 64), (20, 30))
    assert found.masks == []


def test_each_image_stands_in_the_file_with_its_own_ids(data, settings_of, tmp_path):
    path = write_results(Fixed(), data, settings_of(), tmp_path)
    assert path == tmp_path / RESULTS_FILE
    records = read(path)
    expected = [image.image_id for image in data.images for _ in range(2)]
    assert [record["image_id"] for record in records] == expected
    assert [record["category_id"] for record in records[:2]] == [20, 3], "the data set's own ids"
    assert records[0]["bbox"] == [8, 16, 16, 32]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    metrics = evaluate(json.loads(data.json_path.read_text()), records).metrics
    assert metrics["bbox/AP"] is not None


def test_boxes_alone(data, settings_of, tmp_path):
    records = read(write_results(Fixed(masks=False), data, settings_of(), tmp_path))
    assert {tuple(record) for record in records} == {("image_id", "category_id", "score", "bbox")}


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_numbers_are_left_as_they_were(
    data, settings_of, tmp_path, training
):
    model = Fixed().train(training)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    write_results(model, data, settings_of(), tmp_path)
    assert model.training is training
    assert model.modes == {(False, False)}, "it ran in training mode, or kept gradients"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stop_in_the_middle_replaces_nothing(data, settings_of, tmp_path):
    old = write_results(Fixed(), data, settings_of(), tmp_path).read_bytes()
    with pytest.raises(RuntimeError, match="stopped here"):
        write_results(Fixed(fails_at=4), data, settings_of(), tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.json"))
    with pytest.raises(RuntimeError, match="stopped here"):
        write_results(Fixed(fails_at=4), data, settings_of(), tmp_path)
    path = tmp_path / RESULTS_FILE
    assert path.read_bytes() == old, "a part of the images replaced the whole"


def test_memory_does_not_grow_with_the_number_of_images(data, settings_of, tmp_path):
    """300 more images are 600 records of 150 characters, 110 kB if only their texts were kept.

    What waits for Python's collector of cycles comes to 30 kB, however many images there are.
    """
    settings = settings_of()

    def most_while_writing(number):
        images = many(data, number)
        gc.collect()
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        write_results(Fixed(), images, settings, tmp_path)
        return tracemalloc.get_traced_memory()[1] - start

    tracemalloc.start()
    most_while_writing(20)  # fills caches
    before, after = most_while_writing(100), most_while_writing(400)
    tracemalloc.stop()
    assert len(read(tmp_path / RESULTS_FILE)) == 800
    assert after < before + 60_000


def test_tensors_of_an_image_are_let_go_with_it(data, settings_of, tmp_path):
    """Their memory is torch's, which Python's account of memory does not see."""
    alive, most = weakref.WeakSet(), []

    class Watched(Fixed):
        def forward(self, images):
            most.append(len(alive))
            outputs = super().forward([image.clone() for image in images])
            self.last = None
            alive.update([*images, outputs[0]["masks"]])
            return outputs

    write_results(Watched(), many(data, 12), settings_of(), tmp_path)
    assert len(most) == 12
    assert max(most) <= 2, "more than the image and the masks that came just before"
    assert len(alive) == 0


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_predictor_gives_the_model_what_the_evaluation_gives_it(
    data, settings_of, tmp_path, order
):
    settings = settings_of("INPUT.FORMAT", order, "INPUT.MIN_SIZE_TEST", 48)
    one = dataclasses.replace(data, images=data.images[1:2])
    pixels = np.asarray(Image.open(one.images[0].path).convert("RGB"))
    evaluated, predicted = Fixed(), Fixed().train()
    records = read(write_results(evaluated, one, settings, tmp_path))
    found = predictor(predicted, settings.input, torch.device("cpu"))(pixels)
    assert evaluated.last.shape == (3, 48, 48)
    assert torch.equal(evaluated.last, predicted.last)
    assert predicted.modes == {(False, False)}
    assert found.boxes.tolist() == [record["bbox"] for record in records]
    assert [mask["counts"] for mask in found.masks] == [
        record["segmentation"]["counts"] for record in records
    ]
    red = pixels[..., 0].mean()
    channel = 0 if order == "RGB" else 2
    assert float(predicted.last[channel].mean()) == pytest.approx(red, abs=1)
