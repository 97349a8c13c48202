"""Runs whose weights hold code, or are damaged: the run ends with one message, and nothing ran."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from eql_d2.checkpoint import METADATA_KEY
from eql_d2.engines.tv import load_predictor
from eql_d2.errors import UserError


class RunsCode:
    """Unpickling this would create a file in the working directory."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def zoo_file(path):
    content = {"model": {"x": np.zeros(3)}, "__author__": RunsCode()}
    path.write_bytes(pickle.dumps(content))


def checkpoint(path):
    torch.save({"model": {"x": torch.zeros(3)}, METADATA_KEY: RunsCode()}, path)


def resnet(path):
    torch.save({"conv1.weight": RunsCode()}, path)


def text(path):
    path.write_text("hello")


FILES = [
    pytest.param(zoo_file, "weights.pkl", id="code in a zoo file"),
    pytest.param(checkpoint, "weights.pth", id="code in a checkpoint"),
    pytest.param(resnet, "weights.pth", id="code in a ResNet"),
    pytest.param(text, "weights.pth", id="text"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "ran").exists(), "code of the file ran"


@pytest.mark.parametrize(("write", "name"), FILES)
@pytest.mark.parametrize("flags", [{}, {"eval_only": True}, {"resume": True}], ids=str)
def test_hostile_weights_end_a_run(start, folder, write, name, flags):
    overrides = ("MODEL.WEIGHTS", folder / name)
    write(folder / name)
    if "resume" in flags:
        overrides = ()
        (folder / "output").mkdir()
        (folder / name).rename(folder / "output" / name)
        (folder / "output" / "last_checkpoint").write_text(name)
    with pytest.raises(UserError, match=rf"{name}.* (damaged|holds)"):
        start("output", *overrides, **flags)
    assert not (folder / "output" / "model_final.pth").exists()


@pytest.mark.parametrize(("write", "name"), FILES)
def test_hostile_weights_end_a_prediction(folder, write, name):
    write(folder / name)
    with pytest.raises(UserError, match=rf"{name}.* (damaged|holds)"):
        load_predictor(folder / name)
