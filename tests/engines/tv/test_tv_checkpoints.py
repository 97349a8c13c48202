"""Checkpoints of this engine: everything comes back, and what does not fit is named and refused."""

import dataclasses

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from eql_d2.checkpoint import METADATA_KEY
from eql_d2.engines.tv.checkpoints import (
    RGB_STD,
    Progress,
    check_resnet_input,
    checkpoint_name,
    load_initial_weights,
    load_model_state,
    load_weights,
    resume,
    save_checkpoint,
)
from eql_d2.errors import ConfigError, UserError

METADATA = {"engine": "torchvision"}


def network(seed, width=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def step(model, optimizer):
    """One step on random numbers, which are drawn from torch's generator."""
    optimizer.zero_grad()
    model(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()


def saved(folder, number=3, metadata=METADATA):
    """A network and its optimizer after some steps, and the path of their checkpoint."""
    model = network(1)
    optimizer = sgd(model)
    for _ in range(number):
        step(model, optimizer)
    path = folder / checkpoint_name(number)
    save_checkpoint(path, model, optimizer, Progress(number, seed=7), metadata)
    return model, optimizer, path


def assert_equal(model, other):
    left, right = model.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_names_count_from_zero_as_detectron2_does():
    assert [checkpoint_name(n) for n in (1, 180_000)] == ["model_0000000.pth", "model_0179999.pth"]


def test_going_on_from_a_checkpoint_is_going_on(tmp_path):
    """Weights, momentum, running statistics and random numbers are those of the moment."""
    model, optimizer, path = saved(tmp_path)
    step(model, optimizer)
    step(model, optimizer)
    other = network(99)
    fresh = sgd(other)
    assert resume(path, other, fresh) == Progress(iteration=3, seed=7)
    step(other, fresh)
    step(other, fresh)
    assert_equal(model, other)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        left, right = optimizer.state[ours], fresh.state[theirs]
        assert torch.equal(left["momentum_buffer"], right["momentum_buffer"])


def test_settings_of_the_optimizer_are_those_of_now(tmp_path):
    _, _, path = saved(tmp_path)
    model = network(99)
    optimizer = sgd(model, lr=0.01, momentum=0.5, weight_decay=0.2)
    resume(path, model, optimizer)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.5, 0.2)
    assert all("momentum_buffer" in optimizer.state[p] for p in model.parameters())


def test_a_file_holds_plain_values_and_becomes_the_last_one(tmp_path):
    _, _, first = saved(tmp_path, 2)
    _, _, second = saved(tmp_path, 5)
    content = torch.load(second, weights_only=True)
    assert content[METADATA_KEY] == {"engine": "torchvision", "iteration": 4}
    assert (tmp_path / "last_checkpoint").read_text() == second.name
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {first.name, second.name, "last_checkpoint"}, "something partial is left"
    assert METADATA == {"engine": "torchvision"}, "the caller's metadata were edited"


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, full_disk):
    model, _, path = saved(tmp_path, 2)
    before = path.read_bytes()
    with full_disk(200), pytest.raises((OSError, RuntimeError)):
        save_checkpoint(path, model, sgd(model), Progress(2, 7), METADATA)
    assert path.read_bytes() == before
    assert (tmp_path / "last_checkpoint").read_text() == path.name
    assert resume(path, network(5), sgd(network(5))).iteration == 2


@pytest.mark.parametrize("key", ["model", "optimizer", "iteration", "seed", "rng"])
def test_what_a_resumed_run_needs_is_named(tmp_path, key):
    _, _, path = saved(tmp_path)
    content = torch.load(path, weights_only=True)
    del content[key]
    torch.save(content, path)
    model = network(99)
    with pytest.raises(UserError, match=rf"cannot be resumed: it lacks {key}\. .*MODEL\.WEIGHTS"):
        resume(path, model, sgd(model))
    assert_equal(model, network(99))


def test_other_groups_of_parameters_are_refused(tmp_path):
    _, _, path = saved(tmp_path)
    model = network(99)
    groups = [{"params": [p]} for p in model.parameters()]
    with pytest.raises(UserError, match=r"other groups of parameters; were .*SOLVER\.WEIGHT_DECAY"):
        resume(path, model, torch.optim.SGD(groups, lr=0.1))


def test_states_that_do_not_fit_are_counted_and_change_nothing(tmp_path):
    state = network(1).state_dict()
    state["0.weight"] = torch.zeros(3, 5)
    del state["1.running_mean"]
    state["2.bias"] = torch.zeros(1)
    model = network(99)
    with pytest.raises(UserError, match=r"\(3 differences\)") as caught:
        load_model_state(model, state, tmp_path / "x.pth")
    message = str(caught.value)
    for part in ("lacks 1.running_mean", "unknown 2.bias", "(3, 5), the model needs (3, 2)"):
        assert part in message
    assert str(tmp_path / "x.pth") in message
    assert_equal(model, network(99))
    with pytest.raises(UserError, match=r"\(7 differences\)") as caught:
        load_model_state(model, {}, tmp_path / "x.pth")
    assert str(caught.value).count("lacks") == 4, "only some of many are shown"


def test_weights_from_a_file_or_a_folder(tmp_path):
    model, _, path = saved(tmp_path)
    for source in (path, str(tmp_path)):
        other = network(99)
        load_weights(other, source)
        assert_equal(model, other)


def test_weights_of_the_other_engine_name_it(tmp_path):
    _, _, path = saved(tmp_path, metadata={"engine": "detectron2"})
    with pytest.raises(UserError, match="trained with Detectron2; run with --engine detectron2"):
        load_weights(network(99), path)


@pytest.mark.parametrize("missing", ["model", METADATA_KEY])
def test_files_that_are_no_checkpoint(tmp_path, missing):
    _, _, path = saved(tmp_path)
    content = torch.load(path, weights_only=True)
    del content[missing]
    torch.save(content, path)
    with pytest.raises(UserError, match="is no checkpoint of this engine"):
        load_weights(network(99), path)


@pytest.fixture
def settings(settings_of, tmp_path):
    """Settings that begin with torchvision's ResNet-18, and its weights."""
    torch.manual_seed(8)
    weights = resnet18().state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    overrides = ("MODEL.PIXEL_STD", list(RGB_STD), "MODEL.RESNETS.STRIDE_IN_1X1", False)
    return settings_of("MODEL.WEIGHTS", tmp_path / "resnet18.pth", *overrides), weights


def test_a_resnet_fills_the_body_and_nothing_else(settings, model_of):
    chosen, weights = settings
    model, before = model_of(), model_of().state_dict()
    load_initial_weights(model, chosen)
    body = "backbone.net.body."
    for name, value in model.state_dict().items():
        if name.startswith(body) and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, weights[name.removeprefix(body)]), name
        else:
            assert torch.equal(value, before[name]), name


def test_a_resnet_of_another_depth_is_refused(settings, model_of, tmp_path):
    chosen, weights = settings
    del weights["layer4.1.conv2.weight"]
    torch.save(weights, tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match=r"\(1 differences\): lacks layer4\.1\.conv2\.weight"):
        load_initial_weights(model_of(), chosen)


def test_a_resnet_gets_the_input_that_it_knows(settings):
    chosen, _ = settings
    check_resnet_input(chosen)
    rounded = tuple(round(value) for value in RGB_STD)
    for close in (rounded, RGB_STD[::-1]):
        changed = dataclasses.replace(chosen.input, pixel_std=close)
        check_resnet_input(dataclasses.replace(chosen, input=changed))
    wrong = [
        {"input": dataclasses.replace(chosen.input, channel_order="BGR")},
        {"input": dataclasses.replace(chosen.input, pixel_std=(1.0, 1.0, 1.0))},
        {"input": dataclasses.replace(chosen.input, pixel_std=(*RGB_STD[:2], 1.0))},
        {"backbone": dataclasses.replace(chosen.backbone, stride_in_1x1=True)},
    ]
    for change in wrong:
        with pytest.raises(ConfigError, match=r"Append INPUT\.FORMAT RGB"):
            check_resnet_input(dataclasses.replace(chosen, **change))
