"""Anchors: Detectron2's boxes, also where image sides are no multiples of the strides."""

import pytest
import torch
from torchvision.models.detection.image_list import ImageList

from eql_d2.engines.tv.anchors import PyramidAnchors

LEVELS = ("p2", "p3", "p4", "p5", "p6")
SIZES = ((16,), (32,), (64,), (128, 160), (256, 23))
RATIOS = ((0.5, 1.0, 2.0),) * 5


def feature_sides(side):
    """What a ResNet and FPN make of an image side: halves, rounded up."""
    sides = [-(-side // 4)]
    for _ in LEVELS[1:]:
        sides.append(-(-sides[-1] // 2))
    return sides


def anchors_of(height, width, num_images=1):
    features = [
        torch.zeros(num_images, 1, h, w)
        for h, w in zip(feature_sides(height), feature_sides(width), strict=True)
    ]
    images = ImageList(torch.zeros(num_images, 3, height, width), [(height, width)] * num_images)
    return PyramidAnchors(LEVELS, SIZES, RATIOS)(images, features), features


def test_areas_ratios_and_centres():
    (anchors,), features = anchors_of(800, 1344)
    p6 = anchors[-6 * features[-1][0, 0].numel() :]
    width, height = (p6[:, 2:] - p6[:, :2]).T
    assert torch.allclose(
        width * height, torch.tensor([256.0**2] * 3 + [23.0**2] * 3).repeat(len(p6) // 6)
    )
    assert torch.allclose(height / width, torch.tensor([0.5, 1, 2]).repeat(len(p6) // 3))
    centres = (p6[:, :2] + p6[:, 2:]) / 2
    assert centres[:, 1].unique().round().tolist() == [64.0 * i for i in range(13)]
    assert centres[:, 0].max().round() == 64 * 20


def test_every_image_of_a_batch_has_the_same():
    anchors, _ = anchors_of(64, 96, num_images=3)
    assert len(anchors) == 3
    assert all(torch.equal(found, anchors[0]) for found in anchors)


@pytest.mark.detectron2
@pytest.mark.parametrize(("height", "width"), [(800, 1344), (160, 160), (224, 416), (32, 32)])
def test_they_are_detectron2s(height, width):
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

    (found,), features = anchors_of(height, width)
    theirs = DefaultAnchorGenerator(
        sizes=SIZES, aspect_ratios=RATIOS, strides=[4, 8, 16, 32, 64], offset=0.0
    )
    wanted = torch.cat([boxes.tensor for boxes in theirs(features)])
    assert torch.equal(found, wanted)
