"""One training step, and the check that stops a run whose losses are no longer numbers."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from eql_d2.engines.d2.compat import TrainerBase, comm
from eql_d2.errors import UserError

Batch = list[dict[str, Any]]
FPN_OUTPUT = "fpn_output"  # as Detectron2 names the last layer of each level: fpn_output2 ...


class TrainingDivergedError(UserError):
    """A loss became infinite or NaN: the settings (mostly the learning rate) do not train."""


class Trainer(TrainerBase):
    """Detectron2's hook-driven loop around a step that works on CPU, on a GPU and in parallel.

    Detectron2's own trainers write Detectron2's file names, refuse parallel CPU training, and
    report a diverged run without its images and only on one process.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Batch],
        optimizer: Optimizer,
        *,
        mixed_precision: bool = False,
    ) -> None:
        """Take over ready-made parts.

        Args:
            model: returns a dictionary of losses for a batch; put in training mode here.
            data_loader: endless batches of this process.
            optimizer: of the model's parameters.
            mixed_precision: float16 with loss scaling on GPUs, bfloat16 on CPUs.
        """
        super().__init__()
        self.model = model.train()
        self.optimizer = optimizer
        self._data_loader = data_loader
        self._batches: Iterator[Batch] | None = None
        self._device_type = next(model.parameters()).device.type
        self._mixed_precision = mixed_precision
        scaled = mixed_precision and self._device_type == "cuda"
        self._scaler = torch.amp.GradScaler(self._device_type, enabled=scaled)

    def run_step(self) -> None:
        """Load a batch, compute losses and gradients, update.

        Raises:
            TrainingDivergedError: on every process, if a loss of any process is not finite. The
                model is not updated.
        """
        if self._batches is None:
            self._batches = iter(self._data_loader)
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        losses, fault = self._forward(batch)
        self._record(losses, fault, batch, data_time)
        self.optimizer.zero_grad()
        self._scaler.scale(functools.reduce(torch.add, losses.values())).backward()
        self.after_backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return iteration, hooks, optimizer and loss scale; plain values and tensors only."""
        state = super().state_dict()
        return {
            **state,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self._scaler.load_state_dict(state_dict["scaler"])

    def _forward(self, batch: Batch) -> tuple[dict[str, Tensor], str]:
        """Return the losses, or why there are none: proposals that are not finite."""
        dtype = torch.float16 if self._device_type == "cuda" else torch.bfloat16
        with torch.autocast(self._device_type, dtype, enabled=self._mixed_precision):
            try:
                return self.model(batch), ""
            except FloatingPointError as error:  # Detectron2's check of the proposals
                return {}, str(error)

    def _record(
        self, losses: Mapping[str, Tensor], fault: str, batch: Batch, data_time: float
    ) -> None:
        """Log each loss as its mean over processes; raise where one is not finite anywhere."""
        values = (
            torch.stack([v.detach().float() for v in losses.values()]).tolist() if losses else []
        )
        named = dict(zip(losses, values, strict=True))
        bad = [f"{name} = {value}" for name, value in named.items() if not math.isfinite(value)]
        bad += [fault] if fault else []
        ids = [image["image_id"] for image in batch] if bad else []
        gathered = comm.all_gather((named, data_time, bad, ids))
        if any(bad for _, _, bad, _ in gathered):
            raise TrainingDivergedError(self._diverged([part[2:] for part in gathered if part[2]]))
        means = {name: sum(part[0][name] for part in gathered) / len(gathered) for name in named}
        self.storage.put_scalar("data_time", max(part[1] for part in gathered))
        self.storage.put_scalars(total_loss=sum(means.values()), **means)

    def _diverged(self, parts: list[tuple[list[str], list[Any]]]) -> str:
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        where = "; ".join(f"{', '.join(bad)} on images {ids}" for bad, ids in parts)
        return (
            f"training diverged at iteration {self.iter}: {where}. The learning rate there was "
            f"{rate:.6g}. Lower SOLVER.BASE_LR (in proportion to SOLVER.IMS_PER_BATCH: 0.02 is for "
            "16 images), lengthen SOLVER.WARMUP_ITERS, or clip gradients with "
            "SOLVER.CLIP_GRADIENTS.ENABLED True; then --resume from the last checkpoint"
        )


def freeze_unread_levels(backbone: nn.Module, read: Iterable[str]) -> list[str]:
    """Exclude from training the last layer of feature pyramid levels that no head reads.

    No loss reaches them, so training does not change them in one process either; but in several
    processes torch waits for their gradients and fails.

    Args:
        backbone: a feature pyramid; any other backbone is left alone.
        read: names of the levels that RPN and ROI heads read, ``p2`` to ``p6``.

    Returns:
        names of the levels that were frozen.
    """
    levels = {
        name.replace(FPN_OUTPUT, "p"): module
        for name, module in backbone.named_children()
        if name.startswith(FPN_OUTPUT)
    }
    read = set(read)
    if levels and read - levels.keys():  # p6 is made from the coarsest level
        read.add(max(levels))
    unread = sorted(levels.keys() - read)
    for level in unread:
        levels[level].requires_grad_(False)
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
