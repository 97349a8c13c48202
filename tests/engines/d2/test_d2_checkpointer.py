"""Which weights are refused for testing, because a part of the model would stay random."""

import pickle
from contextlib import suppress

import pytest
import torch

from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2.checkpointer import Checkpointer
    from eql_d2.engines.d2.compat import build_model

pytestmark = pytest.mark.detectron2

NAME = "proposal_generator.rpn_head.conv.bias"


@pytest.fixture
def save_without(tiny_cfg, tmp_path):
    """Write a model's weights without those of a name, and return the model and the file."""

    def save(part):
        tiny_cfg.MODEL.RESNETS.NORM = "BN"
        model = build_model(tiny_cfg)
        weights = model.state_dict()
        kept = {name: value for name, value in weights.items() if part not in name}
        assert 0 < len(kept) < len(weights)
        torch.save({"model": kept}, tmp_path / "weights.pth")
        return model, str(tmp_path / "weights.pth")

    return save


@pytest.mark.parametrize("part", ["backbone.bottom_up.res4.1", "backbone.fpn_lateral3", "rpn_head"])
def test_a_deeper_model_than_the_weights_is_refused(save_without, part):
    """As with weights of R-50 in a model of R-101, whose heads are equal."""
    model, path = save_without(part)
    with pytest.raises(UserError, match=r"\d+ parameters are not .*MODEL\.RESNETS\.DEPTH") as told:
        Checkpointer(model, strict=True).load(path)
    assert part in str(told.value)
    Checkpointer(model).load(path)  # to train from it is nobody's mistake


def test_counts_that_no_test_reads_may_be_missing(save_without):
    model, path = save_without("num_batches_tracked")
    Checkpointer(model, strict=True).load(path)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tiny_model, tmp_path, poison):
    path = str(tmp_path / "weights.pth")
    weights = tiny_model.state_dict()
    weights[NAME] = torch.full_like(weights[NAME], poison)
    torch.save({"model": weights}, path)
    wanted = rf"holds NaN or infinity: 32 of .*first: {NAME}, 32 of 32"
    for strict in (True, False):
        with pytest.raises(UserError, match=f"{path} {wanted}"):
            Checkpointer(tiny_model, strict=strict).load(path)
    assert torch.isfinite(tiny_model.state_dict()[NAME]).all()
    arrays = {name: value.numpy() for name, value in weights.items()}
    path = str(tmp_path / "zoo.pkl")
    with open(path, "wb") as file:
        pickle.dump({"model": arrays, "__author__": "a zoo"}, file)
    with pytest.raises(UserError, match=f"{path} {wanted}"):
        Checkpointer(tiny_model).load(path)


def test_momentum_that_is_not_finite_is_refused(tiny_model, tmp_path):
    optimizer = {"state": {0: {"momentum_buffer": torch.tensor([float("nan")])}}}
    content = {"model": tiny_model.state_dict(), "trainer": {"optimizer": optimizer}}
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"trainer\.optimizer\.state\.0\.momentum_buffer, 1 of 1"):
        Checkpointer(tiny_model).load(str(tmp_path / "weights.pth"))


def test_what_is_not_finite_is_not_saved(tiny_model, tmp_path):
    checkpointer = Checkpointer(tiny_model, str(tmp_path))
    checkpointer.save("good")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        tiny_model.get_parameter(NAME)[0] = float("nan")
    for name in ("good", "bad"):
        with pytest.raises(UserError, match=rf"{name}\.pth is not saved.*\(good\.pth, which stays"):
            checkpointer.save(name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    Checkpointer(tiny_model, str(tmp_path), save_to_disk=False).save("elsewhere")
