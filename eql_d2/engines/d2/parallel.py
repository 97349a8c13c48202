"""What several processes that train one model need, so that none waits for another in vain."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eql_d2.engines.d2.compat import comm

FPN_OUTPUT = "fpn_output"  # as Detectron2 names the last layer of each level: fpn_output2 ...
FPN_LATERAL = "fpn_lateral"  # and its first: fpn_lateral2 ...


class Guarded(nn.Module):
    """A detector that answers proposals that are no numbers with a loss that is no number.

    Detectron2 raises an error for them, on one process alone, and the gradients that the other
    processes wait for would never come.
    """

    def __init__(self, model: nn.Module) -> None:
        """Guard ``model``, which returns a dictionary of losses for a batch."""
        super().__init__()
        self.model = model

    def forward(self, batch: list[dict[str, Any]]) -> tuple[dict[str, Tensor], str]:
        """Return the losses and, where they are not the model's, why there are none."""
        try:
            return self.model(batch), ""
        except FloatingPointError as error:
            sums = [p.sum() for p in self.model.parameters() if p.requires_grad]
            return {"no_loss": math.nan * torch.stack(sums).sum()}, str(error)


def freeze_unread_levels(backbone: nn.Module, read: Iterable[str]) -> list[str]:
    """Exclude from training the layers of a feature pyramid that no head reads.

    These are the last layers of levels that are not read and the first layers of levels finer than
    all that are (the coarser ones pass through to the finer). No loss reaches them, so training
    does not change them in one process either; but in several processes torch waits for their
    gradients and fails.

    Args:
        backbone: a feature pyramid; any other backbone is left alone.
        read: names of the levels that RPN and ROI heads read, ``p2`` to ``p6``.

    Returns:
        names of the layers that were frozen.
    """
    layers = dict(backbone.named_children())
    levels = {int(n.removeprefix(FPN_OUTPUT)) for n in layers if n.startswith(FPN_OUTPUT)}
    if not levels:
        return []
    wanted = {int(name.removeprefix("p")) for name in read}
    used = wanted & levels
    if wanted - levels:  # p6 is made from the coarsest level
        used.add(max(levels))
    unread = [f"{FPN_OUTPUT}{level}" for level in sorted(levels - used)]
    unread += [f"{FPN_LATERAL}{level}" for level in sorted(levels) if level < min(used)]
    for name in unread:
        layers[name].requires_grad_(False)
    return unread


def parallel_model(model: nn.Module) -> nn.Module:
    """Wrap ``model`` for training in several processes, on GPUs or on CPUs.

    Detectron2's ``create_ddp_model`` names device ids, which torch refuses for a model on the CPU.
    """
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).device.type == "cuda"
    device_ids = [torch.cuda.current_device()] if on_gpu else None
    return DistributedDataParallel(model, device_ids=device_ids)


def share_buffers(model: nn.Module) -> None:
    """Give all processes the buffers of the first, which are those that checkpoints hold.

    Each process's batch normalisation has seen other images since they were last shared; without
    this, the processes would test models that differ.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
