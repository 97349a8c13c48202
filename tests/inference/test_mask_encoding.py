"""Encoding from crops equals pasting whole pictures and encoding those, to the last pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from eql_d2.inference import encode_masks, encode_masks_like_torchvision, masks


def whole_rles(pictures):
    """Encode (N, H, W) masks with pycocotools."""
    found = []
    for picture in pictures:
        rle = mask_api.encode(np.asfortranarray(picture.numpy().astype(np.uint8)))
        size = [int(n) for n in rle["size"]]
        found.append({"size": size, "counts": rle["counts"].decode("ascii")})
    return found


def sampled_everywhere(probabilities, boxes, height, width):
    """grid_sample of each mask at every pixel centre of the image, zero outside the mask."""
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    x = (torch.arange(width) + 0.5 - x0) / (x1 - x0) * 2 - 1
    y = (torch.arange(height) + 0.5 - y0) / (y1 - y0) * 2 - 1
    shape = (len(boxes), height, width)
    grid = torch.stack([x[:, None].expand(shape), y[:, :, None].expand(shape)], 3)
    return F.grid_sample(probabilities[:, None], grid, align_corners=False)[:, 0] >= 0.5


KINDS = ("smooth", "noise", "halves", "flat", "near", "undefined")


def make_masks(rng, kind, number, side):
    if kind == "smooth":
        logits = rng.standard_normal((number, 1, 4, 4), dtype=np.float32) * 4
        return F.interpolate(torch.from_numpy(logits), size=side, mode="bicubic").sigmoid()[:, 0]
    shape = (number, side, side)
    values = {
        "noise": rng.random(shape),
        "halves": rng.integers(0, 3, shape) / 2,
        "flat": np.full(shape, 0.5),
        "near": 0.5 + rng.integers(-3, 4, shape) * 2.0**-24,
        "undefined": np.where(rng.random(shape) < 0.1, np.nan, rng.random(shape)),
    }[kind]
    return torch.from_numpy(values.astype(np.float32))


def make_boxes(rng, number, height, width, *, rounded=False, clipped=True):
    centre = rng.uniform(0, 1, (number, 2)) * [width, height]
    half = np.exp(rng.normal(0, 1.5, (number, 2))) * [width / 8, height / 8]
    boxes = np.concatenate([centre - half, centre + half], 1)
    if clipped:
        boxes = np.clip(boxes, 0, [width, height] * 2)
    if rounded:
        boxes = np.round(boxes * 2) / 2
    boxes = boxes.astype(np.float32)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    return torch.from_numpy(boxes)


cases = {
    "seed": st.integers(0, 2**31),
    "kind": st.sampled_from(KINDS),
    "number": st.integers(0, 5),
    "side": st.sampled_from([1, 2, 14, 28]),
    "height": st.integers(1, 70),
    "width": st.integers(1, 70),
    "rounded": st.booleans(),
    "clipped": st.booleans(),
}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(**cases)
def test_equals_sampling_the_whole_image(seed, kind, number, side, height, width, rounded, clipped):
    rng = np.random.default_rng(seed)
    boxes = make_boxes(rng, number, height, width, rounded=rounded, clipped=clipped)
    samples = make_masks(rng, kind, len(boxes), side)
    wanted = whole_rles(sampled_everywhere(samples, boxes, height, width))
    assert encode_masks(samples, boxes, height, width) == wanted


@settings(max_examples=150, deadline=None, derandomize=True)
@given(**cases)
def test_equals_torchvision(seed, kind, number, side, height, width, rounded, clipped):
    rng = np.random.default_rng(seed)
    boxes = make_boxes(rng, number, height, width, rounded=rounded, clipped=clipped)
    samples = make_masks(rng, kind, len(boxes), side)[:, None]
    wanted = paste_masks_in_image(samples, boxes, (height, width))[:, 0] > 0.5
    assert encode_masks_like_torchvision(samples, boxes, height, width) == whole_rles(wanted)


def test_large_images_equal_sampling_the_whole_image():
    rng = np.random.default_rng(0)
    boxes = make_boxes(rng, 12, 700, 1333)
    samples = make_masks(rng, "smooth", len(boxes), 28)
    wanted = whole_rles(sampled_everywhere(samples, boxes, 700, 1333))
    assert encode_masks(samples, boxes, 700, 1333) == wanted


@pytest.mark.parametrize("encode", [encode_masks, encode_masks_like_torchvision])
def test_chunks_change_nothing(encode, monkeypatch):
    rng = np.random.default_rng(1)
    boxes = make_boxes(rng, 20, 50, 60)
    samples = make_masks(rng, "noise", len(boxes), 28)
    whole = encode(samples, boxes, 50, 60)
    assert encode(samples[:, None], boxes, 50, 60) == whole
    monkeypatch.setattr(masks, "CHUNK_PIXELS", 300)
    assert len(masks._chunks(masks._crops(boxes.numpy(), 50, 60))) > 5
    assert encode(samples, boxes, 50, 60) == whole


def test_few_pixels_are_sampled_twice(monkeypatch):
    again = []
    sampled = masks._sampled
    monkeypatch.setattr(masks, "_sampled", lambda *a: (again.append(len(a[2])), sampled(*a))[1])
    rng = np.random.default_rng(2)
    boxes = make_boxes(rng, 40, 480, 640)
    samples = make_masks(rng, "smooth", len(boxes), 28)
    encode_masks(samples, boxes, 480, 640)
    assert 0 < sum(again) < 500


def test_doubling_the_doubt_changes_nothing_and_none_at_all_would(monkeypatch):
    """The bound on rounding is neither too small for hard masks nor without need."""
    rng = np.random.default_rng(3)
    boxes = make_boxes(rng, 60, 200, 200)
    samples = make_masks(rng, "near", len(boxes), 28)
    found = encode_masks(samples, boxes, 200, 200)
    monkeypatch.setattr(masks, "DOUBT_PER_SAMPLE", masks.DOUBT_PER_SAMPLE * 2)
    assert encode_masks(samples, boxes, 200, 200) == found
    monkeypatch.setattr(masks, "DOUBT_PER_SAMPLE", 0.0)
    assert encode_masks(samples, boxes, 200, 200) != found


def test_a_full_mask_fills_its_box():
    (rle,) = encode_masks(torch.ones(1, 28, 28), torch.tensor([[4.0, 6, 14, 26]]), 40, 40)
    wanted = np.zeros((40, 40), np.uint8)
    wanted[6:26, 4:14] = 1
    assert np.array_equal(mask_api.decode(rle), wanted)


@pytest.mark.parametrize("encode", [encode_masks, encode_masks_like_torchvision])
@pytest.mark.parametrize("box", [[50, 50, 60, 60], [-9, -9, -2, -2], [45, 0, 49, 9]])
def test_boxes_outside_give_no_pixels(encode, box):
    (rle,) = encode(torch.ones(1, 28, 28), torch.tensor([box], dtype=torch.float32), 40, 40)
    assert mask_api.decode(rle).sum() == 0
    assert rle["size"] == [40, 40]


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [7.5, 3, 7.5, 20], [9, 9, 3, 3]])
def test_boxes_without_area_give_no_pixels(box):
    (rle,) = encode_masks(torch.ones(1, 28, 28), torch.tensor([box], dtype=torch.float32), 40, 40)
    assert mask_api.decode(rle).sum() == 0


def test_nothing_gives_nothing():
    for encode in (encode_masks, encode_masks_like_torchvision):
        assert encode(torch.zeros(0, 28, 28), torch.zeros(0, 4), 5, 6) == []


@pytest.mark.parametrize(
    ("samples", "boxes", "message"),
    [
        (torch.ones(2, 28, 28), torch.zeros(1, 4), "expected probabilities"),
        (torch.ones(1, 28, 14), torch.zeros(1, 4), "expected probabilities"),
        (torch.ones(1, 2, 28, 28), torch.zeros(1, 4), "expected probabilities"),
        (torch.full((1, 28, 28), 1.5), torch.ones(1, 4), "at most 1, got 1.5"),
    ],
)
def test_what_does_not_fit_is_refused(samples, boxes, message):
    with pytest.raises(ValueError, match=message):
        encode_masks(samples, boxes, 40, 40)
