"""One training step: what is logged, and how a run that diverges ends."""

import math
from contextlib import suppress

import pytest
import torch
from torch import nn

from eql_d2.command_line import TrainOptions
from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import trainer as trainer_module
    from eql_d2.engines.d2.compat import HookBase, comm
    from eql_d2.engines.d2.launch import Processes, launch, processes_from_options
    from eql_d2.engines.d2.parallel import Guarded, parallel_model
    from eql_d2.engines.d2.trainer import Trainer, TrainingDivergedError

pytestmark = pytest.mark.detectron2


class Line(nn.Module):
    """A model of one weight: two losses, one of which a poisoned image makes infinite."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        x = torch.tensor([image["x"] for image in batch])
        if x.isnan().any():
            raise FloatingPointError("proposals contain NaN")
        return {"loss_cls": (self.weight * x).square().mean(), "loss_mask": 0.5 * self.weight}


def train(images, iterations=2, lr=0.1, hook=None, **kwargs):
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    batches = [[{"image_id": 10 * i + j, "x": x} for j, x in enumerate(b)] for i, b in images]
    trainer = Trainer(Guarded(model), batches, optimizer, **kwargs)
    if hook is not None:
        trainer.register_hooks([hook])
    trainer.train(0, iterations)
    return model, trainer


def test_a_step_is_plain_gradient_descent():
    model, trainer = train([(0, [1.0, 2.0])], iterations=1)
    # d/dw of mean((w x)^2) + w / 2 at w = 1: 2 * (1 + 4) / 2 + 0.5
    assert model.weight.item() == pytest.approx(1.0 - 0.1 * 5.5)
    logged = {name: value for name, (value, _) in trainer.storage.latest().items()}
    assert logged["loss_cls"] == pytest.approx(2.5)
    assert logged["loss_mask"] == pytest.approx(0.5)
    assert logged["total_loss"] == pytest.approx(3.0)
    assert logged["data_time"] >= 0


@pytest.mark.parametrize("poison", [math.inf, -math.inf])
def test_an_infinite_loss_stops_the_run_and_says_where(poison):
    class Remember(HookBase):
        def after_step(self):
            self.weight = self.trainer.model.model.weight.item()

        def after_train(self):
            self.last = self.trainer.model.model.weight.item()

    hook = Remember()
    with pytest.raises(TrainingDivergedError) as caught:
        train([(0, [1.0, 2.0]), (1, [1.0, poison])], lr=0.125, hook=hook)
    message = str(caught.value)
    assert "iteration 1:" in message
    assert "loss_cls = inf on images [10, 11]" in message
    assert "loss_mask" not in message, "that term was finite"
    assert "0.125" in message
    assert "SOLVER.BASE_LR" in message
    assert isinstance(caught.value, UserError)
    assert hook.last == hook.weight, "the model was updated with a loss that is no number"


def test_proposals_that_are_no_numbers_are_reported_the_same_way():
    with pytest.raises(TrainingDivergedError, match=r"iteration 0: .*NaN on images \[0, 1\]"):
        train([(0, [1.0, math.nan])])


def test_mixed_precision_on_the_cpu_computes_in_bfloat16():
    seen = []

    class Probe(Line):
        def forward(self, batch):
            seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
            return super().forward(batch)

    model = Probe()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = [{"image_id": 0, "x": 1.0}]
    for mixed in (True, False):
        Trainer(Guarded(model), [batch], optimizer, mixed_precision=mixed).train(0, 1)
    assert seen == [torch.bfloat16, torch.float32]


def test_state_survives_a_file_without_code(tmp_path):
    _, trainer = train([(0, [1.0]), (1, [2.0])])
    torch.save(trainer.state_dict(), tmp_path / "state.pth")
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    model = Line()
    other = Trainer(Guarded(model), [], torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9))
    other.load_state_dict(state)
    assert other.iter == trainer.iter
    momentum = other.optimizer.state[model.weight]["momentum_buffer"]
    expected = next(iter(trainer.optimizer.state.values()))["momentum_buffer"]
    assert torch.equal(momentum, expected)


def test_gradients_are_on_their_way_before_values_are_waited_for(monkeypatch):
    """Reading a loss waits for a GPU, which then has nothing to do until the next call."""
    happened = []

    class Order(HookBase):
        def after_step(self):
            happened.append("step")

    class Observed(Trainer):
        def after_backward(self):
            assert all(p.grad is not None for p in self.model.parameters())
            happened.append("backward")

    def all_gather(value):
        happened.append("values")
        return [value]

    monkeypatch.setattr(trainer_module.comm, "all_gather", all_gather)
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Observed(Guarded(model), [[{"image_id": 0, "x": 1.0}]], optimizer)
    trainer.register_hooks([Order()])
    trainer.train(0, 1)
    assert happened == ["backward", "values", "step"]


def test_mixed_precision_can_be_switched_on_when_resuming(monkeypatch):
    _, before = train([(0, [1.0]), (1, [2.0])])
    state = before.state_dict()
    assert state["scaler"] == {}, "this run scaled nothing"
    model = Line()
    trainer = Trainer(Guarded(model), [], torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    scaler = torch.amp.GradScaler("cpu", enabled=True)  # as on a GPU, where it is enabled
    monkeypatch.setattr(trainer, "_scaler", scaler)
    trainer.load_state_dict(state)
    assert scaler.get_scale() == torch.amp.GradScaler("cpu").get_scale()
    grown = {**scaler.state_dict(), "scale": 4.0}
    trainer.load_state_dict({**state, "scaler": grown})
    assert scaler.get_scale() == 4.0, "the scale of a run that did scale was not taken up"


def poison_gradient(model, value, from_iteration=0):
    """Make the gradient of a model's weight ``value`` from an iteration on; losses stay finite."""
    calls = []

    def hook(gradient):
        calls.append(gradient)
        return gradient * value if len(calls) > from_iteration else gradient

    model.weight.register_hook(hook)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_stop_before_the_update(value):
    model = Line()
    poison_gradient(model, value, from_iteration=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.9)
    batches = [[{"image_id": 10 * i, "x": 1.0}] for i in range(3)]
    trainer = Trainer(Guarded(model), batches, optimizer)
    with pytest.raises(TrainingDivergedError) as caught:
        trainer.train(0, 3)
    assert str(caught.value).startswith(
        "training diverged at iteration 1: all losses are finite, but the gradients are NaN or "
        "infinite: 1 of 1 values in 1 of 1 tensors (first: weight, 1 of 1) on images [10]. The "
        "learning rate there was 0.25. Lower SOLVER.BASE_LR"
    )
    assert model.weight.item() == 1.0 - 0.25 * 2.5, "the model was updated"
    momentum = trainer.state_dict()["optimizer"]["state"][0]["momentum_buffer"]
    assert momentum.item() == 2.5


def test_gradients_whose_norm_overflows_are_trained_on():
    model = Line()
    poison_gradient(model, 1e25)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-25)
    Trainer(Guarded(model), [[{"image_id": 0, "x": 1.0}]], optimizer).train(0, 1)
    assert model.weight.item() == pytest.approx(1 - 2.5)


def test_a_bad_loss_alone_is_blamed_for_the_gradients_it_makes():
    with pytest.raises(TrainingDivergedError) as caught:
        train([(0, [math.inf])])
    assert "loss_cls = inf on images [0]" in str(caught.value)
    assert "gradients are" not in str(caught.value)


def test_steps_that_a_loss_scale_overflows_are_left_out_until_the_scale_is_not_why(monkeypatch):
    model = Line()
    poison_gradient(model, math.inf)
    batches = [[{"image_id": i, "x": 1.0}] for i in range(9)]
    trainer = Trainer(Guarded(model), batches, torch.optim.SGD(model.parameters(), lr=0.1))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    monkeypatch.setattr(trainer, "_scaler", scaler)
    with pytest.raises(TrainingDivergedError, match="iteration 3: all losses are finite, but the"):
        trainer.train(0, 9)
    assert scaler.get_scale() == 0.5, "4, 2 and 1 were tried"
    assert model.weight.item() == 1.0


def train_with_a_bad_gradient_in_one_process(folder):
    """Worker: the second process's gradient is NaN; averaging gives it to the first."""
    rank = comm.get_rank()
    model = Line()
    poison_gradient(model, math.nan if rank else 1.0, from_iteration=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    batches = [[{"image_id": 10 * i + rank, "x": 1.0}] for i in range(3)]
    trainer = Trainer(parallel_model(Guarded(model)), batches, optimizer)
    try:
        trainer.train(0, 3)
    except TrainingDivergedError as error:
        (folder / f"{rank}.txt").write_text(f"{model.weight.item()} {error}")
    comm.synchronize()


def test_all_processes_stop_together_and_name_all_images(tmp_path):
    url = processes_from_options(TrainOptions("c.yaml", num_gpus=2)).url
    processes = Processes(2, 1, 0, url)
    launch(train_with_a_bad_gradient_in_one_process, processes, "cpu", (tmp_path,))
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert first.startswith("0.375 training diverged at iteration 1: all losses are finite, but ")
    assert "(first: weight, 1 of 1) on images [10, 11]" in first
