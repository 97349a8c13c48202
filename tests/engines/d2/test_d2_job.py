"""What is prepared before processes start."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from eql_d2.config import config_from_text
from eql_d2.config_checks import config_warnings
from eql_d2.errors import MissingPackageError

with suppress(MissingPackageError):
    from eql_d2.engines.d2.compat import get_cfg
    from eql_d2.engines.d2.datasets import PackedDataset
    from eql_d2.engines.d2.statistics import statistics_from_config
    from eql_d2.engines.d2.worker import learning_rate

pytestmark = pytest.mark.detectron2


def test_models_read_the_prepared_counts_and_users_keep_their_own_words(make_job, tmp_path):
    job = make_job()
    prepared = Path(job.cfg.MODEL.EQL.STATISTICS)
    assert prepared == job.test.parent / "category_statistics.json", "beside the packed data"
    assert not (tmp_path / "out").exists(), "nothing is written before the run may use its folder"
    assert len(statistics_from_config(job.cfg)) == 6
    saved = config_from_text(job.config_yaml, "saved", get_cfg())
    assert saved.MODEL.EQL.STATISTICS == "train"
    assert saved.MODEL.ROI_HEADS.NUM_CLASSES == 6
    assert saved.MODEL.EQL.LOSS.LAMBDA > 0, "the tail must not change where data are not there"
    assert job.metadata["config"] == job.config_yaml
    assert job.metadata["engine"] == "detectron2"


def test_data_are_packed_once(make_job):
    job = make_job()
    assert len(PackedDataset(job.train)) == 12
    assert len(PackedDataset(job.test)) == 5
    assert job.repeat_factors is None
    assert job.experiment is None, "nothing evaluates during this training"


def test_evaluating_needs_no_training_data(make_job):
    job = make_job(training=False)
    assert job.train is None


def test_evaluation_during_training_gets_the_test_data_only(make_job):
    experiment = make_job("TEST.EVAL_PERIOD", 2).load_experiment()
    assert experiment.train is None
    assert len(experiment.test.images) == 5


def test_repeat_factors_belong_to_the_packed_images(make_job):
    overrides = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")
    job = make_job(*overrides, "DATALOADER.REPEAT_THRESHOLD", 0.5)
    records = list(PackedDataset(job.train))
    assert len(job.repeat_factors) == len(records)
    images = [{a["category_id"] for a in r["annotations"]} for r in records]
    share = torch.tensor([sum(k in one for one in images) for k in range(6)]) / len(images)
    expected = [max(max(1.0, (0.5 / float(share[k])) ** 0.5) for k in one) for one in images]
    assert job.repeat_factors.tolist() == pytest.approx(expected)
    assert max(expected) > 1.5, "the data have no rare category, so the test shows nothing"


def test_reference_world_size_scales_the_schedule(make_job):
    overrides = ("SOLVER.REFERENCE_WORLD_SIZE", 1, "SOLVER.MAX_ITER", 100, "SOLVER.STEPS", "[80]")
    job = make_job(*overrides, world_size=2)
    solver = job.cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.STEPS) == (4, 50, (40,))
    assert pytest.approx(0.02) == solver.BASE_LR
    assert config_from_text(job.config_yaml, "saved", get_cfg()).SOLVER.MAX_ITER == 50


@pytest.mark.parametrize("steps", ["[]", "[30, 44]"])
@pytest.mark.parametrize("warmup", [4, 60, 1000])
def test_a_warning_tells_the_highest_rate_of_the_scaled_schedule(make_job, warmup, steps):
    overrides = ("SOLVER.REFERENCE_WORLD_SIZE", 1, "SOLVER.MAX_ITER", 100, "SOLVER.STEPS", steps)
    cfg = make_job(*overrides, "SOLVER.WARMUP_ITERS", warmup, world_size=2).cfg
    rates = [learning_rate(cfg, i) for i in range(50)]
    lines = config_warnings(cfg, lambda i: learning_rate(cfg, i))
    assert len(lines) == (warmup // 2 >= (15 if steps != "[]" else 50))
    for line in lines:
        assert line.startswith(
            f"SOLVER.BASE_LR is 0.02, but the learning rate reaches at most {max(rates):.3g}: "
        )
    if not lines:
        assert max(rates) == pytest.approx(0.02)
