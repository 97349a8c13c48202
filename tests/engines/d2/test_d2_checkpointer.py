"""Which weights are refused for testing, because a part of the model would stay random."""

import pickle
import re
from contextlib import suppress

import numpy as np
import pytest
import torch

from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2.checkpointer import Checkpointer
    from eql_d2.engines.d2.compat import DetectionCheckpointer, build_model

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


# Detectron2's names of a ResNet's parts, and Caffe2's.
CAFFE2_NAMES = (
    (r"^stem\.conv1\.norm\.", "res_conv1_bn_"),
    (r"^stem\.conv1\.", "conv1_"),
    (r"\.shortcut\.", "_branch1_"),
    (r"\.conv1\.", "_branch2a_"),
    (r"\.conv2\.", "_branch2b_"),
    (r"norm\.", "bn_"),
    (r"bn_weight$", "bn_s"),
    (r"weight$", "w"),
    (r"bias$", "b"),
    (r"\.", "_"),
)


def random_arrays(model, prefix=""):
    """Other values for the parts of the model below a name, without that name."""
    rng = np.random.default_rng(0)
    return {
        name.removeprefix(prefix): rng.random(value.shape, np.float32)
        for name, value in model.state_dict().items()
        if name.startswith(prefix) and value.is_floating_point()
    }


def detectron2_zoo(model):
    return {"model": random_arrays(model), "__author__": "Detectron2 Model Zoo"}


def converted_resnet(model):
    weights = random_arrays(model, "backbone.bottom_up.")
    weights["fc.weight"] = np.ones((1000, 512), np.float32)
    weights["stem.fc.bias"] = np.zeros(3, np.float64)
    return {"model": weights, "__author__": "torchvision", "matching_heuristics": True}


def caffe2_names(weights):
    names = dict.fromkeys(weights, "")
    for name in weights:
        names[name] = name
        for pattern, replacement in CAFFE2_NAMES:
            names[name] = re.sub(pattern, replacement, names[name])
    return {names[name]: value for name, value in weights.items() if "running" not in name}


def caffe2_zoo(model):
    return caffe2_names(random_arrays(model, "backbone.bottom_up."))


def detectron1_zoo(model):
    blobs = {**caffe2_zoo(model), "conv1_w_momentum": np.zeros(3, np.float32)}
    return {"blobs": blobs, "cfg": "MODEL: {TYPE: generalized_rcnn}"}


ZOOS = [detectron2_zoo, converted_resnet, caffe2_zoo, detectron1_zoo]


@pytest.mark.parametrize("protocol", [2, 4, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("zoo", ZOOS, ids=lambda zoo: zoo.__name__)
def test_model_zoo_files_give_the_weights_that_stock_gives(tiny_cfg, tmp_path, zoo, protocol):
    tiny_cfg.MODEL.RESNETS.NORM = "BN"
    torch.manual_seed(1)
    ours, stock = build_model(tiny_cfg), build_model(tiny_cfg)
    stock.load_state_dict(ours.state_dict())
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    content = pickle.dumps(zoo(ours), protocol=protocol)
    if protocol == 2:  # as NumPy 1 wrote it
        content = content.replace(b"cnumpy._core.", b"cnumpy.core.")
        assert b"cnumpy.core.multiarray" in content
    path = tmp_path / "weights.pkl"
    path.write_bytes(content)
    Checkpointer(ours).load(str(path), checkpointables=[])
    DetectionCheckpointer(stock).load(str(path), checkpointables=[])
    loaded, expected = ours.state_dict(), stock.state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    changed = [name for name in before if not torch.equal(before[name], loaded[name])]
    assert len(changed) > 50, "hardly anything was loaded, so the test shows nothing"


def test_names_are_matched_if_the_path_asks_for_it(tiny_cfg, tmp_path):
    ours, stock = build_model(tiny_cfg), build_model(tiny_cfg)
    stock.load_state_dict(ours.state_dict())
    weights = random_arrays(ours, "backbone.bottom_up.")
    torch.save(
        {name: torch.from_numpy(value) for name, value in weights.items()}, tmp_path / "w.pth"
    )
    path = f"{tmp_path / 'w.pth'}?matching_heuristics=True"
    Checkpointer(ours).load(path)
    DetectionCheckpointer(stock).load(path)
    name = "stem.conv1.weight"
    loaded = ours.state_dict()
    assert torch.equal(loaded[f"backbone.bottom_up.{name}"], torch.from_numpy(weights[name]))
    assert all(torch.equal(loaded[k], v) for k, v in stock.state_dict().items())
    with pytest.raises(UserError, match=r"w\.pth: none of 60 weights fits the model by name"):
        Checkpointer(ours).load(str(tmp_path / "w.pth"))
    with pytest.raises(UserError, match="unknown option fast"):
        Checkpointer(ours).load(f"{tmp_path / 'w.pth'}?fast=1")
    with pytest.raises(UserError, match=r"gone\.pth is no file"):
        Checkpointer(ours).load(str(tmp_path / "gone.pth?matching_heuristics=True"))


def test_a_checkpointer_works_on_after_a_refusal(save_without, tmp_path):
    model, path = save_without("num_batches_tracked")
    checkpointer = Checkpointer(model)
    (tmp_path / "text.pth").write_text("hello")
    for _ in range(2):
        with pytest.raises(UserError, match=r"text\.pth"):
            checkpointer.load(str(tmp_path / "text.pth"))
    checkpointer.load(path)
