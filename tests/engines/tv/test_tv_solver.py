"""Learning rates, parameter groups and clipping are Detectron2's."""

import dataclasses
import importlib
import itertools

import pytest
import torch
from torch import nn

from eql_d2.config import load_config
from eql_d2.config_checks import config_warnings
from eql_d2.engines.tv.reading import read_settings
from eql_d2.engines.tv.solver import (
    build_optimizer,
    clip_gradients,
    rate_factor,
    set_learning_rate,
)


@pytest.fixture
def solver(settings_of):
    return dataclasses.replace(
        settings_of().solver, max_iter=100, base_lr=0.5, steps=(60, 80), warmup_iters=10
    )


def test_warm_up_then_steps(solver):
    factors = [rate_factor(solver, i) for i in range(100)]
    assert factors[0] == pytest.approx(0.001)
    assert factors[5] == pytest.approx(0.5005)
    assert factors[10:60] == [1.0] * 50
    assert factors[60:80] == pytest.approx([0.1] * 20)
    assert factors[80:] == pytest.approx([0.01] * 20)


def detectron2_factors(changes):
    config = importlib.import_module("detectron2.config")
    solver = importlib.import_module("detectron2.solver")
    cfg = config.get_cfg()
    cfg.merge_from_list(list(itertools.chain(*changes.items())))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = solver.build_lr_scheduler(cfg, optimizer)
    factors = []
    for _ in range(cfg.SOLVER.MAX_ITER):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.detectron2
@pytest.mark.parametrize("schedule", ["WarmupMultiStepLR", "WarmupCosineLR"])
@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 7, 45])
@pytest.mark.parametrize("steps", [(), (30,), (30, 40), (40, 90)])
def test_factors_are_detectron2s(solver, schedule, method, warmup, steps):
    if schedule == "WarmupCosineLR" and steps:
        steps = ()
    changed = dataclasses.replace(
        solver,
        max_iter=50,
        base_lr=0.4,
        base_lr_end=0.1,
        schedule=schedule,
        warmup_method=method,
        warmup_iters=warmup,
        warmup_factor=0.05,
        gamma=0.3,
        steps=steps,
    )
    wanted = detectron2_factors(
        {
            "SOLVER.MAX_ITER": 50,
            "SOLVER.BASE_LR": 0.4,
            "SOLVER.BASE_LR_END": 0.1,
            "SOLVER.LR_SCHEDULER_NAME": schedule,
            "SOLVER.WARMUP_METHOD": method,
            "SOLVER.WARMUP_ITERS": warmup,
            "SOLVER.WARMUP_FACTOR": 0.05,
            "SOLVER.GAMMA": 0.3,
            "SOLVER.STEPS": steps,
        }
    )
    assert [rate_factor(changed, i) for i in range(50)] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("schedule", ["WarmupMultiStepLR", "WarmupCosineLR"])
@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("warmup", [1, 15, 30, 1000])
@pytest.mark.parametrize("steps", [[], [12, 20]])
def test_the_highest_rate_that_a_warning_tells_is_that_of_all_iterations(
    tiny_config, schedule, method, warmup, steps
):
    overrides = ["SOLVER.MAX_ITER", "30", "SOLVER.WARMUP_ITERS", str(warmup), "SOLVER.STEPS"]
    overrides += [str(steps), "SOLVER.WARMUP_METHOD", method, "SOLVER.LR_SCHEDULER_NAME", schedule]
    cfg = load_config(tiny_config, [*overrides, "MODEL.ROI_HEADS.NUM_CLASSES", "3"])
    solver = read_settings(cfg).solver

    def rate(iteration):
        return solver.base_lr * rate_factor(solver, iteration)

    lines = config_warnings(cfg, rate)
    by_steps = steps and schedule == "WarmupMultiStepLR"
    assert len(lines) == (warmup >= (12 if by_steps else 30))
    highest = max(rate(i) for i in range(30))
    assert all(f"the learning rate reaches at most {highest:.3g}:" in line for line in lines)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.again = self.conv


def group_of(optimizer, parameter):
    (group,) = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
    return group


def test_groups_have_their_decay_and_factor(solver):
    net = Net()
    settings = dataclasses.replace(
        solver, weight_decay=0.1, weight_decay_norm=0.2, weight_decay_bias=0.3, bias_lr_factor=2.0
    )
    optimizer = build_optimizer(net, settings)
    found = {
        name: (group_of(optimizer, p)["weight_decay"], group_of(optimizer, p)["lr_factor"])
        for name, p in net.named_parameters()
        if p.requires_grad
    }
    assert found == {
        "conv.weight": (0.1, 1.0),
        "conv.bias": (0.3, 2.0),
        "bn.weight": (0.2, 1.0),
        "bn.bias": (0.3, 2.0),
    }
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 4
    rate = set_learning_rate(optimizer, settings, 20)
    assert rate == 0.5
    assert group_of(optimizer, net.conv.bias)["lr"] == 1.0
    assert group_of(optimizer, net.bn.weight)["lr"] == 0.5


def test_biases_decay_like_weights_by_default(solver):
    net = Net()
    optimizer = build_optimizer(net, dataclasses.replace(solver, weight_decay_norm=0.0))
    assert group_of(optimizer, net.conv.bias) is group_of(optimizer, net.conv.weight)
    assert group_of(optimizer, net.bn.bias)["weight_decay"] == 0.0


@pytest.mark.detectron2
def test_one_step_is_detectron2s(solver):
    config = importlib.import_module("detectron2.config")
    d2_solver = importlib.import_module("detectron2.solver")
    cfg = config.get_cfg()
    keys = {
        "SOLVER.BASE_LR": 0.5,
        "SOLVER.WEIGHT_DECAY": 0.1,
        "SOLVER.WEIGHT_DECAY_NORM": 0.2,
        "SOLVER.WEIGHT_DECAY_BIAS": 0.3,
        "SOLVER.BIAS_LR_FACTOR": 2.0,
        "SOLVER.NESTEROV": True,
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.01,
    }
    cfg.merge_from_list(list(itertools.chain(*keys.items())))
    settings = dataclasses.replace(
        solver,
        weight_decay=0.1,
        weight_decay_norm=0.2,
        weight_decay_bias=0.3,
        bias_lr_factor=2.0,
        nesterov=True,
        clip_type="norm",
        clip_value=0.01,
    )
    torch.manual_seed(0)
    ours, theirs = Net(), Net()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 4, 4)
    my_optimizer = build_optimizer(ours, settings)
    set_learning_rate(my_optimizer, settings, 50)
    their_optimizer = d2_solver.build_optimizer(cfg, theirs)
    for _ in range(3):
        for net, optimizer in ((ours, my_optimizer), (theirs, their_optimizer)):
            optimizer.zero_grad()
            (net.bn(net.conv(images)) ** 3).sum().backward()
            if net is ours:
                clip_gradients(net.parameters(), settings)
            optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def with_gradients(*values):
    parameters = [nn.Parameter(torch.zeros(2)) for _ in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


def test_norm_is_clipped_for_each_parameter_alone(solver):
    parameters = with_gradients([3.0, 4.0], [0.3, 0.4])
    clip_gradients(parameters, dataclasses.replace(solver, clip_type="norm", clip_value=1.0))
    assert parameters[0].grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-5)
    assert parameters[1].grad.tolist() == pytest.approx([0.3, 0.4])


def test_values_are_clipped_and_missing_gradients_are_skipped(solver):
    parameters = [*with_gradients([3.0, -0.5]), nn.Parameter(torch.zeros(1))]
    clip_gradients(parameters, dataclasses.replace(solver, clip_type="value", clip_value=1.0))
    assert parameters[0].grad.tolist() == [1.0, -0.5]


def test_clipping_is_off_unless_asked_for(solver):
    parameters = with_gradients([300.0, -500.0])
    clip_gradients(parameters, solver)
    assert parameters[0].grad.tolist() == [300.0, -500.0]
