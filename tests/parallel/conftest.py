"""What tests of several hosts share."""

import os

import pytest
from host_processes import ROOT


@pytest.fixture(scope="session")
def environment(compiled):
    """What the processes inherit; type promotion rests as in tests/training/conftest.py."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUMPY_DTYPE_PROMOTION": "standard"}
