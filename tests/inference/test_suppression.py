"""NMS of all categories together equals torchvision's nms, one category after the other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from eql_d2.inference import suppression
from eql_d2.inference.suppression import FEW_BOXES, nms_per_category


def one_after_the_other(boxes, scores, labels, threshold):
    kept = [torch.zeros(0, dtype=torch.int64)]
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        kept.append(members[nms(boxes[members], scores[members], threshold)])
    return torch.cat(kept).sort().values


def make_boxes(generator, kind, number):
    if kind == "grid":  # overlaps of exactly 1/3, 1/2, 1 and so on
        corners = torch.randint(0, 6, (number, 2), generator=generator).float()
        return torch.cat([corners, corners + torch.randint(0, 5, (number, 2)).float()], 1)
    corners = torch.rand(number, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + torch.rand(number, 2, generator=generator) * 25], 1)
    if kind == "odd":
        odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -5.0, 0.0])
        places = torch.rand(boxes.shape, generator=generator) < 0.05
        boxes[places] = odd[torch.randint(5, (int(places.sum()),), generator=generator)]
    return boxes


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["plain", "grid", "odd"]),
    number=st.integers(0, 150),
    categories=st.integers(1, 60),
    levels=st.sampled_from([1, 4, 10**6]),
    threshold=st.sampled_from([0.0, 1 / 3, 0.5, 0.7, 1.0]),
)
def test_equals_one_category_after_the_other(seed, kind, number, categories, levels, threshold):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    boxes = make_boxes(generator, kind, number)
    scores = (torch.rand(number, generator=generator) * levels).ceil() / levels
    labels = torch.randint(0, categories, (number,), generator=generator)
    found = nms_per_category(boxes, scores, labels, threshold)
    assert torch.equal(found, one_after_the_other(boxes, scores, labels, threshold))


@pytest.mark.parametrize("size", [FEW_BOXES - 1, FEW_BOXES, FEW_BOXES + 1])
def test_around_the_size_that_counts_as_small(size):
    generator = torch.Generator().manual_seed(size)
    boxes = make_boxes(generator, "plain", 3 * size)
    scores = torch.rand(3 * size, generator=generator)
    labels = torch.arange(3 * size) % 3
    found = nms_per_category(boxes, scores, labels, 0.4)
    assert 3 < len(found) < 3 * size
    assert torch.equal(found, one_after_the_other(boxes, scores, labels, 0.4))


def test_nms_is_asked_only_where_rounding_may_matter(monkeypatch):
    asked = []
    monkeypatch.setattr(suppression, "nms", lambda *a: (asked.append(len(a[0])), nms(*a))[1])
    box = torch.tensor([0.0, 0, 90, 90])
    shifts = torch.tensor([0.0, 10, 30, 80])  # overlaps with the first: 0.8, 0.5 and 0.06
    boxes = box + torch.stack([shifts, torch.zeros(4)] * 2, 1)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert nms_per_category(boxes[[0, 1, 3]], scores[:3], torch.zeros(3).long(), 0.5).tolist() == [
        *(0, 2),
    ]
    assert asked == []
    found = nms_per_category(boxes, scores, torch.tensor([4, 7, 4, 7]), 0.5)
    assert found.tolist() == [0, 1, 2, 3]
    assert asked == [2], "the pair whose overlap is the threshold"


def test_categories_are_kept_apart():
    box = torch.tensor([[0.0, 0, 10, 10]]).repeat(5, 1)
    scores = torch.tensor([0.1, 0.9, 0.5, 0.9, 0.2])
    assert nms_per_category(box, scores, torch.tensor([3, 3, 1, 3, 0]), 0.5).tolist() == [1, 2, 4]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_types(dtype):
    generator = torch.Generator().manual_seed(0)
    boxes = make_boxes(generator, "plain", 80).to(dtype)
    scores = torch.rand(80, generator=generator).to(dtype)
    labels = torch.randint(0, 12, (80,), generator=generator)
    found = nms_per_category(boxes, scores, labels, 0.5)
    assert torch.equal(found, one_after_the_other(boxes, scores, labels, 0.5))


def test_half_precision_is_left_to_nms():
    over, unsure = suppression._compare(torch.ones(3, 4).half(), torch.ones(3, 4).half(), 0.5)
    assert unsure.all()
    assert not over.any()
