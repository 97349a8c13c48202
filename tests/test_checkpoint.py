"""Checkpoint metadata: what is stored comes back, and every kind of wrong file is named."""

import copy
import importlib
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import eql_d2
from eql_d2 import checkpoint
from eql_d2.checkpoint import (
    METADATA_KEY,
    check_finite,
    checkpoint_metadata,
    load_checkpoint,
    load_optimizer,
    read_checkpoint_metadata,
    resolve_checkpoint,
)
from eql_d2.errors import UserError

STATISTICS = {"names": ["cat", "dog"], "category_ids": [3, 17], "image_count": [5, 1]}


class FakeStatistics:
    """Stands for CategoryStatistics: only its ``to_dict`` matters here."""

    def __init__(self, content=None):
        self.content = STATISTICS if content is None else content

    def to_dict(self):
        return self.content


def save(path: Path, written_by="torchvision", **changes) -> Path:
    metadata = checkpoint_metadata("MODEL: {}\n", FakeStatistics(), written_by, iteration=9)
    metadata.update(changes)
    torch.save({"model": {"weight": torch.arange(1000.0)}, METADATA_KEY: metadata}, path)
    return path


@pytest.mark.parametrize("engine", ["torchvision", "detectron2"])
def test_metadata_comes_back_with_weights_only(tmp_path, engine):
    path = save(tmp_path / "model_final.pth", engine)
    assert METADATA_KEY == "eql_d2"
    assert read_checkpoint_metadata(path) == {
        "format": 1,
        "engine": engine,
        "version": eql_d2.__version__,
        "config": "MODEL: {}\n",
        "statistics": STATISTICS,
        "iteration": 9,
    }
    raw = torch.load(path, weights_only=True)
    assert raw[METADATA_KEY]["statistics"] == STATISTICS


def test_real_statistics_survive():
    categories = importlib.import_module("eql_d2.categories")
    statistics = categories.CategoryStatistics.from_counts(
        names=["cat", "dog", "bird"],
        category_ids=[3, 17, 90],
        image_count=[500, 50, 5],
        instance_count=[900, 60, 5],
        num_images=510,
    )
    metadata = checkpoint_metadata("", statistics, "torchvision")
    again = categories.CategoryStatistics.from_dict(metadata["statistics"])
    assert again.names == ("cat", "dog", "bird")
    assert again.category_ids == (3, 17, 90)
    assert again.groups == statistics.groups
    assert again.num_images == 510
    assert torch.equal(again.image_count, statistics.image_count)
    assert torch.equal(again.instance_count, statistics.instance_count)


def test_tuples_become_lists_and_the_input_is_not_changed():
    content = {"names": ("a", "b"), "nested": {"counts": (1, 2)}}
    metadata = checkpoint_metadata("", FakeStatistics(content), "detectron2")
    assert metadata["statistics"] == {"names": ["a", "b"], "nested": {"counts": [1, 2]}}
    assert content["names"] == ("a", "b")


@pytest.mark.parametrize(
    "bad", [np.float64(0.5), np.int64(3), torch.ones(2), Path("x"), {1, 2}], ids=str
)
def test_values_that_need_code_to_unpickle_are_refused(bad):
    with pytest.raises(TypeError, match=r"statistics\.image_count\[1\]"):
        checkpoint_metadata("", FakeStatistics({"image_count": [1, bad]}), "torchvision")


def test_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="engine must be one of"):
        checkpoint_metadata("", FakeStatistics(), "mmdetection")


def test_output_dir_uses_last_checkpoint(tmp_path):
    save(tmp_path / "model_0000009.pth", "detectron2")
    save(tmp_path / "model_final.pth", "torchvision")
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth\n")
    assert resolve_checkpoint(tmp_path) == tmp_path / "model_0000009.pth"
    assert read_checkpoint_metadata(str(tmp_path))["engine"] == "detectron2"


def test_output_dir_without_last_checkpoint_lists_the_files(tmp_path):
    with pytest.raises(UserError, match=r"no last_checkpoint; it holds no \.pth file"):
        read_checkpoint_metadata(tmp_path)
    save(tmp_path / "model_0000009.pth")
    with pytest.raises(UserError, match=r"give one of its files: model_0000009\.pth"):
        read_checkpoint_metadata(tmp_path)


@pytest.mark.parametrize("text", ["gone.pth", "", "\n"])
def test_last_checkpoint_that_names_nothing(tmp_path, text):
    (tmp_path / "last_checkpoint").write_text(text)
    with pytest.raises(UserError, match="which does not exist"):
        resolve_checkpoint(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"model\.pth does not exist"):
        read_checkpoint_metadata(tmp_path / "model.pth")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_truncated_file(tmp_path, share):
    path = save(tmp_path / "model.pth")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"model\.pth.*(truncated|damaged)"):
        read_checkpoint_metadata(path)


@pytest.mark.parametrize(
    "content",
    [b"hello, not a checkpoint\n", b"PK\x03\x04 nothing", b"\x89PNG\r\n\x1a\n" * 9, b"{}"],
)
def test_other_files(tmp_path, content):
    path = tmp_path / "picture.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"picture\.pth"):
        read_checkpoint_metadata(path)


def test_model_zoo_pickle(tmp_path):
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": np.zeros(3)}, "__author__": "zoo"}, protocol=2))
    with pytest.raises(UserError, match=r"R-50\.pkl"):
        read_checkpoint_metadata(path)


class RunsCode:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_never_run(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({METADATA_KEY: RunsCode(tmp_path / "ran")}, path)
    with pytest.raises(UserError, match="more than tensors and plain values"):
        read_checkpoint_metadata(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"model": {}}, {METADATA_KEY: "text"}, {}])
def test_checkpoints_of_others(tmp_path, content):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="not written by eql_d2"):
        read_checkpoint_metadata(path)


def test_a_bare_tensor_is_no_checkpoint(tmp_path):
    path = tmp_path / "tensor.pth"
    torch.save(torch.zeros(3), path)
    with pytest.raises(UserError, match="holds a Tensor"):
        load_checkpoint(path)


def test_newer_format_asks_for_an_update(tmp_path):
    path = save(tmp_path / "new.pth", format=2, version="9.1")
    with pytest.raises(UserError, match=r"format 2, written by eql_d2 9\.1.*Update eql_d2"):
        read_checkpoint_metadata(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("config", None), ("statistics", []), ("engine", "mmdet"), ("format", "1"), ("version", 1)],
)
def test_wrong_entries_are_named(tmp_path, key, value):
    path = save(tmp_path / "wrong.pth", **{key: value})
    with pytest.raises(UserError, match=rf"missing or wrong.*'{key}'"):
        read_checkpoint_metadata(path)


def test_old_serialization_is_read_too(tmp_path):
    path = tmp_path / "old.pth"
    metadata = checkpoint_metadata("A: 1\n", FakeStatistics(), "detectron2")
    torch.save({METADATA_KEY: metadata}, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint_metadata(path)["config"] == "A: 1\n"


def test_weights_are_mapped_and_equal(tmp_path):
    path = save(tmp_path / "model.pth")
    assert torch.equal(load_checkpoint(path)["model"]["weight"], torch.arange(1000.0))
    assert checkpoint.FORMAT == 1


def test_nan_and_infinity_are_refused_at_any_depth(tmp_path):
    content = {
        "conv.weight": torch.ones(4),
        "bn.running_var": torch.ones(3, dtype=torch.float16),
        "bn.num_batches_tracked": torch.tensor(7),
        "quantised": torch.zeros(2, dtype=torch.float8_e4m3fn),
        "sparse": torch.eye(2).to_sparse(),
        "optimizer": {"state": [{"momentum_buffer": torch.zeros(2, dtype=torch.float64)}]},
        "lr": math.nan,  # a setting, which its reader checks
    }
    content["itself"] = content
    file = tmp_path / "model_0000009.pth"
    check_finite(content, file)
    content["bn.running_var"][1] = -math.inf
    content["optimizer"]["state"][0]["momentum_buffer"].fill_(math.nan)
    with pytest.raises(UserError) as caught:
        check_finite(content, file)
    assert str(caught.value) == (
        f"{file} holds NaN or infinity: 3 of 9 values in 2 of 3 tensors (first: bn.running_var, 1 "
        "of 3; optimizer.state.0.momentum_buffer, 2 of 2). Such a model detects nothing; use an "
        "earlier checkpoint of its run (to resume from that, write its name into last_checkpoint "
        "of the same folder)"
    )


def test_what_is_not_saved_leaves_the_last_checkpoint_to_resume_from(tmp_path):
    content, file = {"weight": torch.tensor([math.inf])}, tmp_path / "model_final.pth"
    with pytest.raises(UserError, match=r"BASE_LR.*the last good checkpoint \(none was saved"):
        check_finite(content, file, saving=True)
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    with pytest.raises(UserError, match=r"not saved.*: 1 of 1 .*\(model_0000009\.pth, which stays"):
        check_finite(content, file, saving=True)


def test_momentum_that_is_not_finite_is_not_taken_up(tmp_path):
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.grad = torch.ones(2)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["momentum_buffer"] = torch.tensor([1.0, math.nan])
    with pytest.raises(UserError, match=r"x\.pth .*optimizer\.state\.0\.momentum_buffer, 1 of 2"):
        load_optimizer(optimizer, state, "x.pth")
    assert optimizer.state[weight]["momentum_buffer"].tolist() == [1, 1]
