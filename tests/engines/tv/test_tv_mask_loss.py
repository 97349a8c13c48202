"""The mask loss by its definition: targets cut out of the ground truth, own category, one mean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from eql_d2.engines.tv.roi_losses import mask_loss

SIDE = 14  # of predicted masks; ground truth boxes below have sides that are multiples


def random_masks(seed, number, height=56, width=70):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(number, height, width, generator=generator) < 0.5).to(torch.uint8)


def logits_of(seed, number, classes):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, classes, SIDE, SIDE, generator=generator)


def one_image(masks, labels):
    return {"masks": masks, "labels": torch.tensor(labels)}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    corner=st.tuples(st.integers(0, 28), st.integers(0, 28)),
    scale=st.sampled_from([1, 2]),
    label=st.integers(0, 2),
    agnostic=st.booleans(),
)
def test_a_box_on_the_grid_reads_the_pixels_below_it(seed, corner, scale, label, agnostic):
    """A sample of a box of 14 x 14 pixels is a pixel; of 28 x 28, the majority of four."""
    masks = random_masks(seed, 2)
    x, y = corner
    side = SIDE * scale
    box = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
    logits = logits_of(seed + 1, 1, 1 if agnostic else 3)
    patch = masks[1, y : y + side, x : x + side].float()
    means = patch.view(SIDE, scale, SIDE, scale).mean(dim=(1, 3))
    wanted = (means >= 0.5).float()
    found = mask_loss(
        logits, [box], [torch.tensor([1])], [one_image(masks, [0, label])], aligned=True
    )
    chosen = logits[0, 0 if agnostic else label]
    expected = (F.softplus(chosen) - wanted * chosen).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_soft_edges_are_shares_of_pixels():
    """Unaligned samples lie half a pixel off, so that each is the mean of its four neighbours."""
    masks = random_masks(3, 1)
    box = torch.tensor([[10.0, 20, 10 + SIDE, 20 + SIDE]])
    logits = logits_of(4, 1, 1)
    cut = masks[0, 20 : 21 + SIDE, 10 : 11 + SIDE].float()
    shares = (cut[1:, 1:] + cut[:-1, 1:] + cut[1:, :-1] + cut[:-1, :-1]) / 4
    found = mask_loss(logits, [box], [torch.tensor([0])], [one_image(masks, [0])], aligned=False)
    expected = (F.softplus(logits[0, 0]) - shares * logits[0, 0]).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("aligned", [True, False])
def test_many_images_are_the_mean_over_their_rois(aligned):
    """Images of different sizes, one without ROIs; ROIs may share their ground truth."""
    targets = [
        one_image(random_masks(1, 3), [2, 0, 1]),
        one_image(random_masks(2, 1, 40, 33), [1]),
        one_image(random_masks(3, 2, 20, 90), [0, 0]),
    ]
    matched = [torch.tensor([2, 2, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([1])]
    generator = torch.Generator().manual_seed(5)
    rois = []
    for index in matched:
        corner = torch.rand(len(index), 2, generator=generator) * 10
        size = torch.rand(len(index), 2, generator=generator) * 30 + 1
        rois.append(torch.cat([corner, corner + size], dim=1))
    logits = logits_of(6, 4, 3)
    whole = mask_loss(logits, rois, matched, targets, aligned=aligned)
    first, alone = 0, []
    for boxes, index, target in zip(rois, matched, targets, strict=True):
        for one in range(len(index)):
            part = slice(one, one + 1)
            own = logits[first + one : first + one + 1]
            alone.append(mask_loss(own, [boxes[part]], [index[part]], [target], aligned=aligned))
        first += len(index)
    assert float(whole) == pytest.approx(float(torch.stack(alone).mean()), rel=1e-5)


def test_only_the_own_category_learns():
    logits = logits_of(1, 2, 4).requires_grad_()
    boxes = torch.tensor([[0.0, 0, 14, 14], [5, 5, 40, 40]])
    targets = [one_image(random_masks(1, 2), [3, 1])]
    mask_loss(logits, [boxes], [torch.tensor([0, 1])], targets, aligned=True).backward()
    learns = logits.grad.abs().sum(dim=(2, 3)) > 0
    assert learns.tolist() == [[False, False, False, True], [False, True, False, False]]


def test_no_rois_give_a_connected_zero():
    logits = torch.zeros(0, 3, SIDE, SIDE, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = mask_loss(
        logits, [torch.zeros(0, 4)], [none], [one_image(random_masks(0, 0), [])], aligned=True
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32])
def test_masks_of_any_type_give_the_same_and_stay_as_they_are(dtype):
    masks = random_masks(9, 1).to(dtype)
    before = masks.clone()
    box = [torch.tensor([[3.0, 4, 31, 32]])]
    found = mask_loss(
        logits_of(2, 1, 1), box, [torch.tensor([0])], [one_image(masks, [0])], aligned=True
    )
    reference = one_image(random_masks(9, 1), [0])
    expected = mask_loss(logits_of(2, 1, 1), box, [torch.tensor([0])], [reference], aligned=True)
    assert float(found) == float(expected)
    assert torch.equal(before, masks)
