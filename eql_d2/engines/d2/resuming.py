"""A resumed run goes on from its state, with the settings that it is given now.

A checkpoint holds momentum buffers, the iteration, and, as torch and Detectron2 save them, also
learning rates, weight decay and momentum. The latter are settings, not state: someone who resumes
with another ``SOLVER.BASE_LR`` wants it to be used.
"""

from __future__ import annotations

from typing import Any

from eql_d2.checkpoint import stored_number
from eql_d2.engines.d2.compat import hooks

CHECKPOINT = "the last checkpoint of OUTPUT_DIR"  # what messages call the file that is resumed


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
        """Take up the iteration; base rates are those of the configuration.

        Raises:
            UserError: there is none.
        """
        self.scheduler.last_epoch = stored_number(state_dict, "last_epoch", CHECKPOINT)
