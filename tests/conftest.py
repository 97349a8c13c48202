"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores; more threads would only wait

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference data that is larger than a repository should hold."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"reference data not found: {SHARED_DATA}")
    return SHARED_DATA
