"""What a run's processes are told: prepared once on each machine, read by all of its processes."""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from eql_d2.categories import write_statistics
from eql_d2.checkpoint import checkpoint_metadata
from eql_d2.engines.d2.compat import DefaultTrainer, RepeatFactorTrainingSampler
from eql_d2.engines.d2.datasets import PackedDataset, needs_bitmasks, test_dicts, training_dicts
from eql_d2.experiment import Experiment, resolved_config

logger = logging.getLogger("eql_d2")


@dataclass(frozen=True)
class Job:
    """Everything a process needs besides its rank; small enough to be sent to each.

    Attributes:
        cfg: the resolved tree; ``MODEL.EQL.STATISTICS`` names the prepared counts.
        config_yaml: the resolved tree as the user may use it again, elsewhere.
        metadata: what each checkpoint says about itself.
        category_ids: K dataset ids in contiguous order.
        test: packed test records.
        train: packed training records; None when only evaluating.
        repeat_factors: one factor a training image, with ``RepeatFactorTrainingSampler``.
        experiment: the pickled experiment, for evaluations during training.
        resume: go on from ``OUTPUT_DIR``'s last checkpoint.
        overwrite: remove the run that ``OUTPUT_DIR`` holds.
        environment: command line and versions, to be kept with the run.
    """

    cfg: Any
    config_yaml: str
    metadata: dict[str, Any]
    category_ids: tuple[int, ...]
    test: Path
    train: Path | None = None
    repeat_factors: Tensor | None = None
    experiment: Path | None = None
    resume: bool = False
    overwrite: bool = False
    environment: str = ""

    @property
    def output_dir(self) -> Path:
        """``OUTPUT_DIR``."""
        return Path(self.cfg.OUTPUT_DIR)

    def load_experiment(self) -> Experiment:
        """Read the experiment back, without its training data."""
        assert self.experiment is not None, "written when TEST.EVAL_PERIOD asks for evaluations"
        # A pickle is safe here: this run wrote it, into a private temporary folder of its own.
        return pickle.loads(self.experiment.read_bytes())


def prepare_job(
    cfg: Any,
    experiment: Experiment,
    directory: str | Path,
    *,
    world_size: int,
    training: bool,
    resume: bool = False,
) -> Job:
    """Pack the data of ``experiment`` into ``directory`` and resolve the configuration.

    Args:
        cfg: the tree as read.
        experiment: :func:`eql_d2.experiment.prepare_experiment` of it.
        directory: a folder on this machine for the life of the run.
        world_size: number of processes, for ``SOLVER.REFERENCE_WORLD_SIZE``.
        training: whether training data are needed.
        resume: go on from the last checkpoint.

    Raises:
        DataError: the training data do not fit the configuration.
    """
    directory = Path(directory)
    user_cfg = DefaultTrainer.auto_scale_workers(resolved_config(cfg, experiment), world_size)
    config_yaml = user_cfg.dump()
    cfg = user_cfg.clone()
    cfg.defrost()
    cfg.MODEL.EQL.STATISTICS = str(write_statistics(experiment.statistics, directory))
    test = PackedDataset.write(test_dicts(experiment.test), directory / "test.bin")
    job = Job(
        cfg=cfg,
        config_yaml=config_yaml,
        metadata=checkpoint_metadata(config_yaml, experiment.statistics, "detectron2"),
        category_ids=experiment.test.category_ids,
        test=test.path,
        resume=resume,
    )
    return _add_training(job, experiment, directory) if training else job


def _add_training(job: Job, experiment: Experiment, directory: Path) -> Job:
    cfg = job.cfg
    assert experiment.train is not None, "prepare_experiment(training=True) reads it"
    dicts = training_dicts(
        experiment.train,
        masks=cfg.MODEL.MASK_ON,
        keep_empty=not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
    )
    logger.info(f"training on {len(dicts)} of {len(experiment.train.images)} images")
    if cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon" and needs_bitmasks(dicts):
        logger.info("some masks are run-length coded: all are trained on as bitmasks")
        cfg.INPUT.MASK_FORMAT = "bitmask"
    factors = None
    if cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        factors = _repeat_factors(dicts, cfg)
    pickled = None
    if cfg.TEST.EVAL_PERIOD > 0:
        pickled = directory / "experiment.pkl"
        pickled.write_bytes(pickle.dumps(replace(experiment, train=None)))
    train = PackedDataset.write(dicts, directory / "train.bin")
    return replace(job, train=train.path, repeat_factors=factors, experiment=pickled)


def _repeat_factors(dicts: list[dict[str, Any]], cfg: Any) -> Tensor:
    """Return r(i) = max over the image's categories c of max(1, sqrt(t / f(c))), one an image."""
    one_line_a_category = logging.getLogger("detectron2.data.samplers.distributed_sampler")
    level = one_line_a_category.level
    one_line_a_category.setLevel(logging.WARNING)
    try:
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dicts, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
        )
    finally:
        one_line_a_category.setLevel(level)
    logger.info(
        f"repeat factor sampling: {float(factors.sum()):.0f} images an epoch in the mean, up to "
        f"{float(factors.max()):.1f} times the same"
    )
    return factors
