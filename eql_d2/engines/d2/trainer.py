"""One training step, and the checks that stop a run whose losses or gradients are not finite."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from eql_d2.checkpoint import load_optimizer, stored_number
from eql_d2.engines.d2.compat import TrainerBase, comm
from eql_d2.engines.d2.parallel import Guarded
from eql_d2.engines.d2.resuming import CHECKPOINT
from eql_d2.errors import UserError
from eql_d2.finite import gradient_problem, gradients_of, largest_norm

Batch = list[dict[str, Any]]


class TrainingDivergedError(UserError):
    """A loss or a gradient is not finite: the settings (mostly the learning rate) do not train."""


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
            model: a :class:`~eql_d2.engines.d2.parallel.Guarded` one, or its parallel wrapper; put
                in training mode here.
            data_loader: endless batches of this process.
            optimizer: of the model's parameters.
            mixed_precision: float16 with loss scaling on GPUs, bfloat16 on CPUs.
        """
        super().__init__()
        self.model = model.train()
        self._detector = _without_wrappers(model)
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
            TrainingDivergedError: on every process, if a loss of any process or a gradient is not
                finite. The model is not updated.
        """
        if self._batches is None:
            self._batches = iter(self._data_loader)
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        losses, fault = self._forward(batch)
        self.optimizer.zero_grad()
        self._scaler.scale(functools.reduce(torch.add, losses.values())).backward()
        self.after_backward()
        # Only now, with all work of the backward pass under way, does the process wait for values.
        self._record({} if fault else losses, fault, batch, data_time)
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
        """Take up the state of :meth:`state_dict`; the optimizer's settings stay.

        Raises:
            UserError: it is none, or the optimizer has other groups of parameters.
        """
        stored_number(state_dict, "iteration", CHECKPOINT)
        try:
            optimizer, scaler = state_dict["optimizer"], state_dict["scaler"]
            super().load_state_dict(state_dict)
            if scaler:  # empty where the run so far used no mixed precision
                self._scaler.load_state_dict(scaler)
        except (LookupError, AttributeError, TypeError, RuntimeError) as error:
            raise UserError(
                f"{CHECKPOINT} cannot be resumed: its training state is damaged. "
                f"[{type(error).__name__}: {error}]"
            ) from error
        load_optimizer(self.optimizer, optimizer, CHECKPOINT)

    def _forward(self, batch: Batch) -> tuple[dict[str, Tensor], str]:
        dtype = torch.float16 if self._device_type == "cuda" else torch.bfloat16
        with torch.autocast(self._device_type, dtype, enabled=self._mixed_precision):
            return self.model(batch)

    def _record(
        self, losses: Mapping[str, Tensor], fault: str, batch: Batch, data_time: float
    ) -> None:
        """Log each loss as its mean over processes; raise where one, or a gradient, is not finite.

        The gradients' norm is read from the device together with the losses.
        """
        named: dict[str, float] = {}
        bad_gradients = ""
        if losses:
            gradients = gradients_of(self._detector)
            scalars = [*losses.values(), largest_norm(list(gradients.values()))]
            *values, norm = torch.stack([v.detach().float() for v in scalars]).tolist()
            named = dict(zip(losses, values, strict=True))
            bad_gradients = gradient_problem(norm, gradients)
        bad = [f"{name} = {value}" for name, value in named.items() if not math.isfinite(value)]
        bad += [fault] if fault else []
        if bad_gradients and self._scaler_skips_overflow():
            bad_gradients = ""
        ids = [image["image_id"] for image in batch] if bad or bad_gradients else []
        gathered = comm.all_gather((named, data_time, bad, bad_gradients, ids))
        if any(bad or bad_gradients for _, _, bad, bad_gradients, _ in gathered):
            raise TrainingDivergedError(self._diverged([part[2:] for part in gathered]))
        means = {name: sum(part[0][name] for part in gathered) / len(gathered) for name in named}
        self.storage.put_scalar("data_time", max(part[1] for part in gathered))
        self.storage.put_scalars(total_loss=sum(means.values()), **means)

    def _scaler_skips_overflow(self) -> bool:
        """Whether gradients that are not finite come of the loss scale, which is halved for them.

        The scaler leaves out such steps. Below 1 the scale is not what made them overflow: without
        this limit, it would leave out all steps to the end, and nothing would be trained.
        """
        return self._scaler.is_enabled() and self._scaler.get_scale() >= 1

    def _diverged(self, parts: list[tuple[list[str], str, list[Any]]]) -> str:
        """Return the message for each process's bad losses, bad gradients and image ids.

        A bad loss explains bad gradients, also those of the other processes; these share them.
        """
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        where = "; ".join(f"{', '.join(bad)} on images {ids}" for bad, _, ids in parts if bad)
        if not where:
            images = [image for _, _, ids in parts for image in ids]
            where = f"{next(text for _, text, _ in parts if text)} on images {images}"
        return (
            f"training diverged at iteration {self.iter}: {where}. The learning rate there was "
            f"{rate:.6g}. Lower SOLVER.BASE_LR (in proportion to SOLVER.IMS_PER_BATCH: 0.02 is for "
            "16 images), lengthen SOLVER.WARMUP_ITERS, or clip gradients with "
            "SOLVER.CLIP_GRADIENTS.ENABLED True; then --resume from the last checkpoint"
        )


def _without_wrappers(model: nn.Module) -> nn.Module:
    """Return the detector, whose parameters have the names that checkpoints use."""
    if isinstance(model, DistributedDataParallel):
        model = model.module
    return model.model if isinstance(model, Guarded) else model
