"""Loading the scripts in datasets/, which are no package."""

import importlib.util
from pathlib import Path

import pytest

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


@pytest.fixture
def script():
    """Function that returns a script of the datasets folder as a module."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, DATASETS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
