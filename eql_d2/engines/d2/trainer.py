"""One training step, and the check that stops a run whose losses are no longer numbers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from eql_d2.engines.d2.compat import TrainerBase, comm
from eql_d2.errors import UserError

Batch = list[dict[str, Any]]


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
        with torch.autocast(self._device_type, self._dtype(), enabled=self._mixed_precision):
            losses = self.model(batch)
        self._record(losses, batch, data_time)
        self.optimizer.zero_grad()
        self._scaler.scale(sum(losses.values())).backward()
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

    def _dtype(self) -> torch.dtype:
        return torch.float16 if self._device_type == "cuda" else torch.bfloat16

    def _record(self, losses: Mapping[str, Tensor], batch: Batch, data_time: float) -> None:
        """Log each loss as its mean over processes; raise where one is not finite anywhere."""
        values = torch.stack([v.detach().float() for v in losses.values()]).tolist()
        named = dict(zip(losses, values, strict=True))
        bad = {k: v for k, v in named.items() if not _is_finite(v)}
        ids = [image["image_id"] for image in batch] if bad else []
        gathered = comm.all_gather((named, data_time, bad, ids))
        if any(bad for _, _, bad, _ in gathered):
            raise TrainingDivergedError(self._diverged([(b, i) for _, _, b, i in gathered if b]))
        means = {k: sum(part[0][k] for part in gathered) / len(gathered) for k in named}
        self.storage.put_scalar("data_time", max(part[1] for part in gathered))
        self.storage.put_scalars(total_loss=sum(means.values()), **means)

    def _diverged(self, parts: list[tuple[dict[str, float], list[Any]]]) -> str:
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        where = "; ".join(
            f"{', '.join(f'{k} = {v}' for k, v in bad.items())} on images {ids}"
            for bad, ids in parts
        )
        return (
            f"training diverged at iteration {self.iter}: {where}. The learning rate there was "
            f"{rate:.6g}. Lower SOLVER.BASE_LR (in proportion to SOLVER.IMS_PER_BATCH: 0.02 is for "
            "16 images), lengthen SOLVER.WARMUP_ITERS, or clip gradients with "
            "SOLVER.CLIP_GRADIENTS.ENABLED True; then --resume from the last checkpoint"
        )


def parallel_model(model: nn.Module) -> nn.Module:
    """Wrap ``model`` for training in several processes, on GPUs or on CPUs.

    Detectron2's ``create_ddp_model`` names device ids, which torch refuses for a model on the CPU.
    """
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).device.type == "cuda"
    device_ids = [torch.cuda.current_device()] if on_gpu else None
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)


def _is_finite(value: float) -> bool:
    return value - value == 0.0
