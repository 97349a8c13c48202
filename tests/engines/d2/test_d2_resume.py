"""Resuming: the same run where nothing changed, and the new settings where something did."""

import json
import shutil
from contextlib import suppress

import pytest
import torch

from eql_d2.checkpoint import load_optimizer
from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import run
    from eql_d2.engines.d2.compat import PathManager

pytestmark = pytest.mark.detectron2

LOSSES = ("total_loss", "loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc")


def log_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def stopped(trained, tmp_path):
    """A run that was killed behind iteration 3, whose last checkpoint is of iteration 1."""
    folder, _ = trained
    for name in ("model_0000001.pth", "metrics.jsonl"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    return tmp_path


def test_resuming_goes_on_where_it_stopped(options, tmp_path):
    short = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "MODEL.MASK_ON", "False")
    short += ("DATALOADER.REPEAT_THRESHOLD", 0.5)
    run(options(tmp_path, *short, "SOLVER.MAX_ITER", 2))
    run(options(tmp_path, *short, "SOLVER.MAX_ITER", 4, resume=True))
    lines = log_of(tmp_path)
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]
    # Warm-up over 2 iterations to 0.01, then the step at iteration 3.
    assert [line["lr"] for line in lines] == pytest.approx([1e-5, 0.005005, 0.01, 0.001])
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert state["iteration"] == 3
    assert state["trainer"]["optimizer"]["state"], "momentum was lost"
    assert "segm/AP" not in json.loads((tmp_path / "metrics.json").read_text())
    run(options(tmp_path, *short, "SOLVER.MAX_ITER", 1, overwrite=True))
    assert len(log_of(tmp_path)) == 1, "a new run began with the old run's log"


def test_a_resumed_run_is_the_run_that_was_not_stopped(trained, stopped, options):
    """To the bit, with flips, sampled ROIs and momentum; checkpoints are two iterations apart."""
    folder, metrics = trained
    again = run(options(stopped, "MODEL.WEIGHTS", folder, resume=True))
    for whole, rest in zip(log_of(folder)[2:], log_of(stopped)[2:], strict=True):
        for name in (*LOSSES, "lr", "cls/tail_gradient_share"):
            assert whole[name] == rest[name], (whole["iteration"], name)
    assert again == metrics
    left, right = (
        torch.load(path / "model_final.pth", weights_only=True)["model"]
        for path in (folder, stopped)
    )
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    log = (stopped / "log.txt").read_text()
    assert "model_0000001.pth at iteration 2 of 4; MODEL.WEIGHTS is not read" in log


def test_resuming_without_a_checkpoint_says_what_it_does(trained, options, tmp_path):
    folder, _ = trained
    short = ("SOLVER.MAX_ITER", 1, "MODEL.WEIGHTS", folder / "model_0000003.pth")
    run(options(tmp_path, *short, resume=True))
    assert [line["iteration"] for line in log_of(tmp_path)] == [0]
    log = (tmp_path / "log.txt").read_text()
    assert "found no checkpoint" in log
    assert "iteration 0 with MODEL.WEIGHTS" in log


def test_another_learning_rate_and_momentum_are_used(stopped, options):
    """What the message of a diverged run tells users to do."""
    changed = ("SOLVER.BASE_LR", 0.001, "SOLVER.WEIGHT_DECAY", 0.02, "SOLVER.MOMENTUM", 0.8)
    changed += ("SOLVER.WEIGHT_DECAY_NORM", 0.01, "SOLVER.NESTEROV", "True")
    run(options(stopped, *changed, resume=True))
    lines = log_of(stopped)
    assert [line["lr"] for line in lines] == pytest.approx([1e-5, 0.005005, 0.001, 0.0001])
    state = torch.load(stopped / "model_final.pth", weights_only=True)["trainer"]
    groups = state["optimizer"]["param_groups"]
    assert {group["momentum"] for group in groups} == {0.8}
    assert {group["weight_decay"] for group in groups} == {0.02, 0.01}
    assert all(group["nesterov"] for group in groups)
    assert state["hooks"]["LRScheduler"]["base_lrs"] == [0.001] * len(groups)


def test_buffers_are_taken_up_and_settings_are_not():
    weight = torch.nn.Parameter(torch.ones(2))
    before = torch.optim.SGD([weight], lr=1.0, momentum=0.9, weight_decay=0.1)
    weight.grad = torch.ones(2)
    before.step()
    after = torch.optim.SGD([weight], lr=0.5, momentum=0.5)
    load_optimizer(after, before.state_dict(), "x.pth")
    (group,) = after.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.5, 0)
    assert torch.equal(after.state[weight]["momentum_buffer"], torch.full((2,), 1.1))
    two = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)], 0.1)
    with pytest.raises(UserError, match=r"other groups of parameters; were .*WEIGHT_DECAY"):
        load_optimizer(two, before.state_dict(), "x.pth")


def test_the_log_has_each_iteration_once(stopped, options):
    """Also, a run can be cut short at one of ``SOLVER.STEPS``, here 3."""
    assert [line["iteration"] for line in log_of(stopped)] == [0, 1, 2, 3]
    run(options(stopped, "SOLVER.MAX_ITER", 3, resume=True))
    assert [line["iteration"] for line in log_of(stopped)] == [0, 1, 2]


def test_nothing_is_left_to_do(stopped, options):
    """``MAX_ITER`` is behind the checkpoint, where no learning rate is defined."""
    metrics = run(options(stopped, "SOLVER.MAX_ITER", 1, resume=True))
    assert "bbox/AP" in metrics


@pytest.mark.parametrize("weights", ["nowhere/model.pth", "detectron2://R-50.pkl"])
def test_weights_that_are_not_read_need_not_be_there(stopped, options, monkeypatch, weights):
    def offline(url):
        raise AssertionError(f"{url} was fetched")

    with monkeypatch.context() as patch:
        if "://" in weights:
            patch.setattr(PathManager, "get_local_path", lambda path: path)
            patch.setattr("eql_d2.engines.d2.checks._fetch", offline)
        run(options(stopped, "MODEL.WEIGHTS", weights, "SOLVER.MAX_ITER", 2, resume=True))
    assert "MODEL.WEIGHTS is not read" in (stopped / "log.txt").read_text()


def test_a_last_checkpoint_that_is_gone_is_named(stopped, options):
    (stopped / "model_0000001.pth").unlink()
    with pytest.raises(UserError, match=r"names 'model_0000001.pth', which does not exist"):
        run(options(stopped, resume=True))
    assert not (stopped / "log.txt").exists(), "nothing should have been started"
