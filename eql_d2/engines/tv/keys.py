"""Which configuration keys this engine honours: those that a reader has asked for.

Keys fall into four kinds. *Read* keys are honoured, because reading them is the only way to be
recorded as such. *Shared* keys belong to code that both engines use. *Harmless* keys change nothing
in this engine's results; setting them is warned about. Any other key that is set away from its
default stops the run: it asks for something that would silently not happen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fvcore.common.config import CfgNode

from eql_d2.config import changed_keys, get_value
from eql_d2.errors import ConfigError

logger = logging.getLogger("eql_d2.engines.tv")

# Read by eql_d2.experiment and eql_d2.evaluation for both engines.
SHARED = (
    "DATA.",
    "DATASETS.TRAIN",
    "DATASETS.TEST",
    "EVALUATION.",
    "MODEL.EQL.",
    "VERSION",
    "GLOBAL.",
)

# Prefix of the key -> why it changes nothing here.
HARMLESS: Mapping[str, str] = {
    "INPUT.MASK_FORMAT": "masks are bitmaps here, whatever the format of the annotations",
    "INPUT.CROP.SIZE": "INPUT.CROP.ENABLED is False",
    "INPUT.CROP.TYPE": "INPUT.CROP.ENABLED is False",
    "MODEL.ANCHOR_GENERATOR.ANGLES": "for rotated boxes, which no engine here has",
    "MODEL.PANOPTIC_FPN.": "for another architecture",
    "MODEL.RETINANET.": "for another architecture",
    "MODEL.SEM_SEG_HEAD.": "for another architecture",
    "MODEL.ROI_KEYPOINT_HEAD.": "MODEL.KEYPOINT_ON is False",
    "MODEL.ROI_BOX_CASCADE_HEAD.": "for cascade heads, and MODEL.ROI_HEADS.NAME is another",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_": "MODEL.ROI_BOX_HEAD.USE_FED_LOSS is False",
    "MODEL.RESNETS.DEFORM_MODULATED": "MODEL.RESNETS.DEFORM_ON_PER_STAGE is False",
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": "MODEL.RESNETS.DEFORM_ON_PER_STAGE is False",
    "SOLVER.NUM_DECAYS": "for the LR scheduler WarmupStepWithFixedGammaLR only",
    "TEST.AUG.FLIP": "TEST.AUG.ENABLED is False",
    "TEST.AUG.MAX_SIZE": "TEST.AUG.ENABLED is False",
    "TEST.AUG.MIN_SIZES": "TEST.AUG.ENABLED is False",
    "TEST.KEYPOINT_OKS_SIGMAS": "MODEL.KEYPOINT_ON is False",
    "TEST.PRECISE_BN.NUM_ITER": "TEST.PRECISE_BN.ENABLED is False",
    "VIS_PERIOD": "pictures are drawn after the evaluation instead",
}

ADVICE: Mapping[str, str] = {
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": "choose the loss with MODEL.EQL.LOSS.NAME",
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": "choose the loss with MODEL.EQL.LOSS.NAME",
    "SOLVER.AMP.ENABLED": "mixed precision needs --engine detectron2",
    "SOLVER.REFERENCE_WORLD_SIZE": "this engine scales no schedule; write out what you want",
    "TEST.EXPECTED_RESULTS": "compare metrics.json with what you expect",
}


class ConfigReader:
    """Reads keys, checks their values, and knows in the end which keys nobody asked for.

    Args:
        cfg: the tree to read.

    Attributes:
        asked: names of the keys that were read.
        problems: what is wrong so far, one sentence a problem.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self._cfg = cfg
        self.asked: set[str] = set()
        self.problems: list[str] = []

    def __call__(self, name: str) -> Any:
        """Return the value of a key as it is."""
        self.asked.add(name)
        return get_value(self._cfg, name)

    def problem(self, text: str) -> None:
        """Add a problem."""
        self.problems.append(text)

    def choice(self, name: str, allowed: Sequence[Any]) -> Any:
        """Return a value that must be one of ``allowed``."""
        value = self(name)
        if value not in allowed:
            options = " or ".join(repr(a) for a in allowed)
            self.problem(f"{name} must be {options} in the torchvision engine, got {value!r}")
        return value

    def exactly(self, name: str, wanted: Sequence[Any]) -> None:
        """Check a list that can have only one value."""
        value = self(name)
        if tuple(value) != tuple(wanted):
            self.problem(
                f"{name} must be {list(wanted)} in the torchvision engine, got {list(value)}"
            )

    def number(self, name: str, low: float, high: float | None = None) -> Any:
        """Return a number in ``[low, high]``."""
        value = self(name)
        if value < low or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"in [{low}, {high}]"
            self.problem(f"{name} must be {limits}, got {value}")
        return value

    def sequence(self, name: str, length: int | None) -> tuple[Any, ...]:
        """Return a list as a tuple, of ``length`` entries unless that is None."""
        value = self(name)
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if length is not None and len(values) != length:
            self.problem(f"{name} must hold {length} values, got {list(values)}")
            return (values * length)[:length] if values else (0,) * length
        return values

    def train_and_test(self, prefix: str) -> tuple[int, int]:
        """Return the positive numbers of ``prefix_TRAIN`` and ``prefix_TEST``."""
        return self.number(f"{prefix}_TRAIN", 1), self.number(f"{prefix}_TEST", 1)

    def levels(self, name: str, available: Sequence[str]) -> tuple[str, ...]:
        """Return names of pyramid levels: a run of neighbours out of ``available``."""
        value = tuple(self(name))
        runs = [available[i:j] for i in range(len(available)) for j in range(i + 1, 6)]
        if value not in runs:
            self.problem(f"{name} must be neighbours out of {list(available)}, got {list(value)}")
        return value

    def per_level(self, name: str, num_levels: int) -> tuple[tuple[Any, ...], ...]:
        """Return one tuple a pyramid level; a single list stands for all levels."""
        lists = tuple(tuple(entry) for entry in self(name))
        if len(lists) == 1:
            lists *= num_levels
        if len(lists) != num_levels or len({len(entry) for entry in lists}) != 1 or not lists[0]:
            self.problem(
                f"{name} must hold one list, or {num_levels} of equal length (one for each of "
                f"MODEL.RPN.IN_FEATURES), got {[list(entry) for entry in lists]}"
            )
        return lists

    def finish(self) -> None:
        """Warn about harmless keys and raise for all problems.

        Raises:
            ConfigError: problems were found, or keys that nobody asked for were changed.
        """
        for name, value in changed_keys(self._cfg).items():
            if name in self.asked or name.startswith(SHARED):
                continue
            reason = next((why for p, why in HARMLESS.items() if name.startswith(p)), None)
            if reason is None:
                advice = ADVICE.get(name, "leave it at its default, or use --engine detectron2")
                self.problem(
                    f"{name} = {value!r} has no meaning in the torchvision engine; {advice}"
                )
            else:
                logger.warning(f"{name} = {value!r} changes nothing: {reason}")
        if self.problems:
            raise ConfigError(self.problems)
