"""All that can be wrong with a run before its data are read."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from eql_d2.checkpoint import LAST_CHECKPOINT
from eql_d2.command_line import TrainOptions
from eql_d2.config_checks import config_problems
from eql_d2.engines.tv.reading import read_settings
from eql_d2.engines.tv.settings import Settings
from eql_d2.errors import ConfigError
from eql_d2.training_log import folder_problems


def checked_settings(cfg: CfgNode, options: TrainOptions) -> Settings:
    """Read the settings of a run.

    Args:
        cfg: tree of :func:`eql_d2.config.load_config`; ``--num-gpus 0`` sets its device to cpu.
        options: the command line.

    Raises:
        ConfigError: all that is wrong with configuration and options, in one message; a folder
            that cannot be used is named in it too, and where nothing else is wrong it is refused
            by :func:`eql_d2.training_log.run_folder`, under its lock.
    """
    if options.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    last = Path(cfg.OUTPUT_DIR) / LAST_CHECKPOINT
    problems = config_problems(cfg) + _option_problems(cfg, options, last)
    try:
        settings = read_settings(cfg, needs_weights=not (options.resume and last.is_file()))
    except ConfigError as error:
        problems += error.problems
    if problems:
        problems += folder_problems(cfg, options, "torchvision")
        raise ConfigError(list(dict.fromkeys(problems)))
    return settings


def _option_problems(cfg: CfgNode, options: TrainOptions, last: Path) -> list[str]:
    """What needs more than one process, and nothing to evaluate."""
    problems = []
    if (options.num_gpus or 1) > 1 or options.num_machines > 1:
        problems.append(
            "the torchvision engine runs one process on one device; for --num-gpus or "
            "--num-machines above 1 use --engine detectron2"
        )
    if options.eval_only and not cfg.MODEL.WEIGHTS and not last.is_file():
        problems.append(
            f"--eval-only has nothing to evaluate: MODEL.WEIGHTS is empty and there is no {last}; "
            "append MODEL.WEIGHTS path/to/model_final.pth"
        )
    return problems
