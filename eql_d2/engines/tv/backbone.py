"""ResNet with a feature pyramid, built from torchvision's parts with Detectron2's options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

from eql_d2.engines.tv.settings import BackboneSettings

BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
    101: (Bottleneck, [3, 4, 23, 3]),
    152: (Bottleneck, [3, 8, 36, 3]),
}
# torchvision's stages, in the order in which Detectron2's FREEZE_AT counts them.
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
GROUP_NORM_GROUPS = 32


def norm_layer(name: str) -> Callable[[int], nn.Module] | None:
    """Return the constructor of a normalisation layer by Detectron2's name; "" is none.

    SyncBN is BN here, because this engine runs one process.
    """
    layers: dict[str, Callable[[int], nn.Module] | None] = {
        "": None,
        "FrozenBN": FrozenBatchNorm2d,
        "BN": nn.BatchNorm2d,
        "SyncBN": nn.BatchNorm2d,
        "GN": partial(nn.GroupNorm, GROUP_NORM_GROUPS),
    }
    return layers[name]


class PyramidBackbone(nn.Module):
    """Feature pyramid whose levels carry Detectron2's names, finest first.

    Args:
        settings: depth, norm, frozen stages, width of the pyramid.

    Attributes:
        out_channels: channels of every level.
    """

    def __init__(self, settings: BackboneSettings) -> None:
        super().__init__()
        resnet = build_resnet(settings)
        freeze_stages(resnet, settings.freeze_at)
        widths = [resnet.inplanes // 8 * 2**i for i in range(4)]
        self.net = BackboneWithFPN(
            resnet,
            return_layers={f"layer{i}": f"p{i + 1}" for i in range(1, 5)},
            in_channels_list=widths,
            out_channels=settings.fpn_channels,
            norm_layer=norm_layer(settings.fpn_norm),
        )
        self.out_channels = settings.fpn_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``{"p2": ..., ..., "p6": ...}`` of ``(N, 3, H, W)`` images."""
        features = self.net(images)
        features["p6"] = features.pop("pool")
        return features


def build_resnet(settings: BackboneSettings) -> ResNet:
    """Build torchvision's ResNet (or ResNeXt) with the stride where Detectron2 puts it."""
    block, layers = BLOCKS[settings.depth]
    resnet = ResNet(
        block,
        layers,
        groups=settings.groups,
        width_per_group=settings.width_per_group,
        norm_layer=norm_layer(settings.norm),
    )
    if settings.stride_in_1x1:
        move_strides(resnet)
    return resnet


def move_strides(resnet: ResNet) -> None:
    """Put each bottleneck's stride into its first 1x1 convolution, in place.

    torchvision strides in the 3x3 convolution; the original ResNet, and Detectron2 with
    ``STRIDE_IN_1X1``, in the 1x1. Shapes and parameters are the same.
    """
    for block in resnet.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def freeze_stages(resnet: ResNet, freeze_at: int) -> None:
    """Freeze the stem (1), and layers up to ``freeze_at`` (2: layer1, ...), in place.

    Batch norm in frozen stages is replaced by its frozen form, as Detectron2 does: otherwise its
    running statistics would still move.
    """
    for stage in STAGES[:freeze_at]:
        names = ("conv1", "bn1") if stage == "stem" else (stage,)
        for name in names:
            module = getattr(resnet, name)
            for parameter in module.parameters():
                parameter.requires_grad_(False)
            setattr(resnet, name, _with_frozen_norm(module))


def _with_frozen_norm(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(module.num_features, eps=module.eps)
        frozen.load_state_dict(
            {k: v for k, v in module.state_dict().items() if k != "num_batches_tracked"}
        )
        return frozen
    for name, child in module.named_children():
        setattr(module, name, _with_frozen_norm(child))
    return module
