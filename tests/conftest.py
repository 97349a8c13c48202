"""Fixtures shared by all tests."""

import contextlib
import importlib.util
import os
import resource
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores; more threads would only wait

REQUIRED = "EQL_D2_REQUIRE_DETECTRON2"
INSTALLED = importlib.util.find_spec("detectron2") is not None
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_runtest_setup(item):
    """Report each test of the engine as not run, or as failed where the engine is required."""
    if INSTALLED or item.get_closest_marker("detectron2") is None:
        return
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"Detectron2 is not installed, and {REQUIRED}=1 requires it", pytrace=False)
    pytest.skip("NOT RUN: Detectron2 is not installed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference data that is larger than a repository should hold."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"reference data not found: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def full_disk():
    """``with full_disk(n):`` every file is refused more than n bytes, as by a full disk."""

    @contextlib.contextmanager
    def limited(size: int):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
