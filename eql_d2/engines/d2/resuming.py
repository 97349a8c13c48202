"""A resumed run goes on from its state, with the settings that it is given now.

A checkpoint holds momentum buffers, the iteration, and, as torch and Detectron2 save them, also
learning rates, weight decay and momentum. The latter are settings, not state: someone who resumes
with another ``SOLVER.BASE_LR`` wants it to be used.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from eql_d2.engines.d2.compat import hooks
from eql_d2.errors import UserError


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take up the buffers of ``state`` and keep the settings of ``optimizer``.

    Args:
        optimizer: as built from the configuration; changed in place.
        state: ``state_dict()`` of one with the same groups of parameters.

    Raises:
        UserError: the groups differ.
    """
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        raise UserError(
            "the checkpoint's optimizer has other groups of parameters; were FREEZE_AT, "
            "SOLVER.WEIGHT_DECAY* or SOLVER.BIAS_LR_FACTOR changed? Resume with the same ones, or "
            f"begin anew from it as MODEL.WEIGHTS, without --resume. [{error}]"
        ) from error
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)


class LRScheduler(hooks.LRScheduler):
    """Detectron2's hook, of whose state only the iteration is loaded.

    The name is Detectron2's too, since checkpoints hold the state of hooks by their names.
    """

    def before_train(self) -> None:
        """Set the learning rates of the iteration that comes next."""
        super().before_train()
        if self.trainer.iter < self.trainer.max_iter:  # else no rate is defined, or needed
            rates = self.scheduler.get_lr()
            for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the iteration; base rates are those of the configuration."""
        self.scheduler.last_epoch = state_dict["last_epoch"]
