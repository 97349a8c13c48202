"""Training and test batches from packed records, and a resumed run that goes on exactly.

A run that was stopped and resumed at a checkpoint must be the run that was not stopped. The order
of the images depends on ``SEED`` alone, so resuming means leaving out those that were seen; and all
random draws (flips, scales, sampled ROIs) begin anew from ``SEED``, process and iteration at every
checkpoint, so nothing of the generators needs to be saved. It holds to the bit on CPUs with
``DATALOADER.NUM_WORKERS`` 0 and without aspect ratio grouping; otherwise the order of images is
kept as far as workers and groups allow, and their flips and scales are drawn afresh.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import Sampler

from eql_d2.engines.d2.compat import (
    HookBase,
    RepeatFactorTrainingSampler,
    TrainingSampler,
    build_detection_test_loader,
    build_detection_train_loader,
    comm,
    seed_all_rng,
)
from eql_d2.engines.d2.datasets import PackedDataset
from eql_d2.engines.d2.job import Job
from eql_d2.engines.d2.mapper import Mapper

# Keeps the seeds of one iteration's processes apart from those of the next.
SEED_STRIDE = 10_007
SEED_LIMIT = 2**31  # NumPy takes seeds below 2**32, and its users often add a few


class SkippingSampler(Sampler):
    """Another sampler's endless indices without the first ``skip`` of them."""

    def __init__(self, sampler: Iterable[int], skip: int) -> None:
        """Leave out the first ``skip`` indices of ``sampler``."""
        self._sampler = sampler
        self._skip = skip

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(iter(self._sampler), self._skip, None)


class TrainingBatches:
    """This process's endless batches; ``start`` may still be set before the first is taken."""

    def __init__(self, job: Job) -> None:
        """Read what ``job`` packed for training."""
        self._job = job
        self.start = 0

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        cfg, train = self._job.cfg, self._job.train
        assert train is not None, "packed when the job is to train"
        dataset = PackedDataset(train)
        seen = self.start * cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        loader = build_detection_train_loader(
            dataset=dataset,
            mapper=Mapper(cfg, is_train=True),
            sampler=SkippingSampler(self._sampler(len(dataset)), seen),
            total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
            aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            # Of its own, so that making the loader draws nothing from the process's generator.
            seed=_process_seed(cfg.SEED, self.start),
        )
        return iter(loader)

    def _sampler(self, size: int) -> Sampler:
        seed = self._job.cfg.SEED if self._job.cfg.SEED >= 0 else None  # None: drawn, and shared
        if self._job.repeat_factors is not None:
            return RepeatFactorTrainingSampler(self._job.repeat_factors, seed=seed)
        return TrainingSampler(size, seed=seed)


def test_batches(job: Job) -> Iterable[list[dict[str, Any]]]:
    """Return this process's share of the test images, in batches of one."""
    return build_detection_test_loader(
        dataset=PackedDataset(job.test),
        mapper=Mapper(job.cfg, is_train=False),
        num_workers=job.cfg.DATALOADER.NUM_WORKERS,
    )


def seed_process(seed: int, iteration: int) -> None:
    """Seed all generators of this process, differently on each; draw a seed if it is negative."""
    seed_all_rng(_process_seed(seed, iteration))


class SeedAtCheckpoints(HookBase):
    """Begins all random draws anew at each iteration from which a run can be resumed."""

    def __init__(self, seed: int, period: int) -> None:
        """Seed every ``period`` iterations; never, if ``seed`` is negative."""
        self._seed = seed
        self._period = period

    def before_step(self) -> None:
        """Seed, if a checkpoint was written after the last step."""
        if self._seed >= 0 and self.trainer.iter % self._period == 0:
            seed_process(self._seed, self.trainer.iter)


def _process_seed(seed: int, iteration: int) -> int | None:
    if seed < 0:
        return None
    return (seed + comm.get_rank() + SEED_STRIDE * iteration) % SEED_LIMIT
