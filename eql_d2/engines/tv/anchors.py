"""Anchors as Detectron2 places them.

torchvision's own generator rounds anchors to whole pixels, which moves small ones by up to a tenth
of their area, and takes a level's stride to be the image's side over the level's, which is wrong
where the side is no multiple of the stride.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator

from eql_d2.engines.tv.pooling import level_stride


class PyramidAnchors(AnchorGenerator):
    """Anchors centred on the upper left corner of every cell of named pyramid levels.

    The same boxes in the same order as Detectron2's ``DefaultAnchorGenerator`` with offset 0.

    Args:
        levels: names of the pyramid levels, "p2" has stride 4.
        sizes: of each level, square roots of anchor areas in pixels.
        aspect_ratios: of each level, height over width.
    """

    def __init__(
        self,
        levels: Sequence[str],
        sizes: tuple[tuple[int, ...], ...],
        aspect_ratios: tuple[tuple[float, ...], ...],
    ) -> None:
        super().__init__(sizes, aspect_ratios)
        self._strides = [level_stride(level) for level in levels]

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008  the signature is torchvision's
    ) -> Tensor:
        """Return (sizes x ratios, 4) boxes xyxy around the origin, a size's ratios together."""
        sides = [
            (math.sqrt(scale**2 / ratio), ratio) for scale in scales for ratio in aspect_ratios
        ]
        boxes = [
            (-width / 2, -ratio * width / 2, width / 2, ratio * width / 2) for width, ratio in sides
        ]
        return torch.tensor(boxes, dtype=dtype, device=device)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return (A, 4) anchors xyxy for each image, level after level; the same for all."""
        first = feature_maps[0]
        self.set_cell_anchors(first.dtype, first.device)
        strides = [
            [torch.tensor(stride, device=first.device)] * 2  # a tensor: torchvision's signature
            for stride in self._strides
        ]
        anchors = self.grid_anchors([list(f.shape[-2:]) for f in feature_maps], strides)
        return [torch.cat(anchors)] * len(image_list.image_sizes)
