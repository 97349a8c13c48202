"""Runs whose weights hold code, or are damaged: the run ends with one message, and nothing ran."""

import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import load_predictor, run

pytestmark = pytest.mark.detectron2


class RunsCode:
    """Unpickling this would create a file in the working directory."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def zoo_file(path):
    """A file that Detectron2's own reader takes for one of the model zoo, and unpickles."""
    weights = {"backbone.bottom_up.stem.conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    content = {"model": weights, "__author__": RunsCode(), "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content))


def checkpoint(path):
    torch.save({"model": {"x": torch.zeros(3)}, "iteration": 1, "trainer": RunsCode()}, path)


def text(path):
    path.write_text("hello")


def list_of_weights(path):
    path.write_bytes(pickle.dumps([np.zeros(3)]))


FILES = [
    pytest.param(zoo_file, "weights.pkl", id="code in a zoo file"),
    pytest.param(zoo_file, "weights.pth", id="code in a pickle called a checkpoint"),
    pytest.param(checkpoint, "weights.pth", id="code in a checkpoint"),
    pytest.param(text, "weights.pkl", id="text"),
    pytest.param(list_of_weights, "weights.pkl", id="a list"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "ran").exists(), "code of the file ran"


@pytest.mark.parametrize(("write", "name"), FILES)
@pytest.mark.parametrize("flags", [{}, {"eval_only": True}, {"resume": True}], ids=str)
def test_hostile_weights_end_a_run(options, folder, write, name, flags):
    overrides = ("MODEL.WEIGHTS", folder / name)
    write(folder / name)
    if "resume" in flags:
        overrides = ()
        (folder / "output").mkdir()
        (folder / name).rename(folder / "output" / name)
        (folder / "output" / "last_checkpoint").write_text(name)
    with pytest.raises(UserError, match=rf"{name}.* (damaged|holds)"):
        run(options(folder / "output", *overrides, **flags))
    assert not (folder / "output" / "model_final.pth").exists()


@pytest.mark.parametrize(("write", "name"), FILES)
def test_hostile_weights_end_a_prediction(folder, write, name):
    write(folder / name)
    with pytest.raises(UserError, match=rf"{name}.* (damaged|holds)"):
        load_predictor(folder / name)
