"""ROI features from a feature pyramid, with or without the half-pixel correction."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, roi_align

from eql_d2.engines.tv.settings import PoolerSettings

# FPN (Lin et al., CVPR 2017, eq. 1): a box of 224 x 224 pixels goes to level 4.
CANONICAL_SIZE = 224
CANONICAL_LEVEL = 4


class AlignedRoIPooler(nn.Module):
    """``ROIAlignV2``: ROIAlign whose pixel centres lie at half-integer positions.

    Args:
        levels: names of the pyramid levels, neighbours, finest first; "p2" has stride 4.
        resolution: height and width of the output.
        sampling_ratio: samples a bin and side; 0 adapts to the size of the box.
    """

    def __init__(self, levels: tuple[str, ...], resolution: int, sampling_ratio: int) -> None:
        super().__init__()
        self._levels = levels
        self._resolution = resolution
        self._sampling_ratio = sampling_ratio

    def forward(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> Tensor:
        """Pool every box from the level that fits its size.

        Args:
            features: pyramid levels, ``(N, C, H, W)`` each.
            boxes: one ``(R_i, 4)`` tensor of xyxy boxes (pixels of the batch) an image.
            image_shapes: not needed, because strides follow from the levels' names; part of the
                signature that torchvision's heads call.

        Returns:
            ``(sum R_i, C, resolution, resolution)``.
        """
        rois = torch.cat(
            [torch.cat([torch.full_like(b[:, :1], i), b], dim=1) for i, b in enumerate(boxes)]
        )
        finest = features[self._levels[0]]
        pooled = finest.new_zeros((rois.shape[0], finest.shape[1], *[self._resolution] * 2))
        assigned = assign_levels(rois[:, 1:], self._levels)
        for i, level in enumerate(self._levels):
            here = torch.where(assigned == i)[0]
            of_level = roi_align(
                features[level],
                rois[here],
                self._resolution,
                spatial_scale=1.0 / level_stride(level),
                sampling_ratio=self._sampling_ratio,
                aligned=True,
            )
            # Not pooled[here] = ..., whose graph depends on whether there is one ROI or more.
            pooled.index_copy_(0, here, of_level.to(pooled.dtype))
        return pooled


def build_pooler(settings: PoolerSettings, levels: tuple[str, ...]) -> nn.Module:
    """Return torchvision's own pooler for "ROIAlign", the aligned one for "ROIAlignV2"."""
    if settings.aligned:
        return AlignedRoIPooler(levels, settings.resolution, settings.sampling_ratio)
    return MultiScaleRoIAlign(list(levels), settings.resolution, settings.sampling_ratio)


def level_stride(level: str) -> int:
    """Return the stride in pixels of the pyramid level named "p2" (4), "p3" (8), ..."""
    return 2 ** int(level.removeprefix("p"))


def assign_levels(boxes: Tensor, levels: tuple[str, ...]) -> Tensor:
    """Return the index into ``levels`` of each of the ``(R, 4)`` xyxy boxes (FPN, eq. 1)."""
    sizes = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    wanted = torch.floor(CANONICAL_LEVEL + torch.log2(sizes / CANONICAL_SIZE + 1e-8))
    first = int(levels[0].removeprefix("p"))
    return (wanted.to(torch.int64) - first).clamp(0, len(levels) - 1)
