"""ROI pooling from a pyramid."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from eql_d2.engines.tv.pooling import AlignedRoIPooler, assign_levels, build_pooler, level_stride
from eql_d2.engines.tv.settings import PoolerSettings

LEVELS = ("p2", "p3", "p4", "p5")


def test_stride_follows_from_the_name():
    assert [level_stride(level) for level in LEVELS] == [4, 8, 16, 32]


@pytest.mark.parametrize(
    ("side", "level"),
    [(10, 0), (111, 0), (112, 1), (223, 1), (224, 2), (448, 3), (5000, 3), (0, 0)],
)
def test_levels_follow_the_fpn_paper(side, level):
    assert assign_levels(torch.tensor([[5.0, 5, 5 + side, 5 + side]]), LEVELS).tolist() == [level]


def test_levels_that_are_missing_fall_to_the_nearest():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 400, 400]])
    assert assign_levels(boxes, ("p3",)).tolist() == [0, 0]
    assert assign_levels(boxes, ("p3", "p4")).tolist() == [0, 1]


@pytest.fixture
def pyramid():
    generator = torch.Generator().manual_seed(0)
    return {
        level: torch.randn(2, 3, 512 // level_stride(level), 512 // level_stride(level),
                           generator=generator)
        for level in LEVELS
    }  # fmt: skip


def test_each_box_is_pooled_from_its_level(pyramid):
    boxes = [torch.tensor([[3.0, 9, 40, 50]]), torch.tensor([[5.0, 5, 300, 290], [0, 0, 20, 20]])]
    found = AlignedRoIPooler(LEVELS, 5, 2)(pyramid, boxes, [(512, 512)] * 2)
    for row, (image, box, level) in enumerate(
        [(0, boxes[0][0], "p2"), (1, boxes[1][0], "p4"), (1, boxes[1][1], "p2")]
    ):
        wanted = roi_align(
            pyramid[level][image : image + 1],
            [box[None]],
            5,
            1 / level_stride(level),
            2,
            aligned=True,
        )
        assert torch.equal(found[row], wanted[0])


def test_aligned_pooling_is_not_shifted():
    """On a ramp, a bin's value is the coordinate of its centre: aligned only."""
    ramp = (torch.arange(16.0) + 0.5).expand(1, 1, 16, 16) * 4
    box = [torch.tensor([[8.0, 8, 40, 40]])]
    aligned = AlignedRoIPooler(("p2",), 4, 2)({"p2": ramp}, box, [(64, 64)])
    assert aligned[0, 0, 0].tolist() == [12, 20, 28, 36]


def test_no_boxes_give_an_empty_tensor_with_gradient(pyramid):
    pyramid = {k: v.requires_grad_() for k, v in pyramid.items()}
    pooled = AlignedRoIPooler(LEVELS, 5, 2)(pyramid, [torch.zeros(0, 4)] * 2, [(512, 512)] * 2)
    assert pooled.shape == (0, 3, 5, 5)
    pooled.sum().backward()


def test_gradients_reach_every_level_used(pyramid):
    pyramid = {k: v.requires_grad_() for k, v in pyramid.items()}
    boxes = [torch.tensor([[3.0, 9, 40, 50], [0, 0, 300, 300]]), torch.zeros(0, 4)]
    AlignedRoIPooler(LEVELS, 5, 2)(pyramid, boxes, [(512, 512)] * 2).sum().backward()
    assert float(pyramid["p2"].grad.abs().sum()) > 0
    assert float(pyramid["p4"].grad.abs().sum()) > 0


def test_kind_follows_the_settings():
    assert isinstance(build_pooler(PoolerSettings(7, 0, True), LEVELS), AlignedRoIPooler)
    stock = build_pooler(PoolerSettings(7, 2, False), LEVELS)
    assert isinstance(stock, MultiScaleRoIAlign)
    assert stock.sampling_ratio == 2
