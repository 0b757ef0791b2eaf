"""Settings that every test shares: eight simulated CPU devices, strict promotion, warnings as errors."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images beside the project; skips where it is absent."""
    folder = Path(os.environ.get("JAXVPR_REAL_DATA", SHARED / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set JAXVPR_REAL_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The folder of real weights beside the project; skips where it is absent."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip(f"real weights not found at {folder}")
    return folder
