"""The first process may score for longer than any collective operation may last."""

import json
import time
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from eql_d2.command_line import TrainOptions
from eql_d2.errors import MissingPackageError, UserError
from eql_d2.evaluation import ImageDetections, ResultsWriter

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import worker
    from eql_d2.engines.d2.compat import comm
    from eql_d2.engines.d2.evaluator import shard_path
    from eql_d2.engines.d2.launch import launch, processes_from_options
    from eql_d2.engines.d2.taking_turns import on_first_process

pytestmark = pytest.mark.detectron2

TIMEOUT_SECONDS = 8  # processes may start that far apart on a busy machine
SCORING_SECONDS = 10


def two_processes():
    return processes_from_options(TrainOptions("c.yaml", num_gpus=2))


def fail():
    raise UserError("nothing to score")


def score_for_long(folder):
    """Worker: evaluate during training, scoring for longer than the time-out; then fail; then wait.

    That all processes go on together afterwards shows in the barriers.
    """

    def write_shard(job, model):
        detections = ImageDetections(np.ones((1, 4)), np.ones(1), np.zeros(1, np.int64))
        path = shard_path(folder / "inference", comm.get_rank(), 2)
        with ResultsWriter(path, [7]) as writer:
            writer.add(comm.get_rank(), detections)

    def score(cfg, experiment, results):
        time.sleep(SCORING_SECONDS)
        return {"bbox/AP": float(len(json.loads(results.read_text()))), "segm/AP": None}

    worker.write_detections, worker.finish_evaluation = write_shard, score
    job = SimpleNamespace(cfg=None, output_dir=folder, load_experiment=lambda: None)
    metrics = worker._evaluate_now(job, None)
    comm.synchronize()
    with pytest.raises(UserError, match=r"^nothing to score$"):
        on_first_process(fail)
    kind = ZeroDivisionError if comm.get_rank() == 0 else RuntimeError
    with pytest.raises(kind, match="division by zero") as caught:
        on_first_process(lambda: 1 / 0)
    assert comm.get_rank() == 0 or "1 / 0" in str(caught.value)  # the line of the fault
    (folder / f"{comm.get_rank()}.json").write_text(json.dumps(metrics))
    # And the time-out is real: a plain barrier around the same work ends the others.
    if comm.get_rank() == 0:
        time.sleep(SCORING_SECONDS)
        return
    with pytest.raises(RuntimeError, match=r"(?i)time"):
        comm.synchronize()
    (folder / "timed_out").touch()


def test_scoring_outlasts_the_time_out_and_errors_come_back(tmp_path):
    (tmp_path / "inference").mkdir()
    timeout = timedelta(seconds=TIMEOUT_SECONDS)
    launch(score_for_long, two_processes(), "cpu", (tmp_path,), timeout=timeout)
    assert json.loads((tmp_path / "0.json").read_text()) == {"bbox/AP": 2.0}
    assert json.loads((tmp_path / "1.json").read_text()) == {}
    assert (tmp_path / "timed_out").exists()
    assert [p.name for p in (tmp_path / "inference").iterdir()] == ["lvis_instances_results.json"]


def fail_during_training(folder):
    """Worker: what all do around an evaluation whose scoring fails; the others must not go on."""
    (folder / f"{comm.get_rank()}_began").touch()
    try:
        on_first_process(fail)
    finally:
        comm.synchronize()  # neither is ended before both have left a trace
    (folder / f"{comm.get_rank()}_went_on").touch()


def test_a_job_whose_scoring_fails_ends_with_the_cause(tmp_path):
    with pytest.raises(UserError, match=r"^nothing to score$"):
        launch(fail_during_training, two_processes(), "cpu", (tmp_path,))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0_began", "1_began"]


def test_one_process_does_the_work_itself():
    assert on_first_process(lambda: "done") == "done"
