"""Which weights are refused for testing, because a part of the model would stay random."""

from contextlib import suppress

import pytest
import torch

from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2.checkpointer import Checkpointer
    from eql_d2.engines.d2.compat import build_model

pytestmark = pytest.mark.detectron2


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
